"""What a task is, told by content.

1. Games that differ in the name of their PDDL problem alone have one digest; anything else makes another. So has a goal with its product.
2. Without files or a word of the suite, a task is its name.
3. Held-out tasks that are trained on, too, are counted: in a warning, in the facts of the tasks stage, in evaluations and on the page.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hiper.composition.compose import compose, override
from hiper.evaluation.plan import Job, _meta
from hiper.pipeline.stages import STAGES
from hiper.report.read import read_run
from hiper.report.write import _notes
from hiper.runs.run_dir import begin_run
from hiper.suites import suite_of
from hiper.suites.alfworld.games import GAME_FILE, game_digest
from hiper.suites.suite import Suite, Wording
from hiper.suites.tasks import Task, TaskIndex
from hiper.train.trainer import _tasks_digest

SMALL = ["experiment=smoke", "alfworld.train=6", "alfworld.valid_seen=2", "alfworld.valid_unseen=2"]


@pytest.fixture(scope="module")
def games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated games."""
    pytest.importorskip("alfworld", reason="the generator reads the floor plans of the alfworld package")
    cfg = compose(SMALL)
    return suite_of(cfg).data(tmp_path_factory.mktemp("tasks") / "data", cfg)


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_a_game_is_its_file_but_for_the_name_of_its_problem(games: Path, tmp_path: Path) -> None:
    one = shutil.copy(next(games.glob(f"train/*/*/{GAME_FILE}")), tmp_path / GAME_FILE)
    digest, problem = game_digest(one), json.loads(one.read_text(encoding="utf-8"))["pddl_problem"]
    named = problem.index("(problem ") + len("(problem ")
    change(one, pddl_problem=f"{problem[:named]}another_{problem[named:]}")
    assert game_digest(one) == digest
    for key, value in {"pddl_problem": problem.replace("(:goal", "(:goal ", 1), "grammar": "other", "solvable": False}.items():
        changed = shutil.copy(one, tmp_path / "changed")
        change(changed, **{key: value})
        assert game_digest(changed) != digest, key


def test_a_goal_is_what_it_asks_for_with_its_product(tmp_path: Path) -> None:
    cfg = compose(["experiment=webshop_smoke"])
    suite = suite_of(cfg)
    root = suite.data(tmp_path / "data", cfg)
    index = suite.index_with_digests(root, cfg)
    assert len({entry.digest for entry in index.entries}) == len(index.entries) > 20
    held_out = index.split("test")[0]
    assert suite.digest(cfg, index.resolve(held_out)) == held_out.digest
    products = next(root.glob("items_shuffle*.json"))
    products.write_text(products.read_text(encoding="utf-8").replace('"name": "', '"name": "new '), encoding="utf-8")
    again = suite.index_with_digests(shutil.copytree(root, tmp_path / "again"), cfg)
    assert not {entry.digest for entry in again.entries} & {entry.digest for entry in index.entries}


def test_without_files_a_task_is_its_name(tmp_path: Path) -> None:
    cfg = compose([])
    first, second = (Suite.digest(suite_of(cfg), cfg, tmp_path / "train" / name) for name in ("0001", "0002"))
    assert first != second and first == Suite.digest(suite_of(cfg), cfg, Path("elsewhere/train/0001"))
    (tmp_path / "file").write_bytes(b"content")
    shutil.copy(tmp_path / "file", tmp_path / "copy")
    assert Suite.digest(suite_of(cfg), cfg, tmp_path / "file") == Suite.digest(suite_of(cfg), cfg, tmp_path / "copy")


def test_repeated_tasks_are_counted() -> None:
    known = [Task("train/1", "train", "t", 0, "a"), Task("train/2", "train", "t"), Task("valid/1", "valid", "t", 0, "a")]
    index = TaskIndex(Path(), (*known, Task("valid/2", "valid", "t", 0, "b"), Task("test/1", "test", "t")))
    assert index.repeated() == {"valid": 1}
    assert index.repeated("test") == {}


def test_held_out_tasks_that_are_trained_on_are_said(
    games: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(games, tmp_path / "official")
    trained, held_out = (next(data.glob(f"{split}/*/*/{GAME_FILE}")) for split in ("train", "valid_seen"))
    shutil.copy(trained, held_out)
    cfg = override(compose(SMALL), ["tasks.source=official", f"tasks.data={data}", f"paths.run={tmp_path / 'run'}"])
    begin_run(cfg)
    with caplog.at_level(logging.WARNING):
        facts = STAGES["tasks"](cfg).facts
    assert "1 of the 2 tasks of valid_seen are in train, too" in caplog.text
    assert facts["valid_seen in train, too"] == 1 and "valid_unseen in train, too" not in facts
    index = TaskIndex.load(tmp_path / "run" / "tasks" / "index.json")
    assert index.repeated() == {"valid_seen": 1}
    meta = _meta(cfg, Job("model", Path("out")), index, {split: index.split(split) for split in ("valid_seen", "valid_unseen")})
    assert [meta["splits"][split]["in_train"] for split in ("valid_seen", "valid_unseen")] == [1, 0]
    record = replace(read_run(tmp_path / "run"), trained={"meta": meta, "splits": {}})
    assert any("1 of the 2 games of valid seen are in train, too" in note for note in _notes(record, Wording("game", "games")))


def test_training_knows_its_tasks_by_content(games: Path) -> None:
    cfg = compose(SMALL)
    index = suite_of(cfg).index_with_digests(games, cfg)
    first, *rest = index.entries
    other = replace(index, entries=(replace(first, digest="0" * 64), *rest))
    assert first.split == "train" and _tasks_digest(other) != _tasks_digest(index)
