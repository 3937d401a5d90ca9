"""Rules of packages that are not always installed: one table says which extra holds what, and only what is used needs one."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hiper.errors import MissingDependencyError
from hiper.runtime.packages import ALFWORLD, EXTRAS, INSTALL_ALFWORLD, how_to_install, missing

REQUIREMENTS = {
    "psycopg2": "psycopg2-binary",
    "optuna_dashboard": "optuna-dashboard",
    "fast_downward": "textworld[pddl]",  # which asks for it
}
"""Modules that are asked for under another name."""

WITHOUT_EXTRAS = """
import importlib, pkgutil, sys
from hiper.runtime.packages import EXTRAS
sys.modules.update(dict.fromkeys([*EXTRAS, "sqlalchemy", "spacy"]))  # None: as if not installed
import hiper
names = [module.name for module in pkgutil.walk_packages(hiper.__path__, "hiper.", onerror=lambda name: None)]
skipped = ("hiper.integrations.prefect", "hiper.experiments.sweep", "hiper.benchmarks", "hiper.__main__")
taken = [name for name in names if not name.startswith(skipped)]
for name in taken:
    importlib.import_module(name)
print(len(taken))
"""


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    """`[project]` of pyproject.toml."""
    found: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


@pytest.mark.parametrize("module", sorted(EXTRAS))
def test_the_extra_that_is_named_holds_the_package(project: dict[str, Any], module: str) -> None:
    wanted = REQUIREMENTS.get(module, module)
    assert any(one.startswith(wanted) for one in project["optional-dependencies"][EXTRAS[module]]), f"{EXTRAS[module]} has no {wanted}"
    assert not any(one.startswith(wanted) for one in project["dependencies"])


def test_one_version_of_alfworld(project: dict[str, Any]) -> None:
    assert f"alfworld=={ALFWORLD}" in project["optional-dependencies"]["alfworld-original"]
    assert INSTALL_ALFWORLD.endswith(f"alfworld=={ALFWORLD}")


def test_advice_to_install_comes_from_the_table(root: Path) -> None:
    """What is no package of ours to name, torch's build and CMake, `hiper doctor` names itself."""
    for path in (root / "hiper").rglob("*.py"):
        if path.relative_to(root).as_posix() not in ("hiper/runtime/packages.py", "hiper/cli/doctor.py", "hiper/config/places.py"):
            assert "pip install" not in path.read_text(encoding="utf-8"), f"{path} names a command that hiper.runtime.packages should"


def test_what_the_core_does_needs_no_extra() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100


def test_a_missing_package_is_named_with_its_extra() -> None:
    error = missing("a sweep", "optuna", ImportError("no optuna"), "do without")
    assert isinstance(error, MissingDependencyError)
    assert str(error) == (
        "a sweep needs the package optuna, which cannot be imported (no optuna). Run `pip install 'hiper[sweep]'`, or do without."
    )
    assert how_to_install(["trl", "optuna", "datasets"]) == "`pip install 'hiper[run,sweep]'`"
