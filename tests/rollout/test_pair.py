"""Rules of planner and executor playing together.

1. One network as both plays as it does alone.
2. Every token up to the end of the plan is the planner's, every one after it the executor's, each with the whole conversation read:
   log-probabilities are those of a plain pass of its network over the finished conversation. A reply that ends with its plan or before
   it is the planner's alone.
3. Two networks that spell differently are refused.
"""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from hiper.config import Constrain, Context, Dialect, EnvConfig, ProtocolConfig, RolloutConfig, RunConfig, Style, TinyConfig
from hiper.errors import ModelError
from hiper.model.actor import Actor, save_actor
from hiper.model.tiny import build_tiny
from hiper.model.tokenizer import build_tokenizer
from hiper.protocol import planned
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import Collector
from hiper.rollout.episode import Episode
from hiper.rollout.player import TaskPlayer
from hiper.rollout.samplers.pair import PairSampler
from hiper.rollout.samplers.transformers import TransformersSampler, mask_logits
from hiper.rollout.samplers.types import Sampler
from hiper.suites import make_env
from hiper.suites.tasks import TaskIndex

LIMIT = 24


def config(context: Context, constrain: Constrain, dialect: Dialect = Dialect.full) -> RunConfig:
    return RunConfig(
        env=EnvConfig(max_turns=5),
        rollout=RolloutConfig(max_reply_tokens=LIMIT, constrain=constrain),
        protocol=ProtocolConfig(context=context, style=Style.terse, dialect=dialect),
    )


def single(actor: Actor, codec: ChatCodec, temperature: float) -> TransformersSampler:
    sampler = TransformersSampler(actor, codec, slots=3, max_reply_tokens=LIMIT)
    sampler.begin(temperature, torch.Generator().manual_seed(0))
    return sampler


def pair(planner: Actor, executor: Actor, codec: ChatCodec, dialect: Dialect, temperature: float = 0.0) -> PairSampler:
    return PairSampler(*(single(network, codec, temperature) for network in (planner, executor)), codec, dialect, LIMIT)


def play(policy: Sampler, codec: ChatCodec, cfg: RunConfig, index: TaskIndex) -> list[Episode]:
    entries = index.split("train")[:5]
    return Collector(policy, codec, cfg).play(((entry, make_env(cfg, index.resolve(entry))) for entry in entries), 3)


@pytest.mark.parametrize("context", Context)
@pytest.mark.parametrize("constrain", Constrain)
def test_one_network_as_both_plays_as_it_does_alone(
    actor: Actor, codec: ChatCodec, task_index: TaskIndex, context: Context, constrain: Constrain
) -> None:
    cfg = config(context, constrain)
    alone, together = (
        play(policy, codec, cfg, task_index) for policy in (single(actor, codec, 0.0), pair(actor, actor, codec, Dialect.full))
    )
    assert [episode.trajectory.to_json() for episode in together] == [episode.trajectory.to_json() for episode in alone]
    assert sum(len(turn.reply) > 0 for episode in alone for turn in episode.trajectory.turns) > 10


@torch.no_grad()
@pytest.mark.parametrize("context", Context)
@pytest.mark.parametrize("constrain", Constrain)
@pytest.mark.parametrize("dialect", Dialect)
def test_each_writes_its_part_with_the_whole_conversation_read(
    actor: Actor, codec: ChatCodec, task_index: TaskIndex, context: Context, constrain: Constrain, dialect: Dialect
) -> None:
    planner = copy.deepcopy(actor).double()
    executor = copy.deepcopy(planner)
    for parameter in executor.lm.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=parameter.dtype))
    cfg = config(context, constrain, dialect)
    counts = {"planner": 0, "executor": 0}
    for episode in play(pair(planner, executor, codec, dialect, temperature=1.0), codec, cfg, task_index):
        for sequence in episode.sequences:
            ids = torch.tensor([sequence.ids])
            logits = {
                name: network.logits(network(ids, with_values=False).hidden[0])
                for name, network in (("planner", planner), ("executor", executor))
            }
            for reply in sequence.turns:
                written = sequence.ids[reply.start : reply.start + len(reply.logprobs)]
                for offset, (token, logprob, limit) in enumerate(zip(written, reply.logprobs, reply.allowed, strict=True)):
                    plan_is_over = planned(codec.tokenizer.decode(written[:offset], skip_special_tokens=True), dialect)
                    name = "executor" if plan_is_over else "planner"
                    row = mask_logits(logits[name][None, reply.start + offset - 1], [limit]).log_softmax(-1)
                    assert logprob == pytest.approx(row[0, token].item(), abs=1e-4)
                    counts[name] += 1
    assert min(counts.values()) > 20


def test_networks_that_spell_differently_are_refused(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    words = build_tokenizer(["a quite different vocabulary"])
    actor = Actor(build_tiny(TinyConfig(hidden=32, layers=2, heads=2, kv_heads=2), words, 0), config(*PLAIN).model.critic)
    save_actor(actor, words, tmp_path, ChatCodec(words).generation(40))
    with pytest.raises(ModelError, match="different vocabularies"):
        TaskPlayer.start(config(*PLAIN), speaker, task_index.root, planner=tmp_path)


PLAIN = (Context.append, Constrain.free)
