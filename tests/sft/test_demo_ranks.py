"""Rules of demonstrations that several processes write.

1. They share the tasks of one common order: whatever a task's making draws, each round has every task once; shares differ by one at most.
2. The same number of processes gives the same bytes; another number gives others.
3. The summary says of the file what one process would say of it.
4. What a process raises is raised here under its own name, and nothing of the processes' work stays behind.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from hiper.composition.compose import compose
from hiper.config import RunConfig, Source
from hiper.errors import ConfigError, DataError
from hiper.pipeline.stages import STAGES
from hiper.protocol import Switch, parse
from hiper.sft.demo_ranks import write_demos_in_processes
from hiper.sft.demos import write_demos, write_share
from hiper.suites import suite_of
from hiper.suites.alfworld.settings import ALFWorldConfig
from hiper.suites.tasks import TaskIndex
from tests.rollout.test_demos import config, lines, replies
from tests.train.running import Killed


def shared(cfg: RunConfig, processes: int = 2) -> RunConfig:
    cfg.demos.processes = processes
    return cfg


def test_tasks_are_shared_and_the_same_number_gives_the_same_bytes(task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = shared(config(35))  # the second and third time with new numbers, which are drawn when a game is made
    cfg.demos.slips, cfg.demos.lapses = 0.1, 0.5
    reported: list[tuple[int, int]] = []
    summary = write_demos_in_processes(task_index, cfg, tmp_path / "a.jsonl", lambda *done: reported.append(done))
    again = write_demos_in_processes(task_index, cfg, tmp_path / "b.jsonl")
    alone = config(35)
    alone.demos.slips, alone.demos.lapses = 0.1, 0.5
    write_demos(task_index, alone, tmp_path / "one.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "one.jsonl"]
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes() != (tmp_path / "one.jsonl").read_bytes()
    assert again.won == summary.won

    found = lines(tmp_path / "a.jsonl")
    assert summary.failed == 0 and len(found) == summary.demonstrations == 35
    assert sorted(Counter(line["task_id"] for line in found).values()) == [2] + 11 * [3]
    assert summary.tasks == 12 and 0 < summary.won < 1
    said = [[parse(reply).switch for reply in replies(line["messages"])] for line in found]
    turns = sum(map(len, said))
    assert summary.mean_turns == turns / 35
    assert summary.switch_rate == sum(switch is Switch.SWITCH for one in said for switch in one[1:]) / (turns - 35)
    assert reported == sorted(reported) and reported[-1] == (35, 35)


def test_a_share_is_every_second_task(task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config(9)
    parts = [write_share(task_index, cfg, tmp_path / str(rank), rank, 2) for rank in range(2)]
    assert [part.demonstrations for part in parts] == [5, 4]
    order = [task.path for task, _ in islice(suite_of(cfg).training_tasks(task_index, cfg, random.Random("demos-0")), 9)]
    assert [[line["task_id"] for line in lines(tmp_path / str(rank))] for rank in range(2)] == [order[::2], order[1::2]]


@pytest.mark.parametrize("own", [ALFWorldConfig(fresh=True), ALFWorldConfig(renumber=True), ALFWorldConfig(renumber=True, scatter=0.5)])
def test_the_order_hangs_on_no_task_that_is_made(task_index: TaskIndex, own: ALFWorldConfig) -> None:
    if own.fresh:
        pytest.importorskip("alfworld", reason="the generator reads the floor plans of the alfworld package")
    cfg, other = RunConfig(suite=own), random.Random(7)
    made, passed = ([], [])  # type: ignore[var-annotated]
    for task, make in islice(suite_of(cfg).training_tasks(task_index, cfg, random.Random(0)), 30):
        make(other)
        made.append(task)
    for task, _ in islice(suite_of(cfg).training_tasks(task_index, cfg, random.Random(0)), 30):
        passed.append(task)
    assert made == passed


def stop(done: int, total: int) -> None:
    raise Killed


def test_errors_are_raised_here_and_leave_nothing(task_index: TaskIndex, tmp_path: Path) -> None:
    out = tmp_path / "demos.jsonl"
    with pytest.raises(DataError, match="the expert solved none of 12 training tasks"):
        write_demos_in_processes(task_index, shared(config(12, turns=1)), out)
    with pytest.raises(DataError, match="split 'train' has no tasks"):
        write_demos_in_processes(TaskIndex(task_index.root, tuple(task_index.split("valid_seen"))), shared(config(3)), out)
    official = shared(config(3))
    official.suite, official.tasks.source = ALFWorldConfig(fresh=True), Source.official
    with pytest.raises(ConfigError, match=r"alfworld\.fresh=true needs tasks\.source=generated"):
        write_demos_in_processes(task_index, official, out)
    with pytest.raises(Killed):
        write_demos_in_processes(task_index, shared(config(5000)), out, stop)
    with pytest.raises(ConfigError, match=r"demos\.processes=2, but this is one process"):
        write_demos(task_index, shared(config(3)), out)
    assert list(tmp_path.iterdir()) == []


def test_every_process_has_something_to_write() -> None:
    with pytest.raises(ConfigError, match=r"demos\.processes=3 is out of range: it must be 1 to demos\.count=2"):
        compose(["experiment=smoke", "demos.count=2", "demos.processes=3"])


def test_the_stage_starts_them(finished_run: Path, small_settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "tasks").symlink_to(finished_run / "tasks")
    result = STAGES["demos"](compose([*small_settings, "demos.processes=2", f"paths.run={tmp_path}"]))
    assert result.facts["demonstrations"] == 16
    assert json.loads((tmp_path / "demos" / "manifest.json").read_text()).keys() == {"demos.jsonl"}
    assert len(lines(tmp_path / "demos" / "demos.jsonl")) >= 16
