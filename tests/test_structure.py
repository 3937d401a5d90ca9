"""Rules of the structure.

1. Imports point down the list of rooms; nothing refers in a circle.
2. No file has more than 500 lines, no function more than 60 without its docstring, unless a reason stands here.
3. Generic rooms speak of tasks: what a household or a shop has, their suites alone know.
4. Retired words are gone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOMS = (
    "cli",
    "api",
    "benchmarks",
    "integrations.prefect",
    "experiments",
    "integrations.dvc",
    "pipeline",
    "report",
    "evaluation",
    "train",
    "sft",
    "rollout",
    "runs",
    "composition",
    "algos",
    "suites",
    "model",
    "tracking",
    "protocol",
    "config",
    "rl",
    "runtime",
    "errors",
)
"""From the top. A room imports what stands below it."""

UPWARD = {
    (
        "config",
        "hiper.algos.registry",
    ): "which settings `algo` has is known to the chosen estimator alone; asked for when a config is built",
    (
        "config",
        "hiper.suites.registry",
    ): "likewise, which settings are the chosen suite's own",
    ("algos", "hiper.rollout.batch"): "a type, for annotations",
    ("runtime", "hiper.config"): "where a run computes: device and threads are its settings",
}
"""Imports that point up, each with its reason."""

LONG_FILES: dict[str, str] = {"train/trainer.py": "one class, whose state is what a checkpoint holds"}
LONG_FUNCTIONS = {
    "rl/hae.py:hierarchical_advantages": "checks of fifteen inputs; the recursion itself is below, in `_estimate`",
    "rollout/batch.py:make_batch": "one field of a batch after another",
}

SUITE_WORDS = re.compile(r"\b(games?|appliances?|microwaves?|fridges?|lamps?|shops?|shopping|households?)\b", re.IGNORECASE)
OF_SUITES = {
    "benchmarks": "measures the two suites beside their originals",
    "cli/benchmark.py": "offers these",
    "cli/doctor.py": "looks for their data and packages",
    "cli/play.py": "a file of ALFWorld's can be named",
}
"""Places outside the suites that may name what is theirs."""

RETIRED = re.compile(
    r"\b(warm_start|GameIndex|GameEntry|Benchmark|benchmark_of|critic_fit|critic_memory|rollback_pace|importance_cap|resample|"
    r"timeless|put_back|leash|apply_limits|run_study|signs of life|hiper bench|hiper study|hiper games)\b"
)


@pytest.fixture(scope="module")
def package(root: Path) -> Path:
    return root / "hiper"


def modules(package: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """Name below `hiper`, file and contents of every module."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), path, ast.parse(path.read_text(encoding="utf-8"))


def room_of(name: str) -> str | None:
    """The room of a dotted name below `hiper`."""
    return next((room for room in ROOMS if name == room or name.startswith(f"{room}.")), None)


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules of ours that are imported anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hiper":
            yield from (f"hiper.{name.name}" for name in node.names) if node.module == "hiper" else [str(node.module)]
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("hiper."))


def upward(tree: ast.Module, room: str) -> list[str]:
    """Imports of a room that point up and have no reason."""
    ranks = {name: rank for rank, name in enumerate(ROOMS)}
    found = []
    for name in imported(tree):
        other = room_of(name.removeprefix("hiper."))
        if other is not None and ranks[other] < ranks[room] and (room, name) not in UPWARD:
            found.append(name)
    return found


def test_imports_point_down(package: Path) -> None:
    for name, path, tree in modules(package):
        room = room_of(name.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
        if room is None:
            assert name in ("__init__.py", "__main__.py", "integrations/__init__.py"), f"{name} is in no room of {ROOMS}"
            continue
        assert upward(tree, room) == [], f"{path} imports what stands above {room}"


def test_an_import_that_points_up_would_be_found() -> None:
    assert upward(ast.parse("from hiper.train.trainer import train"), "rl") == ["hiper.train.trainer"]
    assert upward(ast.parse("def f():\n    import hiper.cli.main"), "train") == ["hiper.cli.main"]
    assert upward(ast.parse("from hiper.rl.hae import normalize"), "train") == []


def test_files_and_functions_are_short(package: Path) -> None:
    for name, _, tree in modules(package):
        lines = (package / name).read_text(encoding="utf-8").count("\n")
        assert lines <= 500 or name in LONG_FILES, f"{name} has {lines} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                body = (node.end_lineno or 0) - (first.end_lineno or 0 if documented else node.lineno - 1)
                assert body <= 60 or f"{name}:{node.name}" in LONG_FUNCTIONS, f"{name}:{node.name} has {body} lines"


def test_generic_rooms_know_no_suite(package: Path) -> None:
    for name, path, _ in modules(package):
        if name.startswith(("suites/alfworld", "suites/webshop")) or any(name.startswith(place) for place in OF_SUITES):
            continue
        found = {word.group(0) for word in SUITE_WORDS.finditer(path.read_text(encoding="utf-8"))}
        assert not found, f"{name} names {', '.join(sorted(found))}: say task, or ask the suite's wording"


def test_retired_words_are_gone(root: Path) -> None:
    for place in ("hiper", "flows", "conf", "comparisons", "sweeps", "examples", "benchmarks"):
        for path in sorted((root / place).rglob("*")):
            if path.suffix in (".py", ".yaml", ".j2"):
                found = {word.group(0) for word in RETIRED.finditer(path.read_text(encoding="utf-8"))}
                assert not found, f"{path} says {', '.join(sorted(found))}"
