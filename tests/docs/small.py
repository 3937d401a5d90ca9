"""The one rule by which the guides' commands run at smoke size: a checkout in which the files that they name are small.

Commands stay as they are written. In the copy of the checkout that they run in

- each experiment is the smoke of its suite under its own name, with its own tasks, environment and estimator (`conf/experiment/`);
- a sweep has two trials, a comparison one seed (`sweeps/`, `comparisons/`);

and `SMALLER` and `PLACES` below are all that is changed in a line: sizes that a line gives itself, and placeholders.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hiper.suites.webshop.generate import generate_catalogue
from tests.docs.guides import ROOT, Step

SMALLER = {
    "trials=60": "trials=3",
    "sqlite:///runs/sweeps/hae/study.db": "sqlite:///runs/sweeps/hae/study.db --port $PORT",
    "alias prefect='": "alias prefect='PREFECT_API_URL=http://127.0.0.1:$PORT/api ",
}
"""Words of lines: sizes, and addresses; `$PORT` is a free port, which `make server` takes from the environment."""

KEPT_GROUPS = ("tasks", "env", "algo")
"""What an experiment says of these is its own; what it says of others makes it large."""

RUN = "runs/quickstart/seed-0"
"""What `make run` leaves, which the guides take for granted."""

PLACES: dict[str, str] = {
    r"--model DIR": f"--model {RUN}/train/model",
    r"--planner DIR": f"--planner {RUN}/sft/model",
    r"--executor DIR": f"--executor {RUN}/train/model",
    r"--data DIR": f"--data {RUN}/tasks/data",
    r"(experiment=webshop\S* .*)tasks\.data=DIR": r"\1tasks.data=../catalogue",
    r"tasks\.data=DIR": f"tasks.data={RUN}/tasks/data",
    r"--conformance FILE": "--conformance $HIPER_SHARED/conformance/hae_reference.json",
    r"--catalogue DIR --recordings FILE\.\.\.": "--catalogue $HIPER_SHARED/data/webshop --recordings $HIPER_SHARED/conformance/webshop_*",
    r"cancel ID": "cancel $(grep -Eo 'UUID: [0-9a-f-]{36}' ../said.txt | tail -1 | cut -c 7-)",
    r'commit -m "\.\.\."': 'commit --quiet -m "A change"',
}
"""Placeholders of the guides by what stands around them, as a pattern; the first that fits."""

RECORDED = "$HIPER_SHARED"
"""In a line that needs recordings of other projects, which are not carried here."""


def filled(step: Step) -> str:
    """A step's command with sizes made small and placeholders filled in."""
    command = step.command
    for word, smaller in SMALLER.items():
        command = command.replace(word, smaller)
    for pattern, place in PLACES.items():
        command = re.sub(pattern, place, command)
    return command


def copy_checkout(folder: Path) -> Path:
    """This checkout as git would commit it, committed, with an environment that shares this one's packages, and a catalogue beside it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    make_small(folder)
    generate_catalogue(folder.parent / "catalogue", 1000)
    share_packages(folder / ".venv")
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "A checkout"]):
        subprocess.run(["git", *command], cwd=folder, env=environment(folder), check=True)
    return folder


def make_small(folder: Path) -> None:
    """Apply the rule to the files of a checkout."""
    for path in sorted((folder / "conf/experiment").glob("*.yaml")):
        if not path.stem.endswith("smoke"):
            write(path, small_experiment(path.stem, read(path)), "# @package _global_\n")
    for path in sorted((folder / "sweeps").glob("*.yaml")):
        write(path, {**read(path), "trials": 2, "heartbeat": 5})
    for path in sorted((folder / "comparisons").glob("*.yaml")):
        write(path, {**read(path), "seeds": read(path)["seeds"][:1]})


def small_experiment(name: str, large: Mapping[str, Any]) -> dict[str, Any]:
    """The smoke of the same suite, under another name."""
    named = [one for one in large.get("defaults", ()) if isinstance(one, str) and one != "_self_"]
    groups = [
        one for one in large.get("defaults", ()) if isinstance(one, dict) and next(iter(one)).removeprefix("override /") in KEPT_GROUPS
    ]
    smoke = "webshop_smoke" if {"override /env": "webshop"} in groups else "smoke"
    return {"defaults": [*(named or [smoke]), *groups, "_self_"], "name": name}


def read(path: Path) -> dict[str, Any]:
    """A YAML file."""
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def write(path: Path, values: Mapping[str, Any], head: str = "") -> None:
    """A YAML file, in the place of another."""
    path.write_text(head + yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")


def share_packages(place: Path) -> None:
    """A `.venv` that is this environment, and in make's eyes newer than what it is made from."""
    place.mkdir()
    for path in Path(sys.prefix).iterdir():
        if not path.name.startswith("."):
            (place / path.name).symlink_to(path)
    for stamp in (".installed", ".dev"):  # the second is made from the first
        (place / stamp).touch()


def environment(folder: Path) -> dict[str, str]:
    """What a user's shell in that checkout has, with nothing of this user's own."""
    given = {
        key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_API", "HIPER_", "GIT_", "VIRTUAL_ENV", "PYTEST_"))
    }
    return given | {
        "PATH": f"{folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "HIPER_CACHE": str(folder.parent / "cache"),
        "HIPER_SHARED": os.environ.get("HIPER_SHARED", str(ROOT.parent / "shared")),
        "PREFECT_HOME": str(folder.parent / "prefect"),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "dvc-site"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": said for who in ("AUTHOR", "COMMITTER") for what, said in (("NAME", "a"), ("EMAIL", "a@example.org"))},
        "PYTEST_ADDOPTS": "tests/rl/test_gae.py",  # `make test` at smoke size
    }
