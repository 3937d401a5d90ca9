"""An episode as the page shows it: segments, their turns, and the credit each decision earned."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hiper.report.read import Sample
from hiper.rollout.trajectory import StopReason, Trajectory, Turn

HUES = 8
"""Segment colours on the page, used in turn."""
_TEXT = 4000
"""Characters of one text that are shown."""
_LEAD = 220
"""Characters of an observation shown before the rest is folded."""

STOPS = {
    StopReason.terminated: "the task was solved",
    StopReason.turn_limit: "the turns ran out",
    StopReason.token_limit: "the conversation outgrew the context",
}


@dataclass(frozen=True)
class Bar:
    """One advantage, and the value it was measured against."""

    level: str
    advantage: float
    value: float | None
    width: float
    """Of the half axis, 0..1; the scale is the episode's largest advantage."""


@dataclass(frozen=True)
class TurnView:
    """One turn."""

    number: int
    """From 1."""
    lead: str
    """Start of the observation."""
    rest: str
    """What is folded away; empty for a short one."""
    switch: bool
    action: str
    reply: str | None
    """The raw reply where it was faulty."""
    faults: list[str]
    admissible: bool
    reward: float
    shaped: float
    bars: list[Bar]


@dataclass(frozen=True)
class SegmentView:
    """The turns under one subgoal."""

    number: int
    anchor: str
    hue: int
    subgoal: str
    turns: list[TurnView]
    shaped: float
    """Reward the learner saw over the segment, undiscounted."""
    high: float | None
    """The planner's advantage for choosing this subgoal."""

    @property
    def first(self) -> int:
        """Number of the first turn."""
        return self.turns[0].number

    @property
    def last(self) -> int:
        """Number of the last turn."""
        return self.turns[-1].number


@dataclass(frozen=True)
class EpisodeView:
    """One episode."""

    number: int
    reason: str
    source: str
    trajectory: Trajectory
    end: str
    segments: list[SegmentView]
    total: float
    """Reward the learner saw."""
    credited: bool
    """Whether the record carries advantages."""
    scale: float
    """The largest advantage, which fills the half axis."""
    final: str


def show_episode(sample: Sample, number: int) -> EpisodeView:
    """Arrange a trajectory for the page; `number` makes its anchors unique."""
    trajectory = sample.trajectory
    scale = max((abs(value) for turn in trajectory.turns for value in _advantages(turn).values()), default=0.0)
    groups: list[list[int]] = []
    for index, turn in enumerate(trajectory.turns):
        if turn.switch or not groups:
            groups.append([])
        groups[-1].append(index)
    segments = []
    for count, group in enumerate(groups, 1):
        head = trajectory.turns[group[0]]
        segments.append(
            SegmentView(
                number=count,
                anchor=f"episode-{number}-segment-{count}",
                hue=(count - 1) % HUES,
                subgoal=_cut(head.subgoal) or "no subgoal",
                turns=[_turn(trajectory.turns[index], index + 1, scale) for index in group],
                shaped=sum(trajectory.turns[index].shaped for index in group),
                high=head.advantages.high if head.advantages is not None else None,
            )
        )
    return EpisodeView(
        number=number,
        reason=sample.reason,
        source=sample.source,
        trajectory=trajectory,
        end=STOPS[trajectory.stop],
        segments=segments,
        total=sum(turn.shaped for turn in trajectory.turns),
        credited=any(turn.advantages is not None for turn in trajectory.turns),
        scale=scale,
        final=_cut(trajectory.final_observation),
    )


def _turn(turn: Turn, number: int, scale: float) -> TurnView:
    text = re.sub(r"\n{2,}", "\n", _cut(turn.observation).strip())
    lead, rest = text, ""
    if len(text) > _LEAD:
        cut = text.rfind(" ", 0, _LEAD)
        cut = _LEAD if cut < _LEAD // 2 else cut
        lead, rest = text[:cut], text[cut:]
    bars = [
        Bar(level, advantage, getattr(turn.values, level) if turn.values is not None else None, abs(advantage) / scale if scale else 0.0)
        for level, advantage in _advantages(turn).items()
        if level != "high" or turn.switch  # the planner decides at a segment's start only
    ]
    return TurnView(
        number=number,
        lead=lead,
        rest=rest,
        switch=turn.switch,
        action=_cut(turn.action),
        reply=_cut(turn.reply) if turn.faults else None,
        faults=turn.faults,
        admissible=turn.admissible,
        reward=turn.reward,
        shaped=turn.shaped,
        bars=bars,
    )


def _advantages(turn: Turn) -> dict[str, float]:
    found = turn.advantages
    return {} if found is None else {"switch": found.switch, "high": found.high, "low": found.low}


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} \u2026 ({len(text) - _TEXT} more characters)"
