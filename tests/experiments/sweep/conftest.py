"""One small finished sweep for all tests of this folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiper.config.places import config_dir
from hiper.experiments.sweep.spec import Dimension, Pruner, PrunerName, Sampler, SamplerName, SweepSpec

SETTINGS = [
    "experiment=smoke",
    "alfworld.train=12",
    "demos.count=16",
    "env.max_turns=6",
    "sft.max_steps=2",
    "rollout.trajectories=4",
    "trainer.eval_tasks=2",
]


@pytest.fixture
def own_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ that a sweep may write to."""
    monkeypatch.setenv("HIPER_CONF", str(shutil.copytree(config_dir(), tmp_path / "conf")))
    return tmp_path / "conf"


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    """A sweep that has not begun; nothing in it trains for long."""
    return small_spec(tmp_path / "sweep")


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SweepSpec, Path]]:
    """A sweep whose trials have ended, worked on in this process, and the conf/ it wrote to; nobody changes them."""
    from hiper.experiments.sweep.study import SweepStudy
    from hiper.experiments.sweep.sweep import conclude
    from hiper.experiments.sweep.worker import work

    root = tmp_path_factory.mktemp("sweeps")
    before = os.environ.get("HIPER_CONF")
    os.environ["HIPER_CONF"] = str(shutil.copytree(config_dir(), root / "conf"))
    try:
        one = small_spec(root / "sweep")
        study = SweepStudy.begin(one)
        work(one, lambda: None)
        conclude(study)
        yield one, root / "conf"
    finally:
        os.environ.pop("HIPER_CONF")
        if before is not None:
            os.environ["HIPER_CONF"] = before


def small_spec(directory: Path) -> SweepSpec:
    """Two trials of two iterations, two seeds each, drawn at random; none is pruned."""
    return SweepSpec(
        name="small",
        base=SETTINGS,
        space={
            "algo.kl_coef": Dimension(low=0.001, high=1.0, log=True),
            "algo.shaping.keep_mode": Dimension(choices=["off", "fixed"]),
            "algo.shaping.keep": Dimension(low=-0.5, high=-0.1, when={"algo.shaping.keep_mode": ["fixed"]}),
            "trainer.epochs": Dimension(low=1, high=2, whole=True),
        },
        trials=2,
        seeds=[0, 1],
        last=2,
        sampler=Sampler(name=SamplerName.random),
        pruner=Pruner(name=PrunerName.none),
        directory=str(directory),
    )
