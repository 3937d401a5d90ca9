"""The original engine, the `alfworld` package on TextWorld, behind our surface (`alfworld.engine=textworld`).

It is the reference our engine is measured against, and plays files for domains and grammars that ours refuses. It is hundreds
of times slower.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from hiper.errors import DataError, TaskError
from hiper.runtime.packages import missing
from hiper.runtime.reading import read_bytes
from hiper.suites.alfworld.grammar import split_task
from hiper.suites.alfworld.world import TASK_LEAD_IN, read_game_file
from hiper.suites.base import StepResult


@contextmanager
def _arguments_kept() -> Iterator[None]:
    """The planner's translator overwrites `sys.argv`; put it back."""
    kept = sys.argv
    try:
        yield
    finally:
        sys.argv = kept


class TextWorldGame:
    """One episode at a time of one game file, played by the `alfworld` package; a `hiper.suites.base.TextEnv`."""

    def __init__(self, path: str | Path) -> None:
        """Prepare a game, wrapped exactly as `alfworld.agents.environment.AlfredTWEnv` wraps it, without a limit on steps.

        Raises:
            MissingDependencyError: `alfworld` or its planner is not installed.
            TaskError: the file is missing or damaged.
        """
        try:
            with _arguments_kept():
                import textworld
                from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
                from textworld.gym.envs import TextworldGymEnv
        except ImportError as error:
            raise missing("alfworld.engine=textworld", "textworld", error, "use alfworld.engine=native") from error
        self.path = Path(path)
        data = read_game_file(self.path)
        self._digest = hashlib.sha256(read_bytes(self.path)).hexdigest()[:32]
        self._task = split_task(data["grammar"])[1].removeprefix(TASK_LEAD_IN).strip()
        self._env: Any = TextworldGymEnv(
            gamefiles=[str(self.path)],
            request_infos=textworld.EnvInfos(won=True, admissible_commands=True, extras=["gamefile"]),
            batch_size=1,
            asynchronous=False,
            wrappers=[AlfredDemangler(shuffle=False), AlfredInfos],
        )
        self._infos: dict[str, Any] | None = None
        self._history: list[str] = []

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """A game on the file `path`; errors as the constructor's. Unlike our engine it cannot deal numbers anew."""
        return cls(path)

    @property
    def task(self) -> str:
        """The goal sentence without its lead-in."""
        return self._task

    @property
    def admissible_commands(self) -> list[str]:
        """Commands that do something now, in the package's order."""
        return list(self._now()["admissible_commands"])

    @property
    def won(self) -> bool:
        """Whether the goal holds."""
        return bool(self._now()["won"])

    @property
    def score(self) -> float:
        """1 once the goal holds; nothing counts before."""
        return float(self.won)

    def reset(self) -> str:
        """Start the episode again; the intro.

        Raises:
            TaskError: the package cannot read the file.
        """
        try:
            with _arguments_kept():
                observation, self._infos = self._env.reset()
        except (Exception, SystemExit) as error:  # the translator has no error type of its own, and exits on bad PDDL
            raise TaskError(f"{self.path}: the alfworld package cannot load it ({type(error).__name__}: {error})") from error
        self._history.clear()
        return str(observation)

    def step(self, command: str) -> StepResult:
        """Play one command. Steps after the end return the last result again."""
        self._now()
        observation, score, done, self._infos = self._env.step(command)
        self._history.append(command)
        return StepResult(str(observation), float(score), bool(done))

    def state(self) -> dict[str, Any]:
        """The commands so far: the package cannot save, so `restore` plays them again."""
        return {"game": self._digest, "commands": list(self._history)}

    def restore(self, state: Any) -> None:
        """Continue from a `state()` of the same file, by playing its commands again.

        Raises:
            DataError: the state is of another game, or damaged.
        """
        commands = state.get("commands") if isinstance(state, dict) else None
        if not isinstance(commands, list) or not all(isinstance(command, str) for command in commands):
            raise DataError(f"not the state of a TextWorldGame: {str(state)[:80]!r}; pass back what TextWorldGame.state() returned")
        if state.get("game") != self._digest:
            raise DataError(
                f"the state is of the game {state.get('game')!r}, {self.path} is {self._digest!r}; load the file it was taken from"
            )
        self.reset()
        for command in commands:
            self.step(command)

    def close(self) -> None:
        """Let go of the planner's library."""
        self._env.close()

    def _now(self) -> dict[str, Any]:
        if self._infos is None:
            self.reset()
        assert self._infos is not None
        return self._infos
