"""Rules of the registry.

1. Every built-in is registered under the name that its settings say, and makes its estimator. An unknown name lists those there are.
2. What cannot be registered is refused with the reason; the same again changes nothing.
3. An entry point registers before the first lookup; one that fails is named.
4. `hiper/algos` knows nothing of training, and needs no torch to be looked up in; training does not ask which estimator runs.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import hiper.algos
from hiper.algos import register_algorithm, registry
from hiper.algos.registry import algorithms, make_estimator, settings_of
from hiper.algos.types import Estimator
from hiper.config.algo import AlgoConfig, Level, Needs
from hiper.errors import ConfigError
from hiper.runtime import plugins

ROOM = Path(hiper.algos.__file__).parent


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    algorithms()
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    yield
    monkeypatch.undo()
    registry._load_entry_points.cache_clear()


@dataclass
class MineConfig(AlgoConfig):
    name: str = "mine"


@dataclass
class JudgingConfig(MineConfig):
    @property
    def needs(self) -> Needs:
        return Needs(values=(Level.high,))


@pytest.mark.parametrize("name", ["hae", "turn_gae", "gae", "grpo", "rloo", "reinforce_pp", "gigpo"])
def test_built_ins_are_there(name: str) -> None:
    settings = settings_of(name)()
    assert settings.name == name
    assert make_estimator(settings).settings is settings
    assert (ROOM / f"{name}.py").is_file()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no algorithm 'grop'; known are gae, .*turn_gae. Did you mean 'grpo'\?.*hiper.algorithms"):
        settings_of("grop")


def test_one_is_registered_once() -> None:
    register_algorithm("mine", MineConfig, Estimator)
    register_algorithm("mine", MineConfig, Estimator)
    assert settings_of("mine") is MineConfig
    with pytest.raises(ConfigError, match="there is an algorithm 'mine' already, with MineConfig"):
        register_algorithm("mine", JudgingConfig, Estimator)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("My Own", MineConfig, "cannot be named 'My Own'"),
        ("other", MineConfig, "MineConfig says name='mine': declare `name: str = 'other'`"),
        ("mine", dict, "must be a dataclass below hiper.config.algo.AlgoConfig"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: str, settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        register_algorithm(name, settings, Estimator)


def test_who_needs_values_has_the_settings_of_a_critic() -> None:
    register_algorithm("mine", JudgingConfig, Estimator)
    with pytest.raises(ConfigError, match="'mine' needs values; its settings must be a subclass of hiper.config.algo.CriticConfig"):
        make_estimator(JudgingConfig())


def registers_mine() -> None:
    register_algorithm("mine", MineConfig, Estimator)


@pytest.mark.parametrize(("function", "fails"), [("registers_mine", False), ("is_not_there", True)])
def test_entry_points_register(monkeypatch: pytest.MonkeyPatch, function: str, fails: bool) -> None:
    monkeypatch.setitem(sys.modules, "their_package", sys.modules[__name__])
    found = [EntryPoint("mine", f"their_package:{function}", registry.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found if group == "hiper.algorithms" else [])
    registry._load_entry_points.cache_clear()
    if fails:
        with pytest.raises(ConfigError, match="entry point 'mine' of hiper.algorithms .* fails: .*is_not_there"):
            algorithms()
    else:
        assert settings_of("mine") is MineConfig


@pytest.mark.parametrize("file", sorted(ROOM.glob("*.py")), ids=lambda file: file.stem)
def test_the_room_imports_downwards(file: Path) -> None:
    above = {"train", "sft", "evaluate", "report", "pipeline", "runs", "cli", "experiments", "integrations"}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not [name for name in names if name.startswith("hiper.") and name.split(".")[1] in above], f"line {node.lineno}"


def test_training_does_not_ask_which_estimator_runs() -> None:
    for file in [*(ROOM.parent / "train").glob("*.py"), *(ROOM.parent / "benchmarks").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                assert "algo.name" not in ast.unparse(node), f"{file.name}, line {node.lineno}"


def test_looking_one_up_needs_no_torch() -> None:
    code = "import sys, hiper.algos; from hiper.algos.registry import settings_of; settings_of('hae')(); print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
