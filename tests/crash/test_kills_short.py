"""`kill -9` in a stage that takes long; continued, it ends with the bits of one that nobody disturbed, and does not begin anew.

The short version of `make prove-resume` (test_kills.py), part of every test run.
"""

from __future__ import annotations

import logging
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hiper.composition.compose import compose
from hiper.pipeline.stages import STAGES
from tests.crash.compare import differences, files
from tests.crash.places import CHUNK, ITERATION, REPLY, SFT_STEP
from tests.crash.processes import ENVIRONMENT, hiper_to


@dataclass(frozen=True)
class Case:
    """A stage and where it is killed."""

    stage: str
    place: str
    kept: str
    """What is said of the work that is not done again."""
    settings: Sequence[str] = ()


CASES = [
    Case(
        "sft",
        f"{SFT_STEP} 6",
        "resumed from .*step-000004",
        ["sft.max_steps=6", "sft.save_every=2"],
    ),
    Case("train", f"{ITERATION} 2 then call hiper.train.learner:Learner._step 1", "resumed from .*iteration-000001"),
    Case(
        "evaluate",
        f"call {CHUNK} 1 then {REPLY} 2",
        "2 tasks were played before and are kept",
        ["evaluate.chunk=2", "evaluate.limit=2", "evaluate.baseline=false"],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stage)
def test_a_killed_stage_continues_to_the_same_bits(case: Case, finished_run: Path, small_settings: list[str], tmp_path: Path) -> None:
    run = begun(finished_run, case, tmp_path / "run")
    settings = [*small_settings, *case.settings, f"paths.run={run}"]
    command = hiper_to("die", case.place, case.stage.replace("_", "-"), *settings)
    killed = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with heard() as said:
        STAGES[case.stage](compose(settings))
    assert any(re.search(case.kept, line) for line in said), said
    undisturbed = finished_run
    if case.settings:
        undisturbed = begun(finished_run, case, tmp_path / "undisturbed")
        STAGES[case.stage](compose([*settings[:-1], f"paths.run={undisturbed}"]))
    assert differences(files(run, [case.stage]), files(undisturbed, [case.stage])) == []


def begun(finished: Path, case: Case, run: Path) -> Path:
    """A copy of a run in which the stage and those after it are not done."""
    shutil.copytree(finished, run)
    for stage in list(STAGES)[list(STAGES).index(case.stage) :]:
        shutil.rmtree(run / stage)
    return run


@contextmanager
def heard() -> Iterator[list[str]]:
    """What the library says."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, ear = logging.getLogger("hiper"), Ear()
    level = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)
