"""`hiper doctor`: it finds what a run would miss, by name; and the check before installation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hiper.cli.doctor import Finding, text
from hiper.cli.main import main


def test_this_machine_can_run_the_tests_so_nothing_required_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    findings = {record["name"]: record for record in json.loads(capsys.readouterr().out)}
    assert {
        "python",
        "cores",
        "memory",
        "disk",
        "torch",
        "cuda",
        "compiler",
        "cmake",
        "alfworld",
        "trl",
        "original engine",
        "prefect",
        "wandb",
        "optuna",
        "psycopg2",
        "dvc",
        "ALFWORLD_DATA",
    } <= set(findings)
    assert all(record["ok"] for record in findings.values() if record["required"])


def test_a_missing_package_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)  # makes importing it fail
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "LACKS trl" in shown
    assert "pip install 'hiper[run]'" in shown
    assert shown.rstrip().endswith("This machine lacks: trl.")


def test_the_original_engine_is_nothing_that_the_quickstart_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fast_downward", None)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^-\s+original engine", shown, re.MULTILINE)
    assert "pip install 'hiper[alfworld-original]'" in shown


def test_looking_writes_nothing_to_the_home(tmp_path: Path, root: Path) -> None:
    """Importing `alfworld` would."""
    environment = {**os.environ, "HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect")}
    subprocess.run([sys.executable, "-m", "hiper", "doctor"], cwd=root, env=environment, check=True, capture_output=True, timeout=300)
    assert [path.name for path in tmp_path.iterdir()] == ["prefect"]


def test_a_server_that_does_not_import_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As happens with fastapi 0.155, which Prefect's own metadata allows."""
    monkeypatch.setitem(sys.modules, "prefect.server.api.server", None)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "its server does not import" in shown
    assert "pip install 'hiper[run]'" in shown


def test_what_is_optional_does_not_fail_the_machine() -> None:
    shown = text([Finding("cuda", False, False, "none", "a GPU"), Finding("torch", True, True, "2")])
    assert "LACKS" not in shown
    assert shown.endswith("This machine can run the quickstart.")


@pytest.fixture
def check_build(root: Path) -> ModuleType:
    """The script make runs before pip."""
    spec = importlib.util.spec_from_file_location("check_build", root / "scripts" / "check_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_another_python_is_refused_by_number(check_build: ModuleType, version: tuple[int, int]) -> None:
    assert f"Python {version[0]}.{version[1]} is not supported" in check_build.python_problem(version)


@pytest.mark.parametrize(("platform", "refused"), [("win32", True), ("cygwin", True), ("linux", False), ("darwin", False)])
def test_windows_is_refused_with_a_sentence(check_build: ModuleType, platform: str, refused: bool) -> None:
    said = check_build.platform_problem(platform)
    assert (said is not None) == refused
    assert not refused or "On Windows use the Windows Subsystem for Linux." in said


def test_torch_of_another_version_is_not_taken_for_the_locked_one(check_build: ModuleType, root: Path, tmp_path: Path) -> None:
    found = importlib.metadata.version("torch").partition("+")[0]
    other = tmp_path / "lock.txt"
    for line, there in (
        (f"torch=={found} \\\n", True),
        (f"torch=={found}+cpu ; x \\\n", True),
        (f"torch=={found}.1 \\\n", False),
        ("", False),
    ):
        other.write_text(f"six==1\n{line}", encoding="utf-8")
        assert check_build.main(["--torch", str(other)]) == (0 if there else 1), line


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13)])
def test_supported_pythons_pass(check_build: ModuleType, version: tuple[int, int]) -> None:
    assert check_build.python_problem(version) is None


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        (None, "no cmake found"),
        ("cmake version 4.0.1\n", "CMake 4.0 cannot build the planner"),
        ("cmake version 2.8.12", "CMake 2.8 cannot build"),
        ("nonsense", "names no version"),
    ],
)
def test_a_cmake_that_cannot_build_is_told_apart(check_build: ModuleType, printed: str | None, said: str) -> None:
    problem = check_build.cmake_problem(printed)
    assert said in problem
    assert "apt install cmake" in problem


def test_cmake_3_passes(check_build: ModuleType) -> None:
    assert check_build.cmake_problem("cmake version 3.25.1\n\nCMake suite maintained by Kitware") is None


def test_without_tools_each_is_named(
    check_build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_build.main([]) == 0, "what the pipeline needs is not built"
    assert check_build.main(["--planner", str(tmp_path / "no-venv")]) == 1
    said = capsys.readouterr().err
    assert "no C++ compiler found" in said
    assert "no cmake found" in said
    assert check_build.main(["--planner", sys.prefix]) == 0, "an environment that has the planner needs neither"
