"""A checkout with this project's DVC files, for tests that run git and dvc themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from hiper.integrations.dvc import dvc_command, dvc_environment

ROOT = Path(__file__).resolve().parent.parent


def make_checkout(folder: Path, *names: str) -> Path:
    """A git repository with the DVC files of this one and what else is named; no cache yet, and nothing committed."""
    for name in (".dvcignore", ".dvc/config", ".dvc/.gitignore", "conf", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("/runs/\n__pycache__/\n", encoding="utf-8")
    run("git", "init", "--quiet", cwd=folder)
    return folder


def run(*command: str, cwd: Path) -> str:
    """The output of a command that must succeed."""
    environment = dvc_environment() | {"OMP_NUM_THREADS": "1", "PREFECT_HOME": str(cwd.parent / "prefect")}
    ran = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def commit(folder: Path, subject: str) -> None:
    """Commit everything."""
    run("git", "add", "--all", cwd=folder)
    run("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", subject, cwd=folder)


def dvc(folder: Path, *arguments: str) -> str:
    """What a dvc command that must succeed says."""
    return run(dvc_command(), *arguments, cwd=folder)


def done(said: str) -> list[str]:
    """The stages that `dvc repro` or `dvc exp run` says it did."""
    return [line.split("'")[1].rpartition(":")[2] for line in said.splitlines() if line.startswith("Running stage")]
