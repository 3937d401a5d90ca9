"""Rules of an evaluation that several processes play.

1. Any number of processes leaves the same bytes, of one model and of several.
2. One that was stopped goes on with the chunks that are missing, also in another number of processes; a damaged one is missing.
3. Progress tells of all models and processes together; it begins with what is kept, never falls, and ends with all.
4. A single chunk is played here: nobody is started who would have nothing to do.
5. On a GPU it is refused.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hiper.composition.compose import compose
from hiper.config import RunConfig
from hiper.errors import ConfigError
from hiper.evaluation import evaluate
from hiper.pipeline.stages import STAGES
from tests.evaluation.test_evaluate import Player, chunked, index, stop_in_the_third_chunk
from tests.evaluation.test_evaluate import player as player
from tests.train.running import Killed

PLAYED = ("evaluation.json", "trajectories.jsonl")
MODELS = ("sft", "trained")
TASKS = 10
"""Of each model: two chunks of four, and one of two."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's directory as it is named in what is written: the same for all tests."""
    monkeypatch.chdir(tmp_path)
    return Path("run")


def settings(finished: Path, small_settings: list[str], run: Path, processes: int) -> RunConfig:
    run.mkdir()
    for stage in ("tasks", "demos", "sft", "train"):
        (run / stage).symlink_to(finished / stage)
    asked = ["evaluate.chunk=4", "evaluate.limit=5", "evaluate.temperature=1", f"evaluate.processes={processes}", f"paths.run={run}"]
    return compose([*small_settings, *asked])


def left(run: Path) -> dict[str, bytes]:
    files = {f"{model}/{name}": (run / "evaluate" / model / name).read_bytes() for model in MODELS for name in PLAYED}
    assert sorted(path.name for path in (run / "evaluate" / "trained").iterdir()) == ["environment.json", *PLAYED]
    return files | {"metrics": (run / "evaluate" / "metrics.json").read_bytes()}


@pytest.fixture(scope="module")
def alone(finished_run: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process leaves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("alone"))
        STAGES["evaluate"](settings(finished_run, small_settings, Path("run"), 1))
        return left(Path("run"))


def test_any_number_of_processes_leaves_the_same_bytes(
    alone: dict[str, bytes], finished_run: Path, small_settings: list[str], run: Path
) -> None:
    reported: list[tuple[int, int]] = []
    cfg = settings(finished_run, small_settings, run, 3)
    STAGES["evaluate"](cfg, lambda *done: reported.append(done))
    assert left(run) == alone
    assert reported == sorted(reported)
    assert (reported[0], reported[-1]) == ((0, 2 * TASKS), (2 * TASKS, 2 * TASKS))


def test_a_stopped_evaluation_goes_on_with_the_chunks_that_are_missing(
    alone: dict[str, bytes], finished_run: Path, small_settings: list[str], run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 9:
            raise Killed

    cfg = settings(finished_run, small_settings, run, 1)
    with pytest.raises(Killed):
        STAGES["evaluate"](cfg, stop)
    kept = sorted((run / "evaluate.partial").rglob("00?.jsonl"))
    assert [file.relative_to(run / "evaluate.partial").as_posix() for file in kept] == ["sft/chunks/000.jsonl", "sft/chunks/001.jsonl"]
    kept[0].write_bytes(kept[0].read_bytes()[:-20])
    caplog.set_level(logging.INFO, "hiper")
    cfg.evaluate.processes = 2
    reported: list[tuple[int, int]] = []
    STAGES["evaluate"](cfg, lambda *done: reported.append(done))
    assert left(run) == alone
    assert caplog.text.count("000.jsonl is not what was written. Its tasks are played again") == 1
    assert caplog.text.count("sft: 4 tasks were played before and are kept") == 1
    assert reported == sorted(reported)
    assert (reported[0], reported[-1]) == ((4, 2 * TASKS), (2 * TASKS, 2 * TASKS))


def test_a_single_chunk_is_played_here(tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    games = index(tmp_path, valid_seen=12)
    stop_in_the_third_chunk(monkeypatch, player, games, tmp_path / "out")
    cfg = chunked()
    cfg.evaluate.processes = 2
    evaluate(cfg, "model", games, tmp_path / "out")
    assert player.entries == games.split("valid_seen")[8:]


def test_processes_do_not_share_a_gpu(tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    cfg = chunked()
    cfg.evaluate.processes = 2
    with pytest.raises(ConfigError, match=r"evaluate\.processes=2 is for CPUs"):
        evaluate(cfg, "model", index(tmp_path, valid_seen=12), tmp_path / "out")
    assert not player.entries
