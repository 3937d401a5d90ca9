"""What a set of episodes says: counts, success with its interval, lengths, validity and the shape of the hierarchy.

Every mean over episodes weighs each episode once, whatever its length; rates over turns say so in their name or here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hiper.rollout.trajectory import StopReason, Trajectory

Z95 = 1.959964
"""Normal quantile of a two-sided 95 % interval."""

KEYS = (
    "tasks",
    "successes",
    "success_rate",
    "wilson_low",
    "wilson_high",
    "score_mean",
    "turns_mean",
    "turns_median",
    "turns_won_mean",
    "turns_won_median",
    "return_mean",
    "truncated",
    "stops",
    "valid_rate",
    "inadmissible_rate",
    "switch_rate",
    "segments_mean",
    "segment_turns_mean",
    "reply_tokens_mean",
)
"""What is said of every set of episodes; `summarise` explains each."""


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a proportion; honest at 0 and 1 and for few tasks.

        centre = (p + z^2 / 2n) / (1 + z^2 / n)
        half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)

    Args:
        successes: of `n` independent trials.
        n: at least 1.
        z: normal quantile; the default gives 95 %.

    Returns:
        Lower and upper bound, within [0, 1].

    Raises:
        ValueError: no trials, or successes outside 0..n.

    Source: Wilson 1927, JASA 22(158).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1; got successes={successes}, n={n}.")
    p = successes / n
    scale = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At the ends the two terms cancel exactly; rounding must not leave 1e-17 where 0 belongs.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def fell(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Probability of a fall at least this large between two proportions, were the two the same: a one-sided pooled z test.

        p = (s1 + s2) / (n1 + n2)
        z = (s2/n2 - s1/n1) / sqrt(p (1 - p) (1/n1 + 1/n2))

    Args:
        before, after: (successes, trials).

    Returns:
        The lower tail of the normal distribution at z; 1 where both proportions are 0, or both are 1.

    Raises:
        ValueError: no trials, or successes outside 0..n.
    """
    for successes, n in (before, after):
        if n < 1 or not 0 <= successes <= n:
            raise ValueError(f"two proportions need 0 <= successes <= n and n >= 1; got successes={successes}, n={n}.")
    (s1, n1), (s2, n2) = before, after
    p = (s1 + s2) / (n1 + n2)
    if p in (0.0, 1.0):
        return 1.0
    z = (s2 / n2 - s1 / n1) / math.sqrt(p * (1 - p) * (1 / n1 + 1 / n2))
    return statistics.NormalDist().cdf(z)


def summarise(trajectories: Iterable[Trajectory], splits: Sequence[str] = (), task_types: Sequence[str] = ()) -> dict[str, Any]:
    """Statistics over all episodes, by split, and by task type within each split.

    Args:
        trajectories: the episodes.
        splits: splits in their order; others come after them by name.
        task_types: task types, likewise.

    Returns:
        Statistics S under `overall`; under `splits`, for each split, its S with `macro_success_rate` and, in `task_types`, an S for each
        type. S holds

        * `tasks`, `successes`, `success_rate` (micro: each task counts once), `wilson_low`, `wilson_high` (95 %);
        * `score_mean`: how much of the goal was reached, 0 to 1, in the mean; the success rate where nothing counts but that;
        * `turns_mean`, `turns_median`, of all episodes, and `turns_won_mean`, `turns_won_median`, of won ones;
        * `return_mean`: the environment's reward summed over an episode;
        * `stops`: episodes by `StopReason`; `truncated`: those not terminated;
        * `valid_rate`: replies without a fault / replies; `inadmissible_rate`: commands the environment did not admit / turns;
        * `switch_rate`: SWITCH turns / turns, first turns left out because their switch is forced;
        * `segments_mean`: segments an episode; `segment_turns_mean`: turns / segments;
        * `reply_tokens_mean`: tokens / replies.

        `macro_success_rate` is the mean of the task types' success rates. What cannot be computed (turns of won episodes where
        none was won) is None.

    Raises:
        ValueError: no trajectories.
    """
    episodes = list(trajectories)
    if not episodes:
        raise ValueError("there are no trajectories to summarise.")
    found: dict[str, Any] = {}
    for split, of_split in _grouped(episodes, lambda episode: episode.split, splits).items():
        by_type = {name: _statistics(group) for name, group in _grouped(of_split, lambda episode: episode.task_type, task_types).items()}
        macro = statistics.fmean(entry["success_rate"] for entry in by_type.values())
        found[split] = {**_statistics(of_split), "macro_success_rate": macro, "task_types": by_type}
    return {"overall": _statistics(episodes), "splits": found}


def _grouped(episodes: Sequence[Trajectory], key: Callable[[Trajectory], str], order: Sequence[str]) -> dict[str, list[Trajectory]]:
    """Groups in the given order, others after them by name."""
    groups: dict[str, list[Trajectory]] = {}
    for episode in episodes:
        groups.setdefault(key(episode), []).append(episode)
    names = [name for name in order if name in groups] + sorted(groups.keys() - set(order))
    return {name: groups[name] for name in names}


def _statistics(episodes: Sequence[Trajectory]) -> dict[str, Any]:
    n = len(episodes)
    successes = sum(episode.won for episode in episodes)
    low, high = wilson(successes, n)
    lengths = [len(episode.turns) for episode in episodes]
    won = [len(episode.turns) for episode in episodes if episode.won]
    stops = {reason.value: sum(episode.stop is reason for episode in episodes) for reason in StopReason}
    turns = [turn for episode in episodes for turn in episode.turns]
    later = [turn for episode in episodes for turn in episode.turns[1:]]
    segments = sum(episode.segments for episode in episodes)
    return {
        "tasks": n,
        "successes": successes,
        "success_rate": successes / n,
        "wilson_low": low,
        "wilson_high": high,
        "score_mean": statistics.fmean(float(episode.won) if episode.score is None else episode.score for episode in episodes),
        "turns_mean": statistics.fmean(lengths),
        "turns_median": statistics.median(lengths),
        "turns_won_mean": statistics.fmean(won) if won else None,
        "turns_won_median": statistics.median(won) if won else None,
        "return_mean": math.fsum(turn.reward for turn in turns) / n,
        "truncated": n - stops[StopReason.terminated.value],
        "stops": stops,
        "valid_rate": _ratio(sum(not turn.faults for turn in turns), len(turns)),
        "inadmissible_rate": _ratio(sum(not turn.admissible for turn in turns), len(turns)),
        "switch_rate": _ratio(sum(turn.switch for turn in later), len(later)),
        "segments_mean": segments / n,
        "segment_turns_mean": _ratio(len(turns), segments),
        "reply_tokens_mean": _ratio(sum(turn.tokens for turn in turns), len(turns)),
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
