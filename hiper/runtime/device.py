"""Where a run computes."""

from __future__ import annotations

import os

import torch

from hiper.config import RunConfig
from hiper.errors import ConfigError
from hiper.runtime.distributed import ALONE, World


def pick_device(cfg: RunConfig, world: World = ALONE) -> torch.device:
    """The device of a run, or of one of the processes that train together; also sets the number of CPU threads.

    Raises:
        ConfigError: `device=cuda` on a machine without a usable GPU.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cfg.threads or max(1, cores // world.size))
    if not uses_cuda(cfg):
        return torch.device("cpu")
    return torch.device("cuda") if world.size == 1 else torch.device("cuda", world.rank)


def uses_cuda(cfg: RunConfig) -> bool:
    """Whether a run computes on a GPU.

    Raises:
        ConfigError: `device=cuda` on a machine without a usable GPU.
    """
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but torch sees no GPU here. Use device=auto or device=cpu, or install a CUDA build of torch.")
    return cfg.device != "cpu" and torch.cuda.is_available()
