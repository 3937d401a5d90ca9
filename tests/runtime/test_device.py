"""Rules of CPU threads: what was asked for is taken; else one for a small network from scratch, and this process's share of the cores."""

from __future__ import annotations

import os

import pytest

from hiper.config import ModelConfig, RunConfig, TinyConfig
from hiper.runtime.device import cpu_threads
from hiper.runtime.distributed import World


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def test_threads_go_by_the_networks_size() -> None:
    assert cpu_threads(RunConfig()) == 1
    assert cpu_threads(RunConfig(threads=3)) == 3
    large = ModelConfig(tiny=TinyConfig(hidden=1024, layers=6, heads=8, kv_heads=8, intermediate=2816))
    assert cpu_threads(RunConfig(model=large)) == 8
    named = ModelConfig(path="somewhere")
    assert cpu_threads(RunConfig(model=named)) == 8
    assert cpu_threads(RunConfig(model=named), World(1, 3)) == 2
    assert cpu_threads(RunConfig(model=named), World(1, 9)) == 1
