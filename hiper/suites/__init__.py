"""Environments behind one surface, see `hiper.suites.base`; benchmarks behind another, see `hiper.suites.suite`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from hiper.config import RunConfig
from hiper.suites.base import StepResult, TextEnv

if TYPE_CHECKING:
    from hiper.suites.suite import Benchmark

__all__ = ["StepResult", "TextEnv", "benchmark_of", "make_env"]


def benchmark_of(cfg: RunConfig) -> Benchmark:
    """The benchmark that `env.name` names."""
    if cfg.env.name == "webshop":
        from hiper.suites.webshop.suite import WebShop

        return WebShop()
    from hiper.suites.alfworld.suite import ALFWorld

    return ALFWorld()


def make_env(cfg: RunConfig, path: Path, rng: random.Random | None = None) -> TextEnv:
    """An environment for one game, as `Benchmark.make_env`."""
    return benchmark_of(cfg).make_env(cfg, path, rng)
