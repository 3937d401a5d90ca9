"""Rules of the public face: it is light, complete, and each name works."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hiper
from hiper.errors import DataError, ModelError

HEAVY = ("torch", "transformers", "prefect", "hydra", "omegaconf", "optuna", "numpy")


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, hiper; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name", hiper.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert name in dir(hiper)
    assert getattr(hiper, name).__doc__


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'; it offers"):
        hiper.trian  # noqa: B018


def test_a_run_its_episodes_and_an_evaluation(finished_run: Path, small_settings: list[str], tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    results = hiper.run([*small_settings, f"paths.run={run}"])
    assert [result.reused for result in results] == [True] * 6
    episodes = hiper.load_episodes(run)
    assert episodes
    assert len(hiper.load_episodes(run / "train" / "samples.jsonl")[0].turns) > 0
    model, data = run / "train" / "model", run / "tasks" / "data"
    summary = hiper.evaluate(model, data, tmp_path / "out", ["evaluate.splits=[valid_seen]", "evaluate.limit=2"])
    assert summary.splits["valid_seen"].tasks == 2
    env = hiper.make_env(next((data / "valid_seen").glob("*/*/game.tw-pddl")))
    assert env.reset() and "look" in env.admissible_commands
    with pytest.raises(ModelError, match="is not a directory"):
        hiper.evaluate(tmp_path / "absent", data, tmp_path / "out")
    with pytest.raises(DataError, match="there is no"):
        hiper.load_episodes(tmp_path)
