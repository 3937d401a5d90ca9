"""A disk whose power can be cut, and runs that nothing disturbed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hiper.composition.compose import compose
from hiper.pipeline.stages import STAGES
from hiper.runs.run_dir import begin_run
from tests.crash.disk import Disk, NoDisks
from tests.crash.processes import hiper
from tests.crash.trainings import EXPERIMENTS, SETTINGS, beginning


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Taken away however the test ends."""
    try:
        made = Disk(tmp_path)
    except NoDisks as reason:  # only root can mount one; the reason says what this machine lacks
        pytest.skip(str(reason))
    with made:
        yield made


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose games, demonstrations and warm start are done."""
    cfg = compose([*SETTINGS, f"paths.run={tmp_path_factory.mktemp('base') / 'run'}"])
    run = begin_run(cfg)
    for name in ("tasks", "demos", "sft"):
        STAGES[name](cfg)
    return run


@pytest.fixture(scope="session")
def whole(base: Path) -> dict[str, Path]:
    """A finished run of each experiment that nothing disturbed."""
    runs: dict[str, Path] = {}
    for name in EXPERIMENTS:
        run = runs[name] = shutil.copytree(runs["hae"] if name == "evaluate" else base, base.with_name(name))
        code, said = hiper(run, *beginning(name, run))
        assert code == 0, said
    return runs
