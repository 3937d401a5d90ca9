"""Where the YAML files of settings lie: those of this package, and a user's own beside them."""

from __future__ import annotations

import os
from pathlib import Path

from hiper.errors import ConfigError

OWN = "conf"
"""Folder in the working directory that is searched for experiments and other groups beside ours."""


def config_dir() -> Path:
    """The directory every composition starts from: $HIPER_CONF, the checkout's `conf/`, or the copy inside an installed package.

    Raises:
        ConfigError: none of them exists.
    """
    package = Path(__file__).resolve().parents[1]
    chosen = os.environ.get("HIPER_CONF")
    candidates = [Path(chosen)] if chosen else [package.parent / "conf", package / "conf"]
    for candidate in candidates:
        if (candidate / "config.yaml").is_file():
            return candidate.resolve()
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise ConfigError(
        f"no config.yaml in {looked}. Install with `pip install -e .` from a checkout, or set HIPER_CONF to its conf/ folder."
    )


def config_dirs() -> tuple[Path, ...]:
    """Where groups are looked for, the first wins: `config_dir`, and `conf/` in the working directory. $HIPER_CONF stands for both."""
    own = Path(OWN).resolve()
    return tuple(dict.fromkeys([config_dir(), *([own] if own.is_dir() and not os.environ.get("HIPER_CONF") else [])]))


def own_config_dir() -> Path:
    """Where new files are written: never into an installed package."""
    return config_dir() if os.environ.get("HIPER_CONF") else Path(OWN).resolve()


def is_group(key: str) -> bool:
    """Whether a key chooses a file: a folder of that name lies in one of the directories."""
    return bool(key) and any((directory / key).is_dir() for directory in config_dirs())
