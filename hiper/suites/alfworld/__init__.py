"""ALFWorld: our engine, the original behind the same surface, games, experts."""

from hiper.suites.alfworld.game import Game

__all__ = ["Game"]
