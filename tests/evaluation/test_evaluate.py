"""Rules of the evaluate stage.

1. What is written comes back, beside every trajectory, with how it was played.
2. A failure leaves the earlier evaluation as it was.
3. Full splits unless a limit says otherwise; a limit is named in the result and picks the same games every time.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from hiper.config import RunConfig
from hiper.errors import DataError
from hiper.evaluation import evaluate, read_evaluation, write_evaluation
from hiper.evaluation.plan import choose
from hiper.rollout.episode import Episode
from hiper.rollout.trajectory import StopReason, Trajectory, Turn, read_trajectories
from hiper.runtime.progress import Progress
from hiper.suites.alfworld.settings import TASK_TYPES
from hiper.suites.tasks import Task, TaskIndex


def played(entry: Task, won: bool) -> Trajectory:
    turns = [Turn("Hello.", "<action>look</action>", True, "look", "look", [], True, float(won), float(won), 5)]
    stop = StopReason.terminated if won else StopReason.turn_limit
    return Trajectory(entry.path, entry.split, entry.task_type, "do it", won, stop, turns, "Done.")


def index(root: Path, **counts: int) -> TaskIndex:
    entries = [
        Task(f"{split}/{number:03d}/game.tw-pddl", split, TASK_TYPES[number * len(TASK_TYPES) // count], 1)
        for split, count in counts.items()
        for number in range(count)
    ]
    return TaskIndex(root, tuple(entries))


class Player:
    """Stands in for `TaskPlayer`: wins every second game; remembers what it was asked."""

    def __init__(self) -> None:
        self.entries: list[Task] = []
        self.temperature = -1.0
        self.seeds: list[int] = []
        self.loaded = self.closed = 0

    def start(self, cfg: RunConfig, model: Path, root: Path, planner: Path | None = None) -> Player:
        self.loaded += 1
        return self

    @property
    def sampler(self) -> Player:
        return self

    def close(self) -> None:
        self.closed += 1

    def play(
        self, entries: Sequence[Task], temperature: float, generator: torch.Generator, progress: Progress | None = None
    ) -> list[Episode]:
        self.temperature = temperature
        self.seeds.append(generator.initial_seed())
        self.entries += entries
        if progress is not None:
            progress(len(entries), len(entries))
        return [Episode(played(entry, number % 2 == 0), []) for number, entry in enumerate(entries)]


def record_name(folder: Path) -> str:
    return str(read_evaluation(folder)["name"])


@pytest.fixture
def player(monkeypatch: pytest.MonkeyPatch) -> Player:
    fake = Player()
    monkeypatch.setattr("hiper.rollout.player.TaskPlayer", fake)
    return fake


def test_whole_splits_are_played_and_counted(tmp_path: Path, player: Player) -> None:
    cfg = RunConfig(seed=3)
    cfg.evaluate.temperature, cfg.evaluate.seed = 0.4, 11
    reported: list[tuple[int, int]] = []
    summary = evaluate(
        cfg,
        tmp_path / "model",
        index(tmp_path, train=9, valid_seen=12, valid_unseen=20),
        tmp_path / "evaluate" / "trained",
        progress=lambda *x: reported.append(x),
    )
    assert {split: (found.tasks, found.successes) for split, found in summary.splits.items()} == {
        "valid_seen": (12, 6),
        "valid_unseen": (20, 10),
    }
    assert record_name(summary.path) == "trained"
    assert str(summary).splitlines()[1] == "valid_unseen: 10 of 20 tasks won, 50.0 % (95 % interval 29.9-70.1)"
    assert (player.temperature, player.seeds, player.loaded, player.closed) == (0.4, [11], 1, 1)
    assert reported == [(32, 32)]
    record = read_evaluation(summary.path)
    assert record["splits"]["valid_unseen"]["success_rate"] == summary.splits["valid_unseen"].success == 0.5
    meta = record["meta"]
    assert (meta["temperature"], meta["seed"], meta["run_seed"], meta["limit"]) == (0.4, 11, 3, None)
    assert (meta["constrain"], meta["engine"], meta["context"]) == ("free", "native", "append")
    assert meta["splits"]["valid_unseen"]["tasks"] == meta["splits"]["valid_unseen"]["available"] == 20
    versions = json.loads((summary.path / "environment.json").read_text(encoding="utf-8"))["versions"]
    assert "torch" in versions and "versions" not in meta, "what differs between machines lies beside what was found"
    trajectories = list(read_trajectories(summary.path / "trajectories.jsonl"))
    assert [trajectory.task_id for trajectory in trajectories] == [entry.path for entry in player.entries]


def test_a_limit_is_said_and_mixes_task_types(tmp_path: Path, player: Player) -> None:
    cfg = RunConfig()
    cfg.evaluate.splits, cfg.evaluate.limit = ["valid_seen"], 12
    games = index(tmp_path, valid_seen=120)  # ordered by task type: the first 12 would all be of one
    record = read_evaluation(evaluate(cfg, "model", games, tmp_path / "out").path)
    assert record["meta"]["limit"] == 12
    assert record["meta"]["splits"]["valid_seen"] | {"sha256": ""} == {"tasks": 12, "available": 120, "in_train": None, "sha256": ""}
    assert len(record["splits"]["valid_seen"]["task_types"]) >= 4
    assert player.entries == choose(games.split("valid_seen"), 12)


def test_an_empty_split_is_refused_before_anything_is_played(tmp_path: Path, player: Player) -> None:
    with pytest.raises(DataError, match="split 'valid_unseen' has no tasks"):
        evaluate(RunConfig(), "model", index(tmp_path, valid_seen=3), tmp_path / "out")
    assert not player.entries and not (tmp_path / "out").exists()


class Killed(Exception):
    """Stands for whatever stops an evaluation."""


def chunked(limit: int | None = None) -> RunConfig:
    cfg = RunConfig()
    cfg.evaluate.splits, cfg.evaluate.chunk, cfg.evaluate.limit = ["valid_seen"], 4, limit
    return cfg


def stop_in_the_third_chunk(monkeypatch: pytest.MonkeyPatch, player: Player, games: TaskIndex, out: Path) -> None:
    real = player.play

    def play(*arguments: Any) -> list[Trajectory]:
        if len(player.seeds) == 2:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(player, "play", play)
    with pytest.raises(Killed):
        evaluate(chunked(), "model", games, out)
    monkeypatch.setattr(player, "play", real)
    player.entries, player.seeds = [], []


def test_an_interrupted_evaluation_goes_on_with_the_games_left(tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    games, reported = index(tmp_path, valid_seen=14), list[tuple[int, int]]()
    whole = evaluate(chunked(), "model", games, tmp_path / "a" / "trained")
    seeds, player.entries, player.seeds = player.seeds, [], []
    assert len(set(seeds)) == 4 and seeds[0] == 0, "each chunk has draws of its own"
    stop_in_the_third_chunk(monkeypatch, player, games, tmp_path / "b" / "trained")
    resumed = evaluate(chunked(), "model", games, tmp_path / "b" / "trained", progress=lambda *x: reported.append(x))
    assert player.seeds == seeds[2:] and player.entries == games.split("valid_seen")[8:]
    assert reported == [(12, 14), (14, 14)]
    for name in ("evaluation.json", "trajectories.jsonl"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert not (resumed.path / "chunks").exists()


@pytest.mark.parametrize("what", ["settings", "model", "chunk"])
def test_chunks_of_another_evaluation_are_not_taken(tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    games = index(tmp_path, valid_seen=14)
    stop_in_the_third_chunk(monkeypatch, player, games, tmp_path / "out")
    cfg = chunked()
    cfg.evaluate.temperature = 0.5 if what == "settings" else cfg.evaluate.temperature
    cfg.evaluate.chunk = 5 if what == "chunk" else cfg.evaluate.chunk
    evaluate(cfg, "another" if what == "model" else "model", games, tmp_path / "out")
    assert len(player.entries) == 14


def test_a_damaged_chunk_is_played_again(
    tmp_path: Path, player: Player, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    games = index(tmp_path, valid_seen=14)
    stop_in_the_third_chunk(monkeypatch, player, games, tmp_path / "out")
    file = tmp_path / "out" / "chunks" / "001.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    evaluate(chunked(), "model", games, tmp_path / "out")
    assert player.entries == games.split("valid_seen")[4:]
    assert "001.jsonl is not what was written. Its tasks are played again" in caplog.text


def test_another_evaluation_replaces_the_first_and_leaves_nothing_else(tmp_path: Path) -> None:
    games = index(tmp_path, valid_seen=4).split("valid_seen")
    write_evaluation(tmp_path, "final", [played(game, False) for game in games], {})
    written = write_evaluation(tmp_path, "final", [played(game, True) for game in games[:2]], {"model": "m"})
    assert read_evaluation(tmp_path / "final") == json.loads(json.dumps(written))
    assert written["overall"]["successes"] == 2
    assert sorted(path.name for path in (tmp_path / "final").iterdir()) == ["evaluation.json", "trajectories.jsonl"]


def test_a_disk_that_refuses_leaves_the_earlier_evaluation(tmp_path: Path) -> None:
    games = index(tmp_path, valid_seen=200).split("valid_seen")
    write_evaluation(tmp_path, "final", [played(games[0], True)], {})
    before = {path.name: path.read_bytes() for path in (tmp_path / "final").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"'final' could not be written to .*File too large.*intact"):
            write_evaluation(tmp_path, "final", [played(game, True) for game in games], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in (tmp_path / "final").iterdir()} == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"name": "final"}',
        '{"name',
        '{"name": "a", "meta": {}, "overall": {}, "splits": {}}',
        '{"name": "a", "meta": {}, "overall": 3, "splits": {"x": []}}',
    ],
)
def test_a_damaged_evaluation_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(DataError, match=r"evaluation\.json"):
        read_evaluation(tmp_path)


def test_a_missing_evaluation_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no evaluation at"):
        read_evaluation(tmp_path)
