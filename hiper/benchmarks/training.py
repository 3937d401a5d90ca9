"""How fast an iteration of training is: our two contexts, and the usual way, on the very same trajectories.

append    one growing conversation an episode, its keys and values kept; the update runs each trajectory once (`protocol.context=append`)
window    a prompt a turn, as published, by the same code (`protocol.context=window`)
generate  the same prompts by plain `transformers.generate`, left-padded, nothing kept between turns; the update runs a sample a turn,
          padded to the longest of the batch

What is said is the expert's: each scheme is told the same replies to the same tasks, and runs the network for every token of them.
"""

from __future__ import annotations

import copy
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import PreTrainedTokenizerBase

from hiper import __version__
from hiper.algos.registry import make_estimator
from hiper.benchmarks.peak import Peak, count_flops
from hiper.config import Constrain, Context, RunConfig
from hiper.errors import ConfigError
from hiper.model.actor import Actor, load_actor, load_tokenizer
from hiper.model.tiny import build_tiny
from hiper.model.tokenizer import build_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import Collector
from hiper.rollout.episode import Episode
from hiper.rollout.replay import GenerateSampler, ReplaySampler, Script
from hiper.rollout.samplers.types import Sampler
from hiper.runtime.device import pick_device
from hiper.runtime.progress import Progress
from hiper.sft.demos import TRAIN, write_demos
from hiper.suites import make_env
from hiper.suites.alfworld.settings import ALFWorldConfig
from hiper.suites.tasks import Task, TaskIndex
from hiper.train.iteration import Encode, assess
from hiper.train.learner import Learner

SETTINGS = (
    "experiment=quickstart",
    "rollout=default",
    "rollout.trajectories=48",
    "trainer.recompute_logprobs=true",
    "trainer.minibatch=12",
    "protocol.style=instructed",
    "alfworld.detours=1",
    "alfworld.train=96",
    "alfworld.valid_seen=1",
    "alfworld.valid_unseen=1",
)
"""What is measured unless overridden: the quickstart's model, rooms, estimator and optimiser, prompts that tell how to answer as the
published ones do, and an expert that searches at random, which takes as many turns as an agent in training (about 14)."""

PHASES = ("rollout", "score", "update")


class Scheme(StrEnum):
    """A way to train."""

    append = "append"
    window = "window"
    generate = "generate"


class Recording(NamedTuple):
    """One task as the expert played it."""

    entry: Task
    replies: list[str]


@dataclass
class Measured:
    """One iteration under one scheme."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    """Without padding, by phase."""
    padded: dict[str, int] = field(default_factory=dict)
    """Through the policy's network, by phase."""
    flops: dict[str, int] = field(default_factory=dict)
    """Of products and attention, by phase; the reference's and the critic's too. Counted in an iteration that is not timed."""
    episodes: list[Episode] = field(default_factory=list)
    logprob_gap: float = 0.0
    """Largest difference of a token's log-probability in play and in the update's network."""


def bench(cfg: RunConfig, index: TaskIndex, repeats: int = 3, progress: Progress | None = None) -> dict[str, Any]:
    """Measure an iteration - playing `rollout.trajectories` episodes, scoring and crediting them, the optimiser's steps - in three schemes.

    Args:
        cfg: everything; `protocol.context` is the scheme's. A model from scratch unless `model.path` names one.
        index: tasks; the expert's episodes on the training split are what is replayed.
        repeats: iterations of each scheme, in turns, each from the same weights; the fastest one counts.
        progress: called with (iterations done, all).

    Returns:
        dict: versions; threads, device, dtype, parameters, vocabulary; settings that matter to speed; `tasks`, `trajectories`, `turns`,
        `reply_tokens`; and

        schemes: by scheme and phase (`rollout`; `score`: batch, log-probabilities, values, reference, credit; `update`; `total`):
            `seconds`, `cpu_seconds` (of all threads), `trajectories_per_second`, `tokens` (what the policy's network has to read, without
            padding), `padded_tokens` (what it was run on; the reference's passes are in neither), `tokens_per_second` (of `tokens`),
            `flops` (all matrix products and attention), `share_of_peak` (operations a second of processor time, as a share of
            `gemm_flops_per_second`: the rate of the network's linear layers alone with `trainer.microbatch_tokens` rows).
            `logprob_gap`: largest difference between a token's log-probability in play and in training; that it is small shows that
            both ran the network on it.
        ratios: of `window` and of `generate` to `append`: `trained_tokens` (padding included), `trained_tokens_without_padding`,
            and how many times the trajectories a second `append` has, by phase and in `total`.

    Raises:
        ConfigError: replies would be limited, so that not every token runs the network.
        DataError: the expert solves no task. ModelError: `model.path` does not load.
    """
    if cfg.rollout.constrain is not Constrain.free:
        raise ConfigError(f"rollout.constrain={cfg.rollout.constrain} lets tokens skip the network; measure with rollout.constrain=free.")
    device = pick_device(cfg)
    recordings, texts = record(cfg, index)
    tokenizer, actor = _model(cfg, texts)
    actor.to(device)
    codec = ChatCodec(tokenizer)
    script = [[[*tokenizer.encode(text, add_special_tokens=False), codec.end] for text in one.replies] for one in recordings]
    longest = max(len(reply) for task in script for reply in task)
    cfg = replace(cfg, rollout=replace(cfg.rollout, max_reply_tokens=longest, max_tokens=2**31 - 1))

    def measure(scheme: Scheme) -> Measured:
        return _iterate(scheme, cfg, index, actor, codec, recordings, script)

    rows = cfg.trainer.microbatch_tokens
    peak = Peak.measure(actor, rows, device, cfg.model.compute_dtype)
    flops: dict[Scheme, dict[str, int]] = {}
    for scheme in Scheme:  # which warms up, too
        with count_flops() as counted:
            flops[scheme] = _iterate(scheme, cfg, index, actor, codec, recordings, script, counted).flops
    found: dict[Scheme, list[Measured]] = {scheme: [] for scheme in Scheme}
    for _ in range(repeats):
        for scheme in Scheme:
            found[scheme].append(measure(scheme))
            _compare(found[scheme][-1].episodes, found[Scheme.append][0].episodes)
            if progress is not None:
                progress(sum(map(len, found.values())), repeats * len(Scheme))
    episodes = found[Scheme.append][0].episodes
    peak = peak.or_better(Peak.measure(actor, rows, device, cfg.model.compute_dtype))
    schemes = {scheme: _summary(runs, flops[scheme], peak, len(recordings)) for scheme, runs in found.items()}
    return {
        "versions": {
            "hiper": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "device": str(device),
        "threads": torch.get_num_threads(),
        "dtype": cfg.model.dtype,
        "compute_dtype": str(cfg.model.compute_dtype),
        "parameters": sum(parameter.numel() for parameter in actor.parameters()),
        "vocabulary": len(tokenizer),
        "estimator": str(cfg.algo.name),
        "style": str(cfg.protocol.style),
        "history": cfg.protocol.history,
        "slots": min(cfg.rollout.slots, len(recordings)),
        "minibatch": cfg.trainer.minibatch,
        "microbatch_tokens": cfg.trainer.microbatch_tokens,
        "epochs": cfg.trainer.epochs,
        "repeats": repeats,
        "tasks": len({one.entry.path for one in recordings}),
        "trajectories": len(recordings),
        "turns": sum(len(episode.trajectory.turns) for episode in episodes),
        "reply_tokens": sum(turn.tokens for episode in episodes for turn in episode.trajectory.turns),
        "gemm_flops_per_second": round(peak.flops_per_second),
        "schemes": schemes,
        "ratios": {scheme: _ratios(schemes[scheme], schemes[Scheme.append]) for scheme in (Scheme.window, Scheme.generate)},
    }


def record(cfg: RunConfig, index: TaskIndex) -> tuple[list[Recording], list[str]]:
    """Let the expert play; also every text the episodes show in either context, for a tokenizer."""
    demos = replace(cfg.demos, count=cfg.rollout.trajectories, processes=1, lapses=0.0)
    cfg = replace(cfg, demos=demos, suite=replace(cfg.own(ALFWorldConfig), fresh=False, renumber=False))
    by_path = {entry.path: entry for entry in index.split(TRAIN)}
    recordings: list[Recording] = []
    texts: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hiper-bench-") as folder:
        for context in Context:
            file = Path(folder) / f"{context}.jsonl"
            write_demos(index, replace(cfg, protocol=replace(cfg.protocol, context=context)), file)
            for line in file.read_text(encoding="utf-8").splitlines():
                demo = json.loads(line)
                texts += [message["content"] for message in demo["messages"]]
                if context is Context.append:
                    replies = [message["content"] for message in demo["messages"] if message["role"] == "assistant"]
                    recordings.append(Recording(by_path[demo["task_id"]], replies))
    return recordings, texts


def _model(cfg: RunConfig, texts: Sequence[str]) -> tuple[PreTrainedTokenizerBase, Actor]:
    if cfg.model.path is not None:
        return load_tokenizer(cfg.model.path), load_actor(cfg.model.path, cfg.model)
    tokenizer = build_tokenizer(texts)
    lm: Any = build_tiny(cfg.model.tiny, tokenizer, cfg.seed)
    return tokenizer, Actor(lm.to(getattr(torch, cfg.model.dtype)), cfg.model.critic, cfg.model.value_heads, cfg.model.compute_dtype)


def _iterate(
    scheme: Scheme,
    cfg: RunConfig,
    index: TaskIndex,
    actor: Actor,
    codec: ChatCodec,
    recordings: Sequence[Recording],
    script: Sequence[Sequence[list[int]]],
    flops: Callable[[], int] = lambda: 0,
) -> Measured:
    """One iteration as `hiper.train.trainer` makes it, on a copy of the actor; `flops` tells how many operations were done so far."""
    context = Context.append if scheme is Scheme.append else Context.window
    cfg = replace(cfg, protocol=replace(cfg.protocol, context=context))
    actor = copy.deepcopy(actor)
    reference = copy.deepcopy(actor).requires_grad_(False).eval() if cfg.algo.kl_coef > 0 else None
    learner = Learner.create(actor, cfg, torch.Generator().manual_seed(cfg.seed + 1))
    slots = min(cfg.rollout.slots, len(recordings))
    sampler = _sampler(scheme, cfg, actor, codec, slots, Script(script))
    sampler.begin(cfg.rollout.temperature, torch.Generator(actor.device).manual_seed(cfg.seed))
    tasks = ((one.entry, make_env(cfg, index.resolve(one.entry))) for one in recordings)
    found = Measured()
    with _phase(found, "rollout", actor, flops):
        episodes = Collector(sampler, codec, cfg).play(tasks, slots)
    read = sum(len(sequence.ids) for episode in episodes for sequence in episode.sequences)
    sequences = sum(len(episode.sequences) for episode in episodes)
    with _phase(found, "score", actor, flops):
        if scheme is Scheme.generate:
            _pad(episodes, codec.pad)
        batch, outputs, credit = assess(learner, make_estimator(cfg.algo), reference, episodes, _encoder(codec))
    with _phase(found, "update", actor, flops):
        learner.update(batch, outputs, credit, critic_only=False)
    # In play nothing follows the last token of a sequence, so it is not read.
    found.tokens = {"rollout": read - sequences, "score": read, "update": read * cfg.trainer.epochs}
    found.episodes = episodes
    found.logprob_gap = float((outputs.logprobs - batch.sampled_logprobs).abs().max())
    return found


def _encoder(codec: ChatCodec) -> Encode:
    return lambda text: codec.tokenizer.encode(text, add_special_tokens=False)


def _sampler(scheme: Scheme, cfg: RunConfig, actor: Actor, codec: ChatCodec, slots: int, script: Script) -> Sampler:
    most = cfg.rollout.max_reply_tokens
    if scheme is Scheme.generate:
        return GenerateSampler(actor, codec, script, max_reply_tokens=most)
    return ReplaySampler(actor, codec, script, slots=slots, max_reply_tokens=most)


def _pad(episodes: Sequence[Episode], pad: int) -> None:
    """Make every sequence as long as the longest. On the right, where causal attention needs no mask for it, which is the cheaper way."""
    sequences = [sequence for episode in episodes for sequence in episode.sequences]
    longest = max(len(sequence.ids) for sequence in sequences)
    for sequence in sequences:
        sequence.ids += [pad] * (longest - len(sequence.ids))


@contextmanager
def _phase(found: Measured, name: str, actor: Actor, flops: Callable[[], int]) -> Iterator[None]:
    """Time a phase and count its operations and the tokens that go through the policy's network in it."""
    found.padded[name], done = 0, flops()

    def count(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        found.padded[name] += kwargs["input_ids"].numel()

    hook = actor.trunk.register_forward_pre_hook(count, with_kwargs=True)
    _wait(actor.device)
    begun, begun_cpu = time.perf_counter(), time.process_time()
    yield
    _wait(actor.device)
    found.seconds[name], found.cpu_seconds[name] = time.perf_counter() - begun, time.process_time() - begun_cpu
    found.flops[name] = flops() - done
    hook.remove()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _compare(episodes: Sequence[Episode], others: Sequence[Episode]) -> None:
    """See that two schemes played the same: tasks, observations, replies, rewards."""
    ours, theirs = ([episode.trajectory.to_json() for episode in played] for played in (episodes, others))
    assert ours == theirs, "the schemes were to play the same trajectories"
    assert all(episode.trajectory.won for episode in episodes), "the expert's replies were to win every task"


def _summary(runs: Sequence[Measured], flops: dict[str, int], peak: Peak, trajectories: int) -> dict[str, Any]:
    best = min(runs, key=lambda run: sum(run.seconds.values()))
    seconds_of, cpu_of, tokens_of, padded_of, flops_of = (
        {**of, "total": sum(of.values())} for of in (best.seconds, best.cpu_seconds, best.tokens, best.padded, flops)
    )
    phases = {
        phase: {
            "seconds": round(seconds_of[phase], 6),
            "cpu_seconds": round(cpu_of[phase], 6),
            "trajectories_per_second": round(trajectories / seconds_of[phase], 3),
            "tokens": tokens_of[phase],
            "padded_tokens": padded_of[phase],
            "tokens_per_second": round(tokens_of[phase] / seconds_of[phase], 1),
            "flops": flops_of[phase],
            "share_of_peak": peak.share(flops_of[phase], seconds_of[phase], cpu_of[phase]),
        }
        for phase in (*PHASES, "total")
    }
    return {**phases, "logprob_gap": max(run.logprob_gap for run in runs)}


def _ratios(scheme: dict[str, Any], append: dict[str, Any]) -> dict[str, Any]:
    return {
        "trained_tokens": round(scheme["update"]["padded_tokens"] / append["update"]["padded_tokens"], 2),
        "trained_tokens_without_padding": round(scheme["update"]["tokens"] / append["update"]["tokens"], 2),
        "trajectories_per_second": {phase: round(scheme[phase]["seconds"] / append[phase]["seconds"], 2) for phase in (*PHASES, "total")},
        "cpu_seconds": {phase: round(scheme[phase]["cpu_seconds"] / append[phase]["cpu_seconds"], 2) for phase in (*PHASES, "total")},
    }
