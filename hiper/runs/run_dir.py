"""A run is a directory: what was asked (config, versions, git state) and one folder a stage (`hiper.runs.stage_folder`).

RUN/config.yaml        the resolved config that was asked for last
RUN/environment.json   versions, git state, machine, command line
RUN/<stage>/           what the stage made
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hiper import __version__
from hiper.composition.compose import build, schema_of
from hiper.composition.sections import as_node
from hiper.config import RunConfig
from hiper.errors import ConfigError, DataError
from hiper.runs.stage_folder import CONFIG, ENVIRONMENT, now
from hiper.runtime.files import write_json, write_text
from hiper.runtime.lock import make_directory
from hiper.runtime.reading import read_json_object, read_yaml

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "tokenizers", "trl", "numpy", "alfworld", "textworld", "prefect", "hydra-core", "omegaconf")
"""Packages whose versions a run records."""


def save_config(config: RunConfig, path: Path, *, every: bool = False) -> None:
    """Write a config, resolved, as YAML that `load_config` reads back.

    Args:
        config: the config.
        path: the file, replaced in one move.
        every: with the sections of all suites, as DVC needs them, which watches them all; without, it can be read where other suites are
            not installed.
    """
    write_text(path, shown_config(config, every=every))


def shown_config(config: RunConfig, *, every: bool = False) -> str:
    """Every setting, resolved, as YAML; `every` as in `save_config`."""
    return OmegaConf.to_yaml(as_node(config, every=every), resolve=True)


def load_config(path: Path) -> RunConfig:
    """Read a saved config; needs neither `conf/` nor Hydra.

    Args:
        path: a file written by `save_config`, or a run directory that holds one.

    Raises:
        ConfigError: no such file, not YAML, or settings this version does not have.
    """
    file = path / CONFIG if path.is_dir() else path
    if not file.exists():
        raise ConfigError(
            f"{path} holds no {CONFIG}: it is not a run. Name the directory that `hiper run` printed, such as runs/quickstart/seed-0."
        )
    try:
        settings = read_yaml(file)
        node = OmegaConf.merge(schema_of(settings), OmegaConf.create(settings))
        return build(node)  # type: ignore[arg-type]  # merging a structured DictConfig gives a DictConfig
    except DataError as error:
        raise ConfigError(f"{error} It should hold the settings of a run, as `hiper config` writes them.") from error
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        problem = str(error) if isinstance(error, ConfigError) else " ".join(str(error).split())
        raise ConfigError(
            f"{file} is not a config of hiper {__version__}: {problem.rstrip('.')}. "
            f"If another version wrote it, use that one: {ENVIRONMENT} in its run names the commit."
        ) from error


def config_beside(model: Path) -> RunConfig | None:
    """The config a stage saved beside its model; how it words prompts is part of what the model knows. None: there is none.

    Raises:
        ConfigError: this version cannot read it.
    """
    for folder in (model, model.resolve().parent):
        if (folder / CONFIG).is_file():
            try:
                config = load_config(folder / CONFIG)
            except ConfigError as error:
                raise ConfigError(
                    f"{error} To use the model with this version, copy {model} out of the run and give its settings as overrides."
                ) from error
            logger.info("protocol and limits from %s; overrides go on top", folder / CONFIG)
            return config
    logger.info("no %s beside %s: protocol and limits are the defaults, plus overrides", CONFIG, model)
    return None


def begin_run(config: RunConfig) -> Path:
    """Make the run's directory and write down what is asked of it and where; the directory.

    Raises:
        ConfigError: the directory cannot be made.
    """
    run = Path(config.paths.run)
    make_directory(run)
    save_config(config, run / CONFIG)
    write_json(run / ENVIRONMENT, environment())
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
        "time": now(),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": versions,
        "git": git_state(Path(__file__).resolve().parents[2]),
    }


def git_state(root: Path) -> dict[str, str | bool] | None:
    """Commit and whether tracked files differ from it; None where `root` is no checkout or git is missing."""
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=20).stdout.strip()

    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


def read_commit(run: Path) -> str | None:
    """Commit of this project that last worked in a run, and whether with changes; None where that is not known."""
    try:
        git = read_json_object(run / ENVIRONMENT)["git"]
        return f"{str(git['commit'])[:12]}{' with uncommitted changes' if git['dirty'] else ''}"
    except (DataError, KeyError, TypeError):
        return None
