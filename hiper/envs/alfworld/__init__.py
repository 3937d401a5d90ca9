"""ALFWorld: our engine, the original behind the same surface, games, experts."""

from hiper.envs.alfworld.game import Game

__all__ = ["Game"]
