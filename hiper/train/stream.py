"""The order in which training tasks are played, as part of the run's state."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from hiper.errors import CheckpointError
from hiper.suites.tasks import Task


class TaskStream:
    """Endless passes over the tasks, each in a fresh order."""

    def __init__(self, entries: Sequence[Task], seed: int) -> None:
        self._entries = list(entries)
        self._rng = random.Random(f"tasks-{seed}")
        self._order: list[int] = []
        self._position = 0

    def draw(self, count: int, repeat: int = 1) -> list[Task]:
        """The next `count / repeat` tasks, each `repeat` times in a row."""
        drawn = []
        for _ in range(count // repeat):
            if self._position == len(self._order):
                self._order = self._rng.sample(range(len(self._entries)), len(self._entries))
                self._position = 0
            drawn += [self._entries[self._order[self._position]]] * repeat
            self._position += 1
        return drawn

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as JSON."""
        version, internal, gauss = self._rng.getstate()
        return {"rng": [version, list(internal), gauss], "order": self._order, "position": self._position, "tasks": len(self._entries)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            CheckpointError: the stream was over another number of tasks.
        """
        if state["tasks"] != len(self._entries):
            raise CheckpointError(
                f"the checkpoint was training on {state['tasks']} tasks, but the index now has {len(self._entries)}. "
                "Restore the tasks the run began with, or start a new run."
            )
        version, internal, gauss = state["rng"]
        self._rng.setstate((version, tuple(internal), gauss))
        self._order, self._position = list(state["order"]), state["position"]
