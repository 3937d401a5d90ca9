"""ALFWorld as a suite: see `hiper.suites.suite`."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hiper.config import RunConfig, Source, TasksConfig
from hiper.errors import ConfigError
from hiper.runtime.packages import INSTALL_ALFWORLD, how_to_install
from hiper.runtime.progress import Progress
from hiper.suites.alfworld.expert import Expert
from hiper.suites.alfworld.game import Game
from hiper.suites.alfworld.games import game_digest, index_games
from hiper.suites.alfworld.prior import LocationPrior
from hiper.suites.alfworld.scatter import scatter
from hiper.suites.alfworld.settings import SPLITS, TASK_TYPES, TRAIN, ALFWorldConfig, Engine
from hiper.suites.alfworld.world import World
from hiper.suites.base import TextEnv
from hiper.suites.suite import MakeEnv, OwnSettings, Suite, Wording
from hiper.suites.tasks import Task, TaskIndex


class ALFWorld(Suite):
    """Household games from files."""

    scene = "You act in a household, in text."
    wording = Wording("game", "games", lapses="the use of appliances and lamps")
    splits: tuple[str, ...] = SPLITS
    task_types: tuple[str, ...] = TASK_TYPES
    own: OwnSettings = OwnSettings(demos=("fresh", "renumber", "scatter", "detours"), text=("engine",))

    def source(self, cfg: RunConfig) -> Mapping[str, Any]:
        """Where official games lie."""
        if cfg.tasks.source is not Source.official:
            return {}
        # `alfworld` sets the variable to its default when it is imported: unset and that default are the same place
        return {"data": cfg.tasks.data or os.environ.get("ALFWORLD_DATA") or str(Path("~/.cache/alfworld").expanduser())}

    def packages(self, cfg: RunConfig, stages: Sequence[str]) -> Iterator[tuple[Sequence[str], str, str]]:
        """`alfworld` for its floor plans, and TextWorld where that plays."""
        own = cfg.own(ALFWorldConfig)
        if cfg.tasks.source is Source.generated and ("tasks" in stages or ("demos" in stages and own.fresh)):
            yield ("alfworld",), "tasks.source=generated", f"`{INSTALL_ALFWORLD}`"
        if own.engine is Engine.textworld and ("train" in stages or "evaluate" in stages):
            original = ("alfworld", "textworld", "fast_downward")
            yield original, "alfworld.engine=textworld", f"{how_to_install(original)}, or set alfworld.engine=native"

    def check(self, cfg: RunConfig) -> None:
        """Fresh games can only be generated ones, and have nothing to lay out anew."""
        own = cfg.own(ALFWorldConfig)
        if own.fresh and cfg.tasks.source is not Source.generated:
            raise ConfigError(
                f"alfworld.fresh=true needs tasks.source=generated, got {cfg.tasks.source.value}: official games cannot be made anew."
            )
        if own.fresh and own.scatter:
            raise ConfigError(
                f"alfworld.scatter={own.scatter} is for games played again; with alfworld.fresh=true all are new. Set one of them."
            )

    def judged_by(self, cfg: RunConfig) -> Mapping[str, str]:
        """Which engine played."""
        return {"engine": cfg.own(ALFWorldConfig).engine.value}

    def data(self, folder: Path, cfg: RunConfig, progress: Progress | None = None) -> Path:
        """Generated games, or the released ones."""
        if cfg.tasks.source is Source.official:
            from hiper.suites.alfworld.official import official_data

            return official_data(cfg.tasks.data)
        from hiper.suites.alfworld.generate import generate_games

        return generate_games(folder, cfg.own(ALFWorldConfig), cfg.tasks.seed, progress)

    def index(self, root: Path, cfg: RunConfig, splits: Sequence[str] | None = None) -> TaskIndex:
        """Games in the official layout."""
        return index_games(root, splits, cfg.own(ALFWorldConfig).task_types, cfg.tasks.limit)

    def digest(self, cfg: RunConfig, path: Path) -> str:
        """Of the game file without the name of its problem, which says when it was made and decides nothing."""
        return game_digest(path)

    def make_env(self, cfg: RunConfig, path: Path, rng: random.Random | None = None) -> TextEnv:
        """A game on the engine the config names; `rng` renumbers objects and receptacles (native engine only)."""
        if cfg.own(ALFWorldConfig).engine is Engine.textworld:
            from hiper.suites.alfworld.textworld import TextWorldGame

            return TextWorldGame.load(path)
        return Game.load(path, rng)

    def expert(self, index: TaskIndex, cfg: RunConfig, rng: random.Random) -> Expert:
        """One that knows where things usually lie."""
        return Expert(LocationPrior.learn(index), detours=cfg.own(ALFWorldConfig).detours, rng=rng)

    def training_tasks(self, index: TaskIndex, cfg: RunConfig, rng: random.Random) -> Iterator[tuple[Task, MakeEnv]]:
        """The index's games, again and again, from the second time on with new numbers if `alfworld.renumber`, with their things laid out
        anew if `alfworld.scatter`. With `alfworld.fresh` each is generated in memory in the training rooms, and never written.
        """
        self.check(cfg)
        own = cfg.own(ALFWorldConfig)
        return _fresh(cfg) if own.fresh else _cycle(index, rng, own)

    def whole(self, cfg: RunConfig) -> RunConfig:
        """All task types, without a limit."""
        return replace(cfg, tasks=TasksConfig(), suite=replace(cfg.own(ALFWorldConfig), task_types=list(TASK_TYPES)))

    def small(self, cfg: RunConfig, train: int, held_out: int) -> RunConfig:
        """Splits of the sizes given."""
        return replace(cfg, suite=replace(cfg.own(ALFWorldConfig), train=train, valid_seen=held_out, valid_unseen=held_out))


def _cycle(index: TaskIndex, order: random.Random, own: ALFWorldConfig) -> Iterator[tuple[Task, MakeEnv]]:
    entries = index.split(TRAIN)
    prior = LocationPrior.learn(index) if own.scatter else None
    again = False
    while True:
        for entry in order.sample(entries, len(entries)):
            yield entry, partial(_again, index.resolve(entry), prior, own.scatter, again and own.renumber)
        again = True


def _again(path: Path, prior: LocationPrior | None, share: float, renumber: bool, rng: random.Random) -> TextEnv:
    """A game of the index, perhaps with new numbers, and with this probability with its things laid out anew."""
    names = rng if renumber else None
    moved: Game | None = None
    if prior is not None and rng.random() < share:
        moved = Game(World.load(path, partial(scatter, prior=prior, rng=rng)), names)
    return Game.load(path, names) if moved is None or moved.won else moved


def _fresh(cfg: RunConfig) -> Iterator[tuple[Task, MakeEnv]]:
    own = cfg.own(ALFWorldConfig)
    for number in itertools.count():
        name = f"{TRAIN}_demo_{cfg.demos.seed}_{number:06d}"
        task_type = own.task_types[number % len(own.task_types)]
        yield Task(name, TRAIN, task_type), partial(_new, name, task_type, f"{cfg.tasks.seed}/{name}", own)


def _new(name: str, task_type: str, seed: str, own: ALFWorldConfig, rng: random.Random) -> TextEnv:
    """A game of its own seed, whatever was made before."""
    from hiper.suites.alfworld.generate import make_game

    return Game(World.from_data(make_game(name, TRAIN, task_type, random.Random(seed), own).record, Path(name)))
