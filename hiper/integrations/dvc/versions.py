"""Versioned runs: what the programs `git` and `dvc` know of this checkout. DVC is called as a command, never imported."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hiper.composition.compose import override
from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError, MissingDependencyError
from hiper.evaluation.statistics import wilson
from hiper.runs.plan import stages_of
from hiper.runs.run_dir import save_config
from hiper.runs.stage import STAGES
from hiper.runtime.lock import locked
from hiper.runtime.packages import how_to_install
from hiper.runtime.parent_death import guarded
from hiper.runtime.reading import parse_json, parse_yaml, read_yaml

logger = logging.getLogger(__name__)

PARAMS = "params.yaml"
"""The resolved config that the stages of dvc.yaml run under."""
LOCK = "dvc.lock"


@dataclass(frozen=True)
class ModelVersion:
    """A trained model that a commit's dvc.lock names."""

    commit: str
    date: str
    """Of the commit, ISO 8601."""
    path: str
    md5: str
    """DVC's hash of the train stage's folder."""
    success: Mapping[str, float]
    """Split -> share of tasks won, in [0, 1]; empty: the metrics are neither in DVC's cache nor in the workspace, or damaged."""
    tasks: Mapping[str, int]

    def __str__(self) -> str:
        rates = []
        for split, rate in self.success.items():
            low, high = wilson(round(rate * self.tasks[split]), self.tasks[split])
            rates.append(f"{split} {100 * rate:.1f} % ({100 * low:.1f}-{100 * high:.1f})")
        return f"{self.commit[:9]}  {self.date[:10]}  {self.md5[:8]}  {self.path}  " + (", ".join(rates) or "metrics not pulled")


def models(root: Path) -> list[ModelVersion]:
    """Every trained model in the history of dvc.lock, the newest commit first; each once, at the commit that brought it.

    A commit whose dvc.lock cannot be read is named in a warning and left out.

    Raises:
        ConfigError: `root` is no checkout with DVC.
        MissingDependencyError: the dvc command is missing.
    """
    if not (root / ".dvc").is_dir():
        raise ConfigError(f"{root} is not a checkout with DVC: it has no .dvc/.")
    found = {one.md5: one for one in _history(root)}  # from new to old: the oldest commit of each stays
    shown = _metrics(root) if found else {}
    versions = []
    for one in found.values():
        rates, tasks = _success(_at(shown, one.commit, "data", f"{one.path}/evaluate/metrics.json", "data"))
        versions.append(ModelVersion(one.commit, one.date, f"{one.path}/train/model", one.md5, rates, tasks))
    return versions


def fetch(root: Path, path: str, rev: str, out: Path) -> None:
    """Bring a file or folder that a revision's dvc.lock names, from DVC's cache or remote; `out` is replaced.

    Raises:
        ConfigError: the revision has no such path, or it is nowhere to be had.
        MissingDependencyError: the dvc command is missing.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [dvc_command(), "get", str(root), path, "--rev", rev, "--out", str(out), "--force"]
    environment = dvc_environment()
    ran = subprocess.run(guarded(command), cwd=root, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode != 0:
        reason = " ".join(ran.stderr.split("Having any troubles?")[0].split())[-400:]
        raise ConfigError(f"DVC cannot fetch {path} of revision {rev}: {reason}. If it was not pushed, `dvc push` where it was made.")


def dvc_command() -> str:
    """Path of the dvc command, of this Python's environment if it has one.

    Raises:
        MissingDependencyError: there is none.
    """
    beside = Path(sys.executable).parent / "dvc"
    found = str(beside) if beside.is_file() else shutil.which("dvc")
    if found is None:
        raise MissingDependencyError(f"the command dvc is missing. Run {how_to_install(['dvc'])}.")
    return found


def dvc_environment() -> dict[str, str]:
    """Environment for `dvc`: its stages find the `hiper` of this Python; no usage data is sent."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}


@contextmanager
def versioned_settings(root: Path, cfg: RunConfig) -> Iterator[None]:
    """Inside, DVC's stages run under these settings, and no other process changes them.

    Raises:
        ConfigError: `root` has no dvc.yaml or one of other stages, the run lies elsewhere, or another process runs versioned stages.
    """
    if not (root / "dvc.yaml").is_file():
        raise ConfigError(f"{root} has no dvc.yaml: versioned runs are made from a checkout of this project.")
    run = Path(os.path.relpath(Path(cfg.paths.run).resolve(), root.resolve()))
    if run.parts[0] == os.pardir:
        raise ConfigError(f"paths.run={cfg.paths.run} lies outside {root}: DVC versions what is inside the checkout.")
    listed = [stage for stage in _at(read_yaml(root / "dvc.yaml"), "stages") or () if stage in STAGES]
    if listed != stages_of(cfg):
        raise ConfigError(
            f"{root / 'dvc.yaml'} has the stages {', '.join(listed) or 'none'}, a run with env.name={cfg.env.name} has "
            f"{', '.join(stages_of(cfg))}. Write it for this suite: python -m hiper.integrations.dvc {cfg.env.name}"
        )
    with locked(root / ".dvc" / "tmp" / "hiper"):
        save_config(override(cfg, [f"paths.run={run}"]), root / PARAMS, every=True)
        yield


@dataclass(frozen=True)
class _Entry:
    commit: str
    date: str
    path: str
    """Of the run."""
    md5: str


def _history(root: Path) -> Iterator[_Entry]:
    for line in _git(root, "log", "--format=%H %cI", "--", LOCK).splitlines():
        commit, date = line.split()
        if not _git(root, "ls-tree", commit, "--", LOCK):
            continue  # this commit deleted it
        try:
            found = _trained(parse_yaml(_git(root, "show", f"{commit}:{LOCK}"), LOCK))
        except DataError as error:
            logger.warning("commit %s is left out, its %s is damaged: %s", commit[:9], LOCK, error)
            continue
        if found is not None:
            yield _Entry(commit, date, *found)


def _trained(lock: Any) -> tuple[str, str] | None:
    """The run and the md5 of the model that a dvc.lock names; None: it names none that was evaluated."""
    stages = _at(lock, "stages")
    if not isinstance(stages, dict):
        raise DataError(f"{LOCK} has no stages.")
    if "train" not in stages or "evaluate" not in stages:
        return None
    outs = _at(stages, "train", "outs")
    out = outs[0] if isinstance(outs, list) and outs else None
    path, md5 = _at(out, "path"), _at(out, "md5")
    if not isinstance(path, str) or not isinstance(md5, str):
        raise DataError(f"{LOCK} does not say where the output of stage train lies.")
    return str(Path(path).parent), md5


def _success(metrics: Any) -> tuple[dict[str, float], dict[str, int]]:
    """Split -> share won, and split -> tasks played, where both are what they should be."""
    played, won = _at(metrics, "tasks"), _at(metrics, "trained")
    if not isinstance(played, dict) or not isinstance(won, dict):
        return {}, {}
    tasks = {split: count for split, count in played.items() if isinstance(count, int) and count > 0}
    rates = {split: float(rate) for split, rate in won.items() if split in tasks and isinstance(rate, int | float) and 0 <= rate <= 1}
    return rates, {split: tasks[split] for split in rates}


def _at(value: Any, *keys: str) -> Any:
    """What lies in nested dictionaries under the keys; None: nothing does."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _metrics(root: Path) -> Any:
    """Commit -> "data" -> metrics file -> "data" -> what DVC read of it; None, with a warning: DVC could not say."""
    command = [dvc_command(), "metrics", "show", "--all-commits", "--json"]
    ran = subprocess.run(command, cwd=root, env=dvc_environment(), capture_output=True, text=True, errors="replace", check=False)
    try:
        if ran.returncode == 0:
            return parse_json(ran.stdout, "what it says")
        reason = " ".join(ran.stderr.split())[-400:]
    except DataError as error:
        reason = str(error)
    logger.warning("success is not shown: `dvc metrics show` failed in %s: %s", root, reason)
    return None


def _git(root: Path, *arguments: str) -> str:
    ran = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, errors="replace", check=False)
    if ran.returncode != 0:
        raise ConfigError(f"`git {arguments[0]}` failed in {root}: {ran.stderr.strip()}")
    return ran.stdout
