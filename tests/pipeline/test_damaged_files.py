"""Rules of readers.

1. Whatever stands where a file should be (a pipe, a device, a folder, binary data, deep nesting, YAML aliases, another type) is refused
   with a message that names the file, at once, by every reader.
2. A file of `conf/` that is not composed may be as it likes.
3. An index names games under its root only.
4. A server that goes away is one message.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from hiper.benchmarks.hae import conform
from hiper.cli import main as cli
from hiper.cli import run as running
from hiper.composition.compose import compose
from hiper.errors import ConfigError, DataError, HiperError
from hiper.evaluation.drift import read_history
from hiper.evaluation.write import read_evaluation
from hiper.experiments.comparison import load_comparison
from hiper.experiments.reevaluate import load_plan
from hiper.experiments.sweep.spec import load_spec
from hiper.rollout.trajectory import read_trajectories
from hiper.sft.demos import read_demos
from hiper.suites.alfworld.games import index_games
from hiper.suites.alfworld.prior import LocationPrior
from hiper.suites.alfworld.world import World
from hiper.suites.tasks import TaskIndex
from hiper.suites.webshop.source import elements

YAML_BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n"


def pipe(path: Path) -> None:
    os.mkfifo(path)


HARMS: dict[str, Callable[[Path], Any]] = {
    "pipe": pipe,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "binary": lambda path: path.write_bytes(b"\xff\x00\xfe\n"),
    "deep": lambda path: path.write_text("[" * 100_000 + "]" * 100_000),
    "another type": lambda path: path.write_text("7\n"),
    "list": lambda path: path.write_text("[[1, {}]]\n"),
    "huge": lambda path: path.write_text('{"a": 1' + "0" * 5000 + "}\n"),
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "demonstrations": ("demos.jsonl", read_demos),
    "trajectories": ("trajectories.jsonl", lambda path: list(read_trajectories(path))),
    "evaluation": ("evaluation.json", lambda path: read_evaluation(path.parent)),
    "history": ("history.jsonl", read_history),
    "index": ("index.json", TaskIndex.load),
    "game": ("game.tw-pddl", World.load),
    "game counted": ("game.tw-pddl", lambda path: LocationPrior.count([path])),
    "catalogue": ("items.json", lambda path: list(elements(path))),
    "advantages": ("cases.json", conform),
    "study": ("study.yaml", load_comparison),
    "sweep": ("sweep.yaml", load_spec),
    "plan": ("plan.yaml", load_plan),
}
LEGAL = {("list", "catalogue")}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("harm", HARMS)
def test_harm_is_refused_by_name(tmp_path: Path, reader: str, harm: str) -> None:
    name, read = READERS[reader]
    if (harm, reader) in LEGAL or (harm, reader) == ("loop", "history"):
        return
    HARMS[harm](tmp_path / name)
    with pytest.raises(HiperError, match=name.replace(".", r"\.")) as caught:
        read(tmp_path / name)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("reader", ["study", "sweep", "plan"])
def test_aliases_are_refused(tmp_path: Path, reader: str) -> None:
    name, read = READERS[reader]
    (tmp_path / name).write_text(YAML_BOMB)
    with pytest.raises(ConfigError, match=r"line 2: YAML aliases \(\*a\) are not read"):
        read(tmp_path / name)


@pytest.fixture
def conf(root: Path, tmp_path: Path) -> Path:
    shutil.copytree(root / "conf", tmp_path / "conf")
    return tmp_path / "conf"


@pytest.mark.parametrize("harm", [*HARMS, "aliases"])
def test_a_damaged_file_of_conf_is_named(conf: Path, harm: str) -> None:
    chosen = conf / "algo" / "hae.yaml"
    chosen.unlink()
    HARMS.get(harm, lambda path: path.write_text(YAML_BOMB))(chosen)
    with pytest.raises(ConfigError, match=r"hae(\.yaml)?"):
        compose(["algo=hae"], conf)


def test_a_file_of_conf_that_is_not_composed_does_not_matter(conf: Path) -> None:
    pipe(conf / "experiment" / "mine.yaml")
    (conf / "experiment" / "other.yaml").write_text(YAML_BOMB)
    assert compose(["experiment=smoke"], conf).name == "smoke"
    with pytest.raises(ConfigError, match=r"mine\.yaml is not a regular file"):
        compose(["experiment=mine"], conf)


def test_settings_that_refer_to_themselves_are_refused(conf: Path) -> None:
    with pytest.raises(ConfigError):
        compose(["name='${name}'"], conf)


@pytest.mark.parametrize("path", ["/etc/passwd", "train/../../game.tw-pddl", "..", "a\0b"])
def test_an_index_stays_under_its_root(tmp_path: Path, path: str) -> None:
    game = {"path": path, "split": "train", "task_type": "x", "scene": 1}
    (tmp_path / "index.json").write_text(json.dumps({"root": "data", "left_out": {}, "tasks": [game]}))
    with pytest.raises(DataError, match=r"index\.json is not a task index: the task .* lies outside its root"):
        TaskIndex.load(tmp_path / "index.json")


@pytest.mark.parametrize("harm", ["pipe", "binary", "deep", "another type"])
def test_trajectory_data_of_games_are_refused_by_name(generated_games: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "data" / "train" / "odd" / "trial"
    shutil.copytree(next((generated_games / "train").glob("*/*")), folder)
    (folder / "traj_data.json").unlink()
    HARMS[harm](folder / "traj_data.json")
    with pytest.raises(DataError, match=r"traj_data\.json"):
        index_games(tmp_path / "data")


def test_a_server_that_goes_away_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    def unreachable(*_: object) -> None:
        httpx.get("http://127.0.0.1:9/api/health", timeout=5, trust_env=False)

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(running, "_through_prefect", unreachable)
    assert cli.main(["run", "experiment=smoke", f"paths.run={tmp_path}"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("hiper: the Prefect server at http://127.0.0.1:9/api cannot be reached") and "--direct" in said[0]
