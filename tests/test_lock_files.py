"""Rules of `requirements/`: what `make` installs is what pyproject.toml asks for, whole, and no file of it can be another one."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILES = ("run", "dev", "docs", "torch-cpu", "torch-cuda")
ONLY_FILES = {"alfworld"}
"""Installed for the files that they ship, without what they need to be imported."""


@pytest.fixture(scope="module")
def lock(root: Path) -> ModuleType:
    """The script that writes them."""
    spec = importlib.util.spec_from_file_location("lock", root / "scripts" / "lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def locks(root: Path, lock: ModuleType) -> dict[str, dict[str, tuple[Requirement, list[str]]]]:
    """File -> package -> pin and hashes."""
    return {name: lock.read((root / "requirements" / f"{name}.txt").read_text(encoding="utf-8")) for name in FILES}


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def asked(project: dict[str, Any], extra: str) -> list[Requirement]:
    """The core and an extra, those that it names included."""
    found = [Requirement(one) for one in project["dependencies"]]
    for one in map(Requirement, project["optional-dependencies"][extra]):
        found += [inner for name in one.extras for inner in asked(project, name)] if one.name == "hiper" else [one]
    return found


def version(requirement: Requirement) -> str:
    (pin,) = requirement.specifier
    assert pin.operator == "==", requirement
    return pin.version


@pytest.mark.parametrize("extra", ["run", "dev", "docs"])
def test_what_is_asked_for_is_locked_in_its_range(locks: Any, project: dict[str, Any], extra: str) -> None:
    locked = locks["torch-cuda"] | locks[extra]
    for wanted in asked(project, extra):
        pin, _ = locked[canonicalize_name(wanted.name)]
        assert version(pin) in wanted.specifier, f"{extra}.txt has {pin}: run scripts/lock.py"


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_hashes(locks: Any, name: str) -> None:
    assert locks[name]
    for package, (_, hashes) in locks[name].items():
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), f"{name}.txt: {package}"


@pytest.mark.parametrize("name", ["run", "dev"])
def test_it_is_whole_without_pip_looking_for_more(locks: Any, name: str) -> None:
    """pip is told `--no-deps`; what the packages installed here ask for has to be in the file."""
    there = locks[name].keys() | locks["torch-cuda"].keys()
    looked = 0
    for package in locks[name].keys() - (ONLY_FILES if name == "run" else set()):
        try:
            needs = [Requirement(one) for one in requires(package) or ()]
        except PackageNotFoundError:
            continue  # an environment made otherwise
        looked += 1
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert canonicalize_name(need.name) in there, f"{package} needs {need}"
    assert looked > len(locks[name]) / 2


def test_both_commands_have_the_same_versions(locks: Any) -> None:
    for package, (pin, hashes) in locks["run"].items():
        assert (str(locks["dev"][package][0]), locks["dev"][package][1]) == (str(pin), hashes), package
    for package in locks["docs"].keys() & locks["dev"].keys():
        assert str(locks["docs"][package][0]) == str(locks["dev"][package][0])


def test_a_run_installs_nothing_that_only_tests_or_integrations_use(locks: Any) -> None:
    for package in ("textworld", "fast-downward-textworld", "spacy", "pytest", "mypy", "ruff", "dvc", "optuna", "wandb", "psycopg2-binary"):
        assert package in locks["dev"], package
        assert package not in locks["run"], package


def test_torch_comes_from_its_own_files_alone_in_one_version(root: Path, locks: Any) -> None:
    for name in ("run", "dev", "docs"):
        assert not [package for package in locks[name] if package == "torch" or package.startswith(("nvidia-", "cuda-", "triton"))]
    text = (root / "requirements" / "torch-cpu.txt").read_text(encoding="utf-8")
    linux, mac = re.findall(r"^torch==(\S+)", text, re.MULTILINE)
    assert {linux, f"{mac}+cpu"} == {f"{version(locks['torch-cuda']['torch'][0])}+cpu"}
    assert set(re.findall(r"sha256:\w+", text.partition("darwin")[2])) <= set(locks["torch-cuda"]["torch"][1])


def test_what_is_written_is_read_again_and_other_systems_are_left_out(lock: ModuleType) -> None:
    one = "sha256:" + "a" * 64
    text = (
        f"always==1 ; python_version >= '3.8' --hash={one}\nolder==1 ; python_version < '3.12' \\\n    --hash={one}\n"
        f"never==1 ; sys_platform == 'win32' --hash={one}\n"
    )
    written = lock.write(lock.read(text), "a test")
    assert [line for line in written.splitlines() if line[0].isalpha()] == ["always==1 \\", 'older==1 ; python_version < "3.12" \\']
    assert lock.write(lock.read(written), "a test") == written


def test_the_guide_has_every_extra(root: Path, project: dict[str, Any]) -> None:
    """Its table is written by hand."""
    guide = (root / "docs" / "install.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([a-z-]+)` \|", guide, re.MULTILINE)
    assert sorted(named) == sorted(project["optional-dependencies"])
    for extra, wanted in project["optional-dependencies"].items():
        (row,) = re.findall(rf"^\| `{extra}` \|.*$", guide, re.MULTILINE)
        for one in wanted:
            name = Requirement(one).name
            assert name in ("hiper", "fastapi", "sqlalchemy") or name in row.lower(), f"{extra}: {name}"
