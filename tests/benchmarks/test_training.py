"""Rules of the benchmark of a training iteration.

1. All schemes play the same trajectories to the letter, with slots used again, and one that does not is refused.
2. Tokens are counted as they are: what an episode reads in either context, padding beside it, nothing twice.
3. The network is run on every token in play as in training, whatever was recorded.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hiper.benchmarks.training import SETTINGS, Scheme, _compare, _iterate, bench, record
from hiper.composition.compose import compose
from hiper.config import Context, RunConfig
from hiper.errors import ConfigError
from hiper.model.actor import Actor, load_tokenizer
from hiper.model.tokenizer import build_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.rollout.replay import GenerateSampler, ReplaySampler, Script
from hiper.rollout.samplers.types import Request
from hiper.sft.demos import read_demos, write_demos
from hiper.suites.alfworld.games import TaskIndex
from hiper.suites.alfworld.settings import ALFWorldConfig

TRAJECTORIES = 3
SMALL = [
    "model.compute_dtype=float32",  # so that play and training agree on every token, closely
    "threads=1",
    f"rollout.trajectories={TRAJECTORIES}",
    "rollout.slots=2",
    "trainer.minibatch=2",
    "alfworld.detours=0",
    "demos.slips=0",  # a demonstration in the window context leaves slips out, and is what tokens are counted from
    *(f"model.tiny.{name}={size}" for name, size in {"hidden": 32, "layers": 2, "heads": 2, "kv_heads": 2, "intermediate": 48}.items()),
]


@pytest.fixture(scope="module")
def cfg() -> RunConfig:
    return compose([*SETTINGS, *SMALL])


@pytest.fixture(scope="module")
def codec(speaker: Path) -> ChatCodec:
    return ChatCodec(load_tokenizer(speaker))


@pytest.fixture(scope="module")
def result(cfg: RunConfig, task_index: TaskIndex) -> dict[str, Any]:
    return bench(cfg, task_index, repeats=1)


@pytest.fixture(scope="module")
def lengths(cfg: RunConfig, task_index: TaskIndex, tmp_path_factory: pytest.TempPathFactory) -> dict[Context, list[int]]:
    """Tokens of each sequence of the recorded episodes, by the chat template: a conversation, or a turn's prompt and reply."""
    tokenizer = build_tokenizer(record(cfg, task_index)[1])
    demos = replace(cfg.demos, count=TRAJECTORIES, processes=1, lapses=0.0)
    own = replace(cfg.own(ALFWorldConfig), fresh=False, renumber=False)
    found = {}
    for context in Context:
        path: Path = tmp_path_factory.mktemp("counted") / "demos.jsonl"
        write_demos(task_index, replace(cfg, demos=demos, suite=own, protocol=replace(cfg.protocol, context=context)), path)
        found[context] = [len(tokenizer.apply_chat_template(demo.messages)["input_ids"]) for demo in read_demos(path)]
    return found


def test_tokens_are_those_of_the_episodes(result: dict[str, Any], lengths: dict[Context, list[int]]) -> None:
    assert result["turns"] == len(lengths[Context.window]) > 3 * TRAJECTORIES
    assert result["trajectories"] == result["tasks"] == len(lengths[Context.append]) == TRAJECTORIES
    for scheme in Scheme:
        counts = lengths[Context.append if scheme is Scheme.append else Context.window]
        found = result["schemes"][scheme]
        assert found["update"]["tokens"] == found["score"]["tokens"] == sum(counts)
        assert found["rollout"]["tokens"] == sum(counts) - len(counts), "the last token of a sequence predicts nothing in play"
        assert found["total"]["tokens"] == 3 * sum(counts) - len(counts)
        assert found["rollout"]["padded_tokens"] > found["rollout"]["tokens"]
    longest = max(lengths[Context.window])
    for phase in ("score", "update"):
        assert result["schemes"]["append"][phase]["padded_tokens"] >= sum(lengths[Context.append])
        assert result["schemes"]["generate"][phase]["padded_tokens"] == result["turns"] * longest
        assert sum(lengths[Context.window]) < result["schemes"]["window"][phase]["padded_tokens"] < result["turns"] * longest
    json.dumps(result)


def test_ratios_are_quotients_of_what_is_shown(result: dict[str, Any]) -> None:
    for scheme in ("window", "generate"):
        theirs, ours, ratios = result["schemes"][scheme], result["schemes"]["append"], result["ratios"][scheme]
        assert ratios["trained_tokens"] == round(theirs["update"]["padded_tokens"] / ours["update"]["padded_tokens"], 2)
        assert ratios["trained_tokens_without_padding"] == round(theirs["update"]["tokens"] / ours["update"]["tokens"], 2) > 2
        for phase in ("rollout", "score", "update", "total"):
            rates = ours[phase]["trajectories_per_second"] / theirs[phase]["trajectories_per_second"]
            assert ratios["trajectories_per_second"][phase] == pytest.approx(rates, rel=0.05)
            assert ratios["cpu_seconds"][phase] == round(theirs[phase]["cpu_seconds"] / ours[phase]["cpu_seconds"], 2)


def test_shares_are_of_the_measured_peak(result: dict[str, Any]) -> None:
    for scheme in Scheme:
        found = result["schemes"][scheme]
        assert found["total"]["flops"] == sum(found[phase]["flops"] for phase in ("rollout", "score", "update"))
        for phase in ("rollout", "score", "update"):
            rate = found[phase]["flops"] / found[phase]["cpu_seconds"]
            assert found[phase]["share_of_peak"] == pytest.approx(rate / result["gemm_flops_per_second"], abs=1e-3)
            assert found[phase]["share_of_peak"] > 0
    assert result["schemes"]["append"]["update"]["flops"] > 1.4 * result["schemes"]["append"]["score"]["flops"], "backwards, too"


def test_play_and_training_agree_on_every_token(result: dict[str, Any]) -> None:
    for scheme in Scheme:
        assert 0 < result["schemes"][scheme]["logprob_gap"] < 1e-4


def test_generate_and_our_policy_say_the_same_of_the_same_prompts(actor: Actor, codec: ChatCodec) -> None:
    prompts = [codec.first(text) for text in ("look", "You are in the middle of a room . You see a mug 1 .", "mug 2")]
    replies = [[*codec.tokenizer.encode(text, add_special_tokens=False), codec.end] for text in ("look", "take mug 1", "mug")]
    requests = [Request(slot, prompt, True, None) for slot, prompt in enumerate(prompts)]
    plain = GenerateSampler(actor, codec, Script([[reply] for reply in replies]), max_reply_tokens=9)
    ours = ReplaySampler(actor, codec, Script([[r] for r in replies]), slots=3, max_reply_tokens=9)
    for sampler in (plain, ours):
        sampler.begin(0.7, torch.Generator())
    for told, theirs, mine in zip(replies, plain.reply(requests), ours.reply(requests), strict=True):
        assert theirs.ids == mine.ids == told
        assert theirs.logprobs == pytest.approx(mine.logprobs, abs=1e-5)
        assert min(mine.logprobs) < -0.1, "the untold policy would hardly say this"


def test_other_trajectories_are_refused(cfg: RunConfig, task_index: TaskIndex, actor: Actor, codec: ChatCodec) -> None:
    cfg = replace(cfg, rollout=replace(cfg.rollout, max_reply_tokens=60))
    recordings, _ = record(cfg, task_index)
    script = [[[*codec.tokenizer.encode(text, add_special_tokens=False), codec.end] for text in one.replies] for one in recordings]
    episodes = _iterate(Scheme.append, cfg, task_index, actor, codec, recordings[:2], script[:2]).episodes
    _compare(episodes, episodes)
    other = copy.deepcopy(episodes)
    other[1].trajectory.turns[0].reply += " "
    with pytest.raises(AssertionError, match="the same trajectories"):
        _compare(other, episodes)
    with pytest.raises(AssertionError, match="recorded end"):
        _iterate(Scheme.append, cfg, task_index, actor, codec, recordings[:2], [script[0][:2], script[1]])


def test_limited_replies_are_refused(cfg: RunConfig, task_index: TaskIndex) -> None:
    with pytest.raises(ConfigError, match=r"constrain=grammar.*rollout\.constrain=free"):
        bench(compose([*SETTINGS, "rollout=grammar"]), task_index)
