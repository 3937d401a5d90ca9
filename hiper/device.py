"""Where a run computes."""

from __future__ import annotations

import os

import torch

from hiper.config import RunConfig
from hiper.errors import ConfigError


def pick_device(cfg: RunConfig) -> torch.device:
    """The device of a run; also sets the number of CPU threads.

    Raises:
        ConfigError: `device=cuda` on a machine without a usable GPU.
    """
    torch.set_num_threads(
        cfg.threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cfg.threads or os.cpu_count() or 1
    )
    if cfg.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda, but torch sees no GPU here. Use device=auto or device=cpu, or install a CUDA build of torch.")
    if cfg.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")
