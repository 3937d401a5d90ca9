"""A damaged newest checkpoint is named with what is wrong, the one before is used, and the run ends with the bits of an undisturbed one.

Where all are damaged the run is not begun again but refused. Part of `make prove-resume`.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from hiper.errors import CheckpointError
from hiper.runs import checkpoint as ckpt
from tests.crash.compare import assert_same
from tests.crash.harm import flip_a_bit, halve
from tests.crash.places import BEFORE_RECORD
from tests.crash.processes import hiper
from tests.crash.trainings import beginning

pytestmark = pytest.mark.slow

DAMAGE: Mapping[str, tuple[str, Callable[[Path], None], str]] = {
    "truncated tensors": ("tensors.safetensors", halve, "was truncated or altered, it has"),
    "a flipped bit in the tensors": ("tensors.safetensors", flip_a_bit, "was truncated or altered, its SHA-256 differs"),
    "a flipped bit in the state": ("state.json", flip_a_bit, "was truncated or altered, its SHA-256 differs"),
    "missing tensors": ("tensors.safetensors", Path.unlink, "is missing"),
    "missing state": ("state.json", Path.unlink, "is missing"),
    "missing manifest": ("manifest.json", Path.unlink, "is missing"),
}
"""File, what happens to it, and what is said of it."""


@pytest.fixture(scope="session")
def stopped(base: Path) -> Path:
    """A run that was killed with all its checkpoints written and the stage not finished."""
    run = shutil.copytree(base, base.with_name("stopped"))
    code, said = hiper(run, *beginning("hae", run), place=BEFORE_RECORD)
    assert code == -signal.SIGKILL, said
    return run


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(
    damage: str, stopped: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    *_, before, newest = ckpt.list_checkpoints(run / "train.partial" / "checkpoints")
    file, harm, message = DAMAGE[damage]
    harm(newest / file)
    code, said = hiper(run, "resume", "--direct", str(run))
    assert code == 0, said
    assert f"Passing over a checkpoint, an earlier one will be used. Checkpoint {newest} is " in said
    assert f"{file} {message}" in said
    assert f"resumed from {before}" in said
    print(f"{damage}: {before.name} is used instead; {assert_same(run, whole['hae'])} files are those of the undisturbed run")


def test_where_all_are_damaged_the_run_is_refused_until_told_to_start_again(stopped: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    run = shutil.copytree(stopped, tmp_path / "run")
    folder = run / "train.partial" / "checkpoints"
    checkpoints = ckpt.list_checkpoints(folder)
    for path in checkpoints:
        flip_a_bit(path / "state.json")
    lines = (run / "train.partial" / "metrics.jsonl").read_bytes()
    code, said = hiper(run, "resume", "--direct", str(run))
    assert code == CheckpointError.exit_code, said
    assert f"hiper: No checkpoint in {folder} can be used. The newest of 3: Checkpoint {checkpoints[-1]} is damaged" in said
    assert all(f"Checkpoint {path} is damaged: state.json" in said for path in checkpoints)
    assert (run / "train.partial" / "metrics.jsonl").read_bytes() == lines
    shutil.rmtree(folder)
    code, said = hiper(run, "resume", "--direct", str(run))
    assert code == 0, said
    assert_same(run, whole["hae"])
