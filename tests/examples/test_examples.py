"""Rules of examples: at most 60 lines a file, and each does what it says, at smoke size, from an empty directory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.rglob("*.py"))


def ran(place: Path, *words: str) -> str:
    """What an example prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 60


def test_hae_in_a_trainer_of_ones_own_learns(tmp_path: Path) -> None:
    first, last = map(float, re.findall(r"[01]\.\d+", ran(tmp_path, str(EXAMPLES / "hae_in_your_trainer.py"))))
    assert first < 0.5
    assert last > 0.8


def test_a_model_is_evaluated(finished_run: Path, tmp_path: Path) -> None:
    run = finished_run
    said = ran(tmp_path, str(EXAMPLES / "evaluate_a_model.py"), str(run / "train" / "model"), str(run / "tasks" / "data"))
    assert re.search(r"^valid_seen: \d of 6 tasks won", said, re.MULTILINE)
    assert (tmp_path / "evaluations" / "example" / "evaluation.json").is_file()


def test_a_new_suite_trains(tmp_path: Path) -> None:
    train = str(EXAMPLES / "new_suite" / "train.py")
    said = ran(tmp_path, train, "sft.max_steps=4", "trainer.iterations=1", "vault.boxes=6")
    assert re.search(r"^evaluate: .*trained test", said, re.MULTILINE)
    page = (tmp_path / "runs" / "vault" / "seed-0" / "report" / "report.html").read_text(encoding="utf-8")
    assert "of 10 vaults won" in page
    assert "boxes: red, blue, green, grey, white, black." in page
    assert "vault:\n  boxes: 6\n" in (tmp_path / "runs" / "vault" / "seed-0" / "config.yaml").read_text(encoding="utf-8")
    refused = subprocess.run([sys.executable, train, "vault.boxes=7"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "vault.boxes=7 is out of range: it must be between 2 and 6" in refused.stderr


@pytest.mark.slow
def test_a_sweep_from_python(tmp_path: Path) -> None:
    assert "2 trials: 2 complete" in ran(tmp_path, str(EXAMPLES / "sweep_from_python.py"), "2")
    assert "2 trials: 2 complete" in ran(tmp_path, str(EXAMPLES / "sweep_from_python.py"), "2"), "given again, it is done"
