"""Environments behind one surface, see `hiper.envs.base`."""

from __future__ import annotations

import random
from pathlib import Path

from hiper.config import Engine, EnvConfig
from hiper.envs.base import StepResult, TextEnv

__all__ = ["StepResult", "TextEnv", "make_env"]


def make_env(cfg: EnvConfig, path: Path, rng: random.Random | None = None) -> TextEnv:
    """An environment for one game file, played by the engine the config names.

    Args:
        cfg: which engine.
        path: the game file.
        rng: renumbers objects and receptacles (native engine only); None keeps the game's own names.
    """
    if cfg.engine is Engine.textworld:
        from hiper.envs.alfworld.textworld import TextWorldGame

        return TextWorldGame.load(path)
    from hiper.envs.alfworld import Game

    return Game.load(path, rng)
