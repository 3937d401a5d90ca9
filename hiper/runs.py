"""A run is a directory: what was asked (config, versions, git state) and one folder a stage.

    RUN/config.yaml        the resolved config that was asked for last
    RUN/environment.json   versions, git state, machine, command line
    RUN/<stage>/           what the stage made, with its stage.json
    RUN/<stage>.partial/   the stage while it works

A stage works in its `.partial` folder, which takes the place of the finished one in a single move: a stage that fails, is
interrupted or is killed leaves what was finished before as it was. `stage.json` carries a fingerprint of the settings the stage
depends on, its upstream stages included, so that a finished stage is known to be the one that is asked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hiper import __version__
from hiper.compose import build
from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError
from hiper.files import write_text

logger = logging.getLogger(__name__)

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
STAGE = "stage.json"
TIMES = "times.json"
BEGUN = "begun.json"
VOLATILE = (STAGE, TIMES, CONFIG, ENVIRONMENT, BEGUN, "timings.jsonl", "checkpoints", "wandb", "wandb-id.txt")
"""Files and folders of a stage that no later stage reads: its digest leaves them out."""
PACKAGES = ("torch", "transformers", "tokenizers", "trl", "numpy", "alfworld", "textworld", "prefect", "hydra-core", "omegaconf")
"""Packages whose versions a run records."""

Fact = str | int | float | bool | None
"""What a stage reports about itself: JSON scalars."""


@dataclass(frozen=True)
class StageRecord:
    """`stage.json`: a finished stage."""

    stage: str
    fingerprint: str
    facts: dict[str, Fact]
    sources: dict[str, str]
    """Upstream stage -> digest of the files that were read: one that comes out differently leaves those after it out of date."""
    digest: str
    """SHA-256 of the stage's files, `VOLATILE` ones left out."""


def save_config(config: RunConfig, path: Path) -> None:
    """Write every setting, resolved, as YAML that `load_config` reads back."""
    write_text(path, shown_config(config))


def shown_config(config: RunConfig) -> str:
    """Every setting, resolved, as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def load_config(path: Path) -> RunConfig:
    """Read a saved config; needs neither `conf/` nor Hydra.

    Args:
        path: a file written by `save_config`, or a run directory that holds one.

    Raises:
        ConfigError: no such file, not YAML, or settings this version does not have.
    """
    file = path / CONFIG if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(
            f"{path} holds no {CONFIG}: it is not a run. Name the directory that `hiper run` printed, such as runs/quickstart/seed-0."
        )
    try:
        node = OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(file))
    except (OmegaConfBaseException, ValueError, OSError) as error:
        raise ConfigError(f"{file} is not a config of hiper {__version__}: {' '.join(str(error).split())}") from error
    except Exception as error:  # the YAML reader's own errors, whose package is not a dependency of ours
        if not type(error).__module__.startswith("yaml"):
            raise
        raise ConfigError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    return build(node)  # type: ignore[arg-type]  # merging a structured DictConfig gives a DictConfig


def config_beside(model: Path) -> RunConfig | None:
    """The config a stage saved beside its model; how it words prompts is part of what the model knows. None: there is none."""
    for folder in (model, model.resolve().parent):
        if (folder / CONFIG).is_file():
            logger.info("protocol and limits from %s; overrides go on top", folder / CONFIG)
            return load_config(folder / CONFIG)
    logger.info("no %s beside %s: protocol and limits are the defaults, plus overrides", CONFIG, model)
    return None


def begin_run(config: RunConfig) -> Path:
    """Make the run's directory and write down what is asked of it and where; the directory.

    Raises:
        ConfigError: the directory cannot be made.
    """
    run = Path(config.paths.run)
    _make(run)
    save_config(config, run / CONFIG)
    write_text(run / ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")
    return run


def environment() -> dict[str, Any]:
    """Versions, git state, machine and command line of this process."""
    versions: dict[str, str | None] = {"hiper": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "time": _now(),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
        "git": git_state(Path(__file__).resolve().parent.parent),
    }


def git_state(root: Path) -> dict[str, str | bool] | None:
    """Commit and whether tracked files differ from it; None where `root` is no checkout or git is missing."""
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=20).stdout.strip()

    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def fingerprint(parts: Mapping[str, Any]) -> str:
    """A short hash of JSON-able settings; equal settings, equal hash."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_times(run: Path, stage: str) -> dict[str, Any]:
    """`seconds` a finished stage took and when it was `finished` (UTC, ISO 8601); empty in a run that came from another machine."""
    try:
        times = json.loads((run / stage / TIMES).read_text(encoding="utf-8"))
        return {"seconds": float(times["seconds"]), "finished": str(times["finished"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def read_commit(run: Path) -> str | None:
    """Commit of this project that last worked in a run, and whether with changes; None where that is not known."""
    try:
        git = json.loads((run / ENVIRONMENT).read_text(encoding="utf-8"))["git"]
        return f"{str(git['commit'])[:12]}{' with uncommitted changes' if git['dirty'] else ''}"
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest(folder: Path) -> str:
    """SHA-256 of a folder's files and their names, `VOLATILE` ones left out."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts):
        name = path.relative_to(folder)
        if path.is_file() and not any(part in VOLATILE for part in name.parts):
            with path.open("rb") as file:
                whole.update(f"{name.as_posix()}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()


def read_stage(run: Path, stage: str) -> StageRecord | None:
    """The record of a finished stage; None where it has not finished.

    Raises:
        DataError: `stage.json` is damaged.
    """
    _recover(run, stage)
    file = run / stage / STAGE
    if not file.is_file():
        return None
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if "finished" in known:  # of a version that knew a stage's files by the time they were finished
            known = {"digest": known["finished"]} | {name: value for name, value in known.items() if name not in ("finished", "seconds")}
        return StageRecord(**known)
    except (ValueError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error}). Delete {file.parent} to have the stage done again.") from error


def begun_stage(run: Path, stage: str) -> dict[str, Any] | None:
    """Fingerprint and sources of a stage that was begun and not finished; None where there is none, or its mark is unreadable."""
    try:
        recorded = json.loads((run / f"{stage}.partial" / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return recorded if isinstance(recorded, dict) else None


@dataclass
class StageFolder:
    """Where a stage works."""

    path: Path
    """The `.partial` folder."""
    resumed: bool
    """Whether it holds earlier work under the same settings."""
    facts: dict[str, Fact]
    """To be filled by the stage; they go into its record."""


@contextlib.contextmanager
def stage_folder(
    run: Path, stage: str, fingerprint: str, sources: Mapping[str, str] | None = None, *, resumable: bool = False
) -> Iterator[StageFolder]:
    """A folder to work in, which becomes `RUN/<stage>` when the block ends well.

    Args:
        run: the run's directory.
        stage: the stage's name.
        fingerprint: of the settings it works under.
        sources: upstream stage -> digest of its files.
        resumable: keep the partial folder when the block fails, and continue in it next time if the settings are the same.
    """
    _recover(run, stage)
    partial = run / f"{stage}.partial"
    begun: dict[str, Any] = {"fingerprint": fingerprint, "sources": dict(sources or {})}
    resumed = resumable and begun_stage(run, stage) == begun
    if not resumed:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_text(partial / BEGUN, json.dumps(begun) + "\n")
    folder = StageFolder(partial, resumed, {})
    started = time.monotonic()
    try:
        yield folder
        record = StageRecord(stage, fingerprint, folder.facts, begun["sources"], digest(partial))
        times = {"seconds": round(time.monotonic() - started, 3), "finished": _now()}
        write_text(partial / TIMES, json.dumps(times) + "\n")
        write_text(partial / STAGE, json.dumps(asdict(record), indent=2) + "\n")
    except BaseException:
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        raise
    (partial / BEGUN).unlink()
    _swap(run, stage)


@contextlib.contextmanager
def locked(run: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the run's directory against other processes; the lock goes with the process, however that ends.

    Args:
        run: the run's directory.
        wait: until the other process is done with it, instead of giving up.

    Raises:
        ConfigError: another process works in it, or it cannot be made.
    """
    _make(run)
    with (run / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise ConfigError(f"another process works in {run}. Wait for it, or name another directory with paths.run=...") from error
        yield


def _make(run: Path) -> None:
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{str(run)!r} is a file; it must name a directory. Name another with paths.run=...")
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the directory {str(run)!r} ({error.strerror}). Name another with paths.run=...") from error


def _replaced(run: Path, stage: str) -> Path:
    return run / f".{stage}.replaced"


def _swap(run: Path, stage: str) -> None:
    final, replaced = run / stage, _replaced(run, stage)
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    (run / f"{stage}.partial").rename(final)
    shutil.rmtree(replaced, ignore_errors=True)


def _recover(run: Path, stage: str) -> None:
    """Finish or take back a swap during which the process was killed."""
    final, replaced, partial = run / stage, _replaced(run, stage), run / f"{stage}.partial"
    if (partial / STAGE).is_file() and not (partial / BEGUN).exists():
        _swap(run, stage)
    elif replaced.exists() and not final.exists():
        replaced.rename(final)
    elif replaced.exists():
        shutil.rmtree(replaced, ignore_errors=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
