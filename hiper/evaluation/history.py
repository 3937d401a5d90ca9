"""The evaluations made during training: the last, the mean of the last few and the best, each under its own name."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class History:
    """Three summaries of one series, never to be compared with each other.

    `best` is a maximum over noisy evaluations and so promises more than the model holds; `last` is the model one has.
    """

    last: float
    last_iteration: int
    mean_last: float
    """Mean of the last `k` evaluations."""
    k: int
    """How many `mean_last` covers: those asked for, or all when there are fewer."""
    best: float
    best_iteration: int
    """Where the best was reached first."""
    count: int
    """Evaluations in the series."""


def history(series: Iterable[tuple[int, float]], k: int = 5) -> History | None:
    """Summarise (iteration, value) pairs; None where there are none.

    Raises:
        ValueError: `k` is below 1, or iterations do not rise.
    """
    if k < 1:
        raise ValueError(f"k={k} evaluations cannot be averaged; it must be at least 1.")
    points = list(series)
    if not points:
        return None
    for (before, _), (after, _) in zip(points, points[1:], strict=False):
        if after <= before:
            raise ValueError(f"evaluations must come in rising order of iterations; {after} follows {before}.")
    tail = [value for _, value in points[-k:]]
    best_iteration, best = max(points, key=lambda point: point[1])
    return History(
        last=points[-1][1],
        last_iteration=points[-1][0],
        mean_last=statistics.fmean(tail),
        k=len(tail),
        best=best,
        best_iteration=best_iteration,
        count=len(points),
    )
