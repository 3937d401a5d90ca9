"""Rules of what starts the processes of a training.

1. They are told exactly what was asked: config, games, folders.
2. A pickle, or YAML that names a Python object, where they look for that is refused and not run; the process says so and ends.
3. Nothing of the package unpickles, or calls what does.
"""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hiper.composition.compose import compose
from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError
from hiper.runs.ranks import Failure, read_arguments, write_arguments
from hiper.runtime.message import decode
from hiper.suites.tasks import Task, TaskIndex
from hiper.train.ranks import Arguments

INDEX = TaskIndex(Path("games/../games"), (Task("a/game.tw-pddl", "train", "pick", 3), Task("ü", "valid", "look")), {"none": 2})
ARGUMENTS = Arguments(Path("runs/a/sft/model"), INDEX, Path("runs/a/train.partial"), resume=True)


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    "cfg",
    [
        compose([]),
        compose(["experiment=smoke", "trainer.processes=2", "trainer.lr_actor=1.2345678901234567e-06", "algo.lam_high=0.1"]),
        compose(["experiment=alfworld_paper", "trainer.processes=4"]),
        compose(["experiment=webshop_smoke", "algo=gigpo", "paths.run='runs/a b: #c'"]),
    ],
)
def test_the_processes_are_told_what_was_asked(tmp_path: Path, cfg: RunConfig) -> None:
    write_arguments(tmp_path, cfg, ARGUMENTS)
    assert read_arguments(tmp_path, Arguments) == (cfg, ARGUMENTS)


def test_hostile_arguments_are_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    write_arguments(tmp_path, RunConfig(), ARGUMENTS)
    good = (tmp_path / "arguments.json").read_bytes()
    for bad in (pickle.dumps(Hostile(made)), pickle.dumps(ARGUMENTS), good[:-1], good.replace(b"true", b"1"), b"", b"[[],null]"):
        (tmp_path / "arguments.json").write_bytes(bad)
        with pytest.raises(DataError, match=r"arguments\.json is not a message"):
            read_arguments(tmp_path, Arguments)
    (tmp_path / "config.yaml").write_text(f"name: !!python/object/apply:os.mkdir ['{made}']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        read_arguments(tmp_path, Arguments)
    assert not made.exists()


def test_a_process_with_hostile_arguments_says_so_and_ends(tmp_path: Path) -> None:
    write_arguments(tmp_path, compose(["experiment=smoke", "trainer.processes=2", "device=cpu"]), ARGUMENTS)
    (tmp_path / "arguments.json").write_bytes(pickle.dumps(Hostile(tmp_path / "made")))
    ran = subprocess.run([sys.executable, "-m", "hiper.train.ranks", str(tmp_path), "1", "2"], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 1, ran.stderr
    failure = decode((tmp_path / "failure-1.json").read_bytes(), Failure, "the failure")
    assert failure.error == "DataError"
    assert "arguments.json is not a message" in failure.text
    assert not (tmp_path / "made").exists()


UNPICKLERS = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Modules."""
OBJECTS = re.compile(r"(all_gather|gather|broadcast|scatter|send|recv)_object(_list)?|read_pickle|unsafe_load|torchrun")
"""Functions of torch.distributed, pandas and yaml; torchrun unpickles what it finds in its rendezvous."""


def unpickles(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(name.name.partition(".")[0] in UNPICKLERS for name in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in UNPICKLERS or "torch.distributed.run" in (node.module or "")
    if isinstance(node, ast.Attribute):
        # A `World` sends JSON of declared types under these names; torch's functions pickle.
        return OBJECTS.fullmatch(node.attr) is not None and not ast.unparse(node.value).endswith("world")
    if isinstance(node, ast.Call):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if ast.unparse(node.func) == "torch.load":
            return keywords.get("weights_only") != "True"
        return keywords.get("allow_pickle", "False") != "False"
    return False


def test_nothing_of_the_package_unpickles(root: Path) -> None:
    files = [path for package in ("hiper", "flows", "hydra_plugins") for path in sorted((root / package).rglob("*.py"))]
    assert len(files) > 80
    nodes = ((path, node) for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    assert [f"{path.relative_to(root)}: {ast.unparse(node)}" for path, node in nodes if unpickles(node)] == []
    bad = ["import pickle", "from torch.distributed.run import run", "dist.broadcast_object_list([1])", "torch.load(path)"]
    assert all(any(map(unpickles, ast.walk(ast.parse(code)))) for code in bad), "it finds what it looks for"
