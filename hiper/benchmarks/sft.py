"""How fast the warm start learns: steps as `hiper sft` makes them, beside TRL's trainer as it is.

limited   the likelihood over what the grammar allows, as under `rollout.constrain=grammar`
trl       over the whole vocabulary, by TRL's SFTTrainer without a line of ours (`rollout.constrain=free`)
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from hiper.benchmarks.peak import Peak, count_flops
from hiper.config import Constrain, RunConfig
from hiper.errors import ConfigError
from hiper.model.actor import load_lm
from hiper.runtime.device import pick_device
from hiper.sft.demos import write_demos
from hiper.sft.fine_tune import fine_tune
from hiper.suites.tasks import TaskIndex

SETTINGS = ("experiment=quickstart", "alfworld.train=96", "alfworld.valid_seen=1", "alfworld.valid_unseen=1", "alfworld.fresh=false")
"""What is measured unless overridden: the quickstart's model, demonstrations and batches, which play fewer games more than once."""

STEPS, WARM_UP = 24, 2
"""Optimiser steps, and how many of them pass before the clock starts."""


class Loss(StrEnum):
    """Over what a token's likelihood is taken."""

    limited = "limited"
    trl = "trl"


CONSTRAIN = {Loss.limited: Constrain.grammar, Loss.trl: Constrain.free}


@dataclass
class Watched:
    """The clock and the tokens read, after each step."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    padded: list[int] = field(default_factory=list)
    flops: list[int] = field(default_factory=list)
    tokens: int = 0
    """Without padding, of all steps."""
    parameters: int = 0


def bench(cfg: RunConfig, index: TaskIndex, steps: int = STEPS) -> dict[str, Any]:
    """Measure `steps` optimiser steps, an epoch of just so many batches, in both losses.

    Args:
        cfg: everything; `rollout.constrain` is the loss's, and one process learns. A model from scratch unless `model.path` names one.
        index: tasks whose demonstrations are learned.
        steps: of which the first two are not timed.

    Returns:
        dict: device, threads, parameters, steps, batch_size, `gemm_flops_per_second` (of the network's linear layers with a batch's rows),

        losses: by loss: `seconds`, `cpu_seconds`, `tokens`, `padded_tokens` and `flops` a step, `tokens_per_second` (without padding), and
            `share_of_peak`: operations a second of processor time, as a share of `gemm_flops_per_second`.
        ratio: how many times the tokens a second `limited` has of `trl`.

    Raises:
        ConfigError: too few steps. DataError: the expert solves no task. ModelError: `model.path` does not load.
    """
    if steps <= WARM_UP:
        raise ConfigError(f"--steps {steps}: the first {WARM_UP} steps are not timed; give more.")
    batch, device = cfg.sft.batch_size, pick_device(cfg)
    sft = replace(cfg.sft, epochs=1.0, max_steps=-1, save_every=0, processes=1)
    cfg = replace(cfg, sft=sft, demos=replace(cfg.demos, count=steps * batch, processes=1))
    with tempfile.TemporaryDirectory(prefix="hiper-bench-") as folder:
        demos = Path(folder) / "demos.jsonl"
        write_demos(index, cfg, demos)
        worked = {loss: _watch(loss, cfg, demos, Path(folder) / loss, counted=True) for loss in Loss}  # which warms up, too
        network, rows = load_lm(Path(folder) / Loss.limited, cfg.model.dtype), worked[Loss.limited].padded[-1] // steps
        peak = Peak.measure(network, rows, device, cfg.model.compute_dtype)
        found = {loss: _watch(loss, cfg, demos, Path(folder) / loss, counted=False) for loss in Loss}
        peak = peak.or_better(Peak.measure(network, rows, device, cfg.model.compute_dtype))
    losses = {loss: _summary(found[loss], worked[loss], peak) for loss in Loss}
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "parameters": found[Loss.limited].parameters,
        "steps": steps,
        "batch_size": batch,
        "gemm_flops_per_second": round(peak.flops_per_second),
        "losses": losses,
        "ratio": round(losses[Loss.limited]["tokens_per_second"] / losses[Loss.trl]["tokens_per_second"], 2),
    }


def _watch(loss: Loss, cfg: RunConfig, demos: Path, out: Path, *, counted: bool) -> Watched:
    """Fine-tune, and note the clock, tokens and, where they are counted, operations after each step."""
    found = Watched()
    cfg = replace(cfg, rollout=replace(cfg.rollout, constrain=CONSTRAIN[loss]))
    with _count_read() as read, count_flops() if counted else _uncounted() as flops:

        def note(done: int, total: int) -> None:
            found.seconds.append(time.perf_counter())
            found.cpu_seconds.append(time.process_time())
            found.padded.append(sum(read))
            found.flops.append(flops())

        summary = fine_tune(cfg, demos, out, note)
    found.tokens, found.parameters = summary.tokens, summary.parameters
    return found


@contextmanager
def _uncounted() -> Iterator[Any]:
    yield lambda: 0


@contextmanager
def _count_read() -> Iterator[list[int]]:
    """Sizes of what embeddings read inside: each pass of a network, padding included."""
    sizes: list[int] = []

    def note(module: nn.Module, args: Any) -> None:
        if isinstance(module, nn.Embedding):
            sizes.append(args[0].numel())

    hook = register_module_forward_pre_hook(note)
    try:
        yield sizes
    finally:
        hook.remove()


def _summary(found: Watched, worked: Watched, peak: Peak) -> dict[str, float]:
    first, steps = WARM_UP - 1, len(found.seconds) - WARM_UP
    series = (found.seconds, found.cpu_seconds, found.padded, worked.flops)
    seconds, cpu_seconds, padded, flops = ((one[-1] - one[first]) / steps for one in series)
    tokens = padded * found.tokens / found.padded[-1]
    return {
        "seconds": round(seconds, 6),
        "cpu_seconds": round(cpu_seconds, 6),
        "tokens": round(tokens, 1),
        "padded_tokens": round(padded, 1),
        "tokens_per_second": round(tokens / seconds, 1),
        "flops": round(flops),
        "share_of_peak": peak.share(flops, seconds, cpu_seconds),
    }
