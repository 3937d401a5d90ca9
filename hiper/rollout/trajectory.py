"""What one episode leaves behind: the record that learner, evaluator, report and viewer all read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from hiper.runtime.files import replacing
from hiper.runtime.reading import parse_json, read_json_lines
from hiper.runtime.records import read_record


class StopReason(StrEnum):
    """Why an episode ended."""

    terminated = "terminated"
    """The task was solved: the environment ended the episode."""
    turn_limit = "turn_limit"
    """Truncated: the turns ran out."""
    token_limit = "token_limit"
    """Truncated: the conversation outgrew the model's context."""


@dataclass
class Levels:
    """One number for each level of the hierarchy."""

    low: float
    high: float
    switch: float


@dataclass
class Turn:
    """One model reply and its environment step."""

    observation: str
    """What the environment said before this reply."""
    reply: str
    """The model's own words, untrusted: escape before showing."""
    switch: bool
    """True where this turn starts a segment (turn 0, or a SWITCH)."""
    subgoal: str
    """The subgoal in force while acting."""
    action: str
    """The command sent to the environment; empty when the reply had none."""
    faults: list[str]
    """What was wrong with the reply (names of `hiper.protocol.Fault`); empty for a valid one."""
    admissible: bool
    """Whether the environment admitted the command."""
    reward: float
    """The environment's reward for this turn."""
    shaped: float
    """The reward the learner saw: scaled, penalties added."""
    tokens: int
    """Tokens in the reply."""
    values: Levels | None = None
    advantages: Levels | None = None
    """Credit, zero where a level has no tokens on this turn."""


@dataclass
class Trajectory:
    """One episode."""

    task_id: str
    """Path of the task file, relative to its data directory."""
    split: str
    task_type: str
    task: str
    """The goal sentence."""
    won: bool
    stop: StopReason
    turns: list[Turn]
    final_observation: str
    score: float | None = None
    """How much of the goal was reached, 0 to 1; None in records from before it was kept."""
    iteration: int | None = None
    """Training iteration; None for an evaluation."""
    digest: str = ""
    """SHA-256 of the task's content; empty where the index does not say it."""
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def segments(self) -> int:
        """Number of segments: runs of turns under one subgoal."""
        return sum(turn.switch for turn in self.turns)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Trajectory:
        """The inverse of `to_json`.

        Raises:
            DataError: the line is not a trajectory.
        """
        return read_record(cls, parse_json(line, "a trajectory"), "not a trajectory")


def write_trajectories(path: Path, trajectories: Iterable[Trajectory]) -> None:
    """Write one JSON line a trajectory, replacing the file in one move; durable when this returns."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for trajectory in trajectories:
            file.write(trajectory.to_json() + "\n")


def read_trajectories(path: Path) -> Iterator[Trajectory]:
    """Trajectories of a JSONL file, in order.

    Raises:
        DataError: the file cannot be read, or a line is not a trajectory; the message names file and line.
    """
    for where, record in read_json_lines(path):
        yield read_record(Trajectory, record, f"{where}: not a trajectory")
