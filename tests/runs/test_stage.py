"""The table of the stages.

1. A stage comes after all that it reads, and its settings exist.
2. Stages are listed in the table alone: no tuple, list or set elsewhere is one of stages, no dict is one by stage.
3. Imports point down: runs, and what trains, evaluates and reports, know nothing of the pipeline; the table needs nothing heavy.
4. Fingerprints are what they were: a finished run is not done again because the program was tidied up.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hiper import __version__
from hiper.composition.compose import compose
from hiper.config import RunConfig
from hiper.pipeline.stages import STAGES as BOUND
from hiper.runs.fingerprint import stage_fingerprint, stage_lineage
from hiper.runs.stage import STAGES, before, split_at_gpu
from hiper.suites.suite import OwnSettings

RECORDED = json.loads((Path(__file__).parent / "fingerprints.json").read_text(encoding="utf-8"))
"""Of 0.1.0: overrides, and each stage's fingerprint."""
BELOW_THE_PIPELINE = ("runs", "evaluation", "train", "sft", "report", "rollout", "suites", "config", "runtime")


def leaves(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")


def test_a_stage_comes_after_what_it_reads_and_its_settings_exist() -> None:
    every = set(leaves(RunConfig().sections()))
    for name, stage in STAGES.items():
        assert name == stage.name
        assert set(stage.upstream) <= set(before(name))
        own = [stage.own_seed] if stage.own_seed is not None else []
        assert {*stage.settings, *stage.neutral, *stage.extendable, *stage.added, *own} <= every
        assert set(stage.suite) <= {"tasks", *asdict(OwnSettings())}
        inside = {*stage.neutral, *stage.extendable, *stage.added, *own}
        assert all(any(key == group or key.startswith(f"{group}.") for group in stage.settings) for key in inside)


def test_a_stage_that_can_be_done_has_all_facts_and_a_function() -> None:
    assert list(BOUND) == list(STAGES)
    for name, stage in BOUND.items():
        assert {key: getattr(stage, key) for key in vars(STAGES[name])} == vars(STAGES[name])
        assert stage.work.__name__ == name and stage.work.__doc__


def test_names_are_split_where_the_computing_begins() -> None:
    assert split_at_gpu(list(STAGES)) == (["tasks", "demos"], ["sft", "train", "evaluate", "report"])
    assert split_at_gpu(["report"]) == (["report"], [])


def sources(root: Path) -> list[Path]:
    return [path for folder in ("hiper", "flows", "benchmarks", "scripts") for path in sorted((root / folder).rglob("*.py"))]


def listed(tree: ast.AST) -> Iterator[tuple[int, set[str]]]:
    """Line and names of each tuple, list and set of stages, and of each dict by stage."""
    names = {form for stage in STAGES.values() for form in (stage.name, stage.command)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            parts: list[ast.expr | None] = list(node.elts)
        elif isinstance(node, ast.Dict):
            parts = list(node.keys)
        else:
            continue
        found = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
        if len(found) == len(parts) > 1 and found <= names:
            yield node.lineno, found


def test_stages_are_listed_in_the_table_alone(root: Path) -> None:
    found = {
        f"{path.relative_to(root)}:{line}": names
        for path in sources(root)
        for line, names in listed(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert {place.split(":")[0] for place in found} == {"hiper/runs/stage.py"}, found


@pytest.mark.parametrize("text", ["('tasks', 'demos')", "{'sft': 1, 'train': 2}", "[x for x in ['report', 'evaluate']]"])
def test_a_second_list_would_be_found(text: str) -> None:
    assert list(listed(ast.parse(text)))


@pytest.mark.parametrize("room", BELOW_THE_PIPELINE)
def test_imports_point_down(root: Path, room: str) -> None:
    for path in sorted((root / "hiper" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in modules if name.startswith("hiper.pipeline")], f"{path}:{node.lineno}"


def test_the_table_needs_nothing_heavy() -> None:
    code = (
        "import sys, hiper.runs.stage; print([name for name in ('torch', 'prefect', 'omegaconf', 'hiper.config') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: " ".join(one["overrides"]))
def test_fingerprints_are_what_they_were(recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hiper.runs.fingerprint.__version__", recorded["version"])
    cfg = compose(recorded["overrides"])
    assert {name: stage_fingerprint(cfg, name) for name in STAGES} == recorded["fingerprints"]
    assert stage_lineage(cfg, "train") == recorded["train_lineage"]
    monkeypatch.setattr("hiper.runs.fingerprint.__version__", f"{__version__}+another")
    assert stage_fingerprint(cfg, "tasks") != recorded["fingerprints"]["tasks"]
