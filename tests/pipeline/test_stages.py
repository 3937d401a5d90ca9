"""Stages of a real small run: what was finished is verified before it counts, what is unfinished is continued or set aside.

Each test works on a copy of one finished run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hiper.cli.main import main
from hiper.composition.compose import override
from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError
from hiper.pipeline.stages import STAGES, begun_run
from hiper.runs.run_dir import load_config
from hiper.runs.stage_folder import read_stage
from hiper.runtime.lock import lock_tokens, locked


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished_run, tmp_path / "run")


def settings(run: Path, *changes: str) -> RunConfig:
    return override(load_config(run), [f"paths.run={run}", *changes])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def first_game(run: Path) -> str:
    return str(next((run / "tasks" / "data").rglob("game.tw-pddl")).relative_to(run))


@pytest.mark.parametrize(
    ("stage", "file", "damage"),
    [
        ("tasks", None, flip),
        ("demos", "demos/demos.jsonl", halve),
        ("sft", "sft/model/model.safetensors", flip),
        ("train", "train/model/model.safetensors", flip),
        ("train", "train/metrics.jsonl", Path.unlink),
        ("evaluate", "evaluate/trained/evaluation.json", halve),
    ],
)
def test_a_finished_stage_with_a_damaged_file_is_not_done(
    run: Path, stage: str, file: str | None, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped bit in a model, half of the demonstrations, other games: all of it was called done."""
    damaged = run / (file or first_game(run))
    damage(damaged)
    cfg = settings(run)
    with pytest.raises(DataError, match=rf"{damaged.name}.*hiper {stage.replace('_', '-')} --config .* --force"):
        for do in STAGES.values():
            do(cfg)
    assert main(["verify", str(run)]) == 2
    assert f"{stage}: DAMAGED" in capsys.readouterr().out


def test_a_damaged_stage_can_be_made_anew_and_later_ones_stay_valid(run: Path) -> None:
    flip(run / first_game(run))
    before = read_stage(run, "tasks")
    assert main(["tasks", "--config", str(run), f"paths.run={run}", "--force"]) == 0
    assert read_stage(run, "tasks") == before
    assert all(do(settings(run)).reused for do in STAGES.values())
    assert main(["verify", str(run)]) == 0


def test_one_stage_alone_finds_what_a_killed_process_was_about_to_put_in_place(run: Path) -> None:
    (run / "sft").rename(run / "sft.partial")
    assert main(["train", "--config", str(run), f"paths.run={run}"]) == 0
    assert (run / "sft" / "stage.json").is_file() and not (run / "sft.partial").exists()


def test_a_longer_training_goes_on_where_the_shorter_one_ended(run: Path) -> None:
    begun: list[int] = []
    result = STAGES["train"](settings(run, "trainer.iterations=3"), lambda done, total: begun.append(done))
    assert begun == [3] and result.facts["iterations"] == 3
    assert [json.loads(line)["iteration"] for line in (run / "train" / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert not list(run.glob("*.partial*"))


def test_a_shorter_training_is_another_one(run: Path) -> None:
    begun: list[int] = []
    STAGES["train"](settings(run, "trainer.iterations=1"), lambda done, total: begun.append(done))
    assert begun == [1]


def test_a_saved_config_is_read_once_its_run_is_held(run: Path) -> None:
    """What another command saves there before that counts, and nothing after."""

    def saved() -> RunConfig:
        with pytest.raises(ConfigError, match="another process works in"), locked(run):
            pass
        return settings(run)

    with begun_run(run, saved, list(STAGES)) as cfg:
        assert load_config(run) == cfg
        with locked(run, tokens=lock_tokens()):
            pass
    with locked(run):
        pass


def test_a_run_that_cannot_be_done_here_keeps_its_config(run: Path) -> None:
    before = load_config(run)
    odd = settings(run, "evaluate.splits=[nowhere]")
    with pytest.raises(ConfigError, match="nowhere"), begun_run(run, lambda: odd, list(STAGES)):
        pytest.fail("it was begun")
    assert load_config(run) == before


class Stopped(Exception):
    """Stands for whatever stops a training."""


def stop_after_one(done: int, total: int) -> None:
    if done == 1:
        raise Stopped


def test_unfinished_training_under_other_settings_is_set_aside(
    run: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was deleted without a word."""
    with pytest.raises(Stopped):
        STAGES["train"](settings(run, "algo.gamma=0.9", "trainer.save_every=1"), stop_after_one)
    begun: list[int] = []
    STAGES["train"](settings(run, "algo.gamma=0.8"), lambda done, total: begun.append(done))
    assert begun == [1, 2]
    assert "algo.gamma was 0.9 and is 0.8" in caplog.text
    assert (run / "train.partial.1" / "checkpoints" / "iteration-000001").is_dir()
    assert main(["clean", str(run), "--dry-run"]) == 0
    assert "would delete" in capsys.readouterr().out and (run / "train.partial.1").is_dir()
    assert main(["clean", str(run)]) == 0
    assert not (run / "train.partial.1").exists() and (run / "train").is_dir()


@pytest.mark.parametrize("change", ["trainer.save_every=2", "trainer.keep_last=5", "alarms.patience=9", "trainer.iterations=3"])
def test_what_may_change_half_way_does(run: Path, change: str) -> None:
    with pytest.raises(Stopped):
        STAGES["train"](settings(run, "algo.gamma=0.9", "trainer.save_every=1"), stop_after_one)
    begun: list[int] = []
    STAGES["train"](settings(run, "algo.gamma=0.9", "trainer.save_every=1", change), lambda done, total: begun.append(done))
    assert begun[0] == 2
