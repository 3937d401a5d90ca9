"""Where a run computes."""

from __future__ import annotations

import os

import torch

from hiper.config import RunConfig
from hiper.errors import ConfigError
from hiper.runtime.distributed import ALONE, World

SMALL = 20_000_000
"""Weights below which one thread computes as fast as several."""


def pick_device(cfg: RunConfig, world: World = ALONE) -> torch.device:
    """The device of a run, or of one of the processes that train together; also sets the number of CPU threads.

    Raises:
        ConfigError: `device=cuda` on a machine without a usable GPU.
    """
    torch.set_num_threads(cpu_threads(cfg, world))
    if not uses_cuda(cfg):
        return torch.device("cpu")
    return torch.device("cuda") if world.size == 1 else torch.device("cuda", world.rank)


def cpu_threads(cfg: RunConfig, world: World = ALONE) -> int:
    """Threads that torch computes with in a process of a run: `threads`, or what suits the network's size.

    A small network's operations are over before a second thread has begun, and where another program is busy each waits for the thread that
    lost its core: ten times slower than one thread. `sft.processes`, `trainer.processes` and `evaluate.processes` use
    more cores.
    """
    if cfg.threads:
        return cfg.threads
    tiny = cfg.model.tiny
    weights = tiny.layers * (4 * tiny.hidden**2 + 3 * tiny.hidden * tiny.intermediate)
    if cfg.model.path is None and weights < SMALL:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // world.size)


def uses_cuda(cfg: RunConfig) -> bool:
    """Whether a run computes on a GPU.

    Raises:
        ConfigError: `device=cuda` on a machine without a usable GPU.
    """
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but torch sees no GPU here. Use device=auto or device=cpu, or install a CUDA build of torch.")
    return cfg.device != "cpu" and torch.cuda.is_available()
