"""Which curves a report draws from a run's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from hiper.evaluation.statistics import wilson
from hiper.report.charts import Series, line_chart
from hiper.report.read import STARTED, RunRecord

Points = list[tuple[float, float | None]]
Band = list[tuple[float, float, float]]


def draw_curves(run: RunRecord) -> dict[str, Markup]:
    """Charts by name, in the order of the page; none when there are no metrics."""
    metrics, config = run.metrics, run.config
    if not metrics:
        return {}
    episodes = config.rollout.trajectories if config is not None else None
    watched = config.trainer.eval_tasks if config is not None else None

    def line(label: str, key: str, colour: str = "low") -> Series:
        return Series(label, colour, _points(metrics, key))

    # The trainer logs 0 where no episode was won; nothing takes no turns.
    won = [(x, y or None) for x, y in _points(metrics, "rollout/turns_won")]
    success = [
        Series("sampled", "low", _points(metrics, "rollout/success_rate"), band=_intervals(metrics, "rollout/success_rate", episodes)),
        Series("evaluation", "high", _known(metrics, "eval/success_rate"), _intervals(metrics, "eval/success_rate", watched), dots=True),
    ]
    levels = (("low", "low"), ("high", "high"), ("switch", "switch"))
    variance = [line(label, f"value/explained_variance_{label}", colour) for label, colour in levels]
    spread = [line(label, f"hae/adv_{label}_std", colour) for label, colour in levels]
    seconds = [
        Series(label, colour, _points(run.timings, f"time/{label}"))
        for label, colour in (("rollout", "low"), ("score", "switch"), ("update", "high"))
    ]
    return {
        "success": line_chart("Success", success, as_percent=True, y_range=(0, 1)),
        "return": line_chart("Return, penalties included", [line("return", "rollout/return")]),
        "turns": line_chart("Turns an episode", [line("all", "rollout/turns"), Series("won", "switch", won)], zero=True),
        "switch_rate": line_chart(
            "Switch rate", [line("rate", "switch/rate", "switch")], as_percent=True, y_range=(0, 1), healthy=(0.1, 0.7)
        ),
        "segment_length": line_chart("Turns a segment", [line("length", "switch/segment_length", "switch")], zero=True),
        "replies": line_chart(
            "Replies, share of turns",
            [
                line("valid", "rollout/valid_rate"),
                line("all masks", "hae/mask_coverage", "switch"),
                line("inadmissible", "rollout/inadmissible_rate", "high"),
            ],
            as_percent=True,
            y_range=(0, 1),
        ),
        "kl": line_chart(
            "KL divergence",
            [line(f"to the {STARTED[run.start]}", "optim/kl_ref"), line("of the update", "optim/approx_kl", "high")],
            zero=True,
        ),
        "clip_fraction": line_chart("Clipped tokens", [line("share", "optim/clip_fraction")], as_percent=True, zero=True),
        "entropy": line_chart(
            "Entropy, nats", [line("a token", "optim/entropy"), line("of the switch, a turn", "switch/entropy", "switch")], zero=True
        ),
        "explained_variance": line_chart("Explained variance of the critics", variance, y_range=(-1, 1)),
        "advantages": line_chart("Spread of the advantages", spread, zero=True),
        "seconds": line_chart("Seconds an iteration", seconds, zero=True),
    }


def evaluations(metrics: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """The in-training evaluations: (iteration, success)."""
    return [(int(x), y) for x, y in _known(metrics, "eval/success_rate") if y is not None]


def _points(records: Sequence[dict[str, Any]], key: str) -> Points:
    """A gap where a line that should have the value has none."""
    present = [record for record in records if key in record]
    return [(float(record["iteration"]), _number(record[key])) for record in present]


def _known(records: Sequence[dict[str, Any]], key: str) -> Points:
    return [(x, y) for x, y in _points(records, key) if y is not None]


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _intervals(records: Sequence[dict[str, Any]], key: str, tasks: int | None) -> Band:
    """Wilson's 95 % interval of each rate; none where the number of tasks is not known."""
    if tasks is None:
        return []
    return [(x, *wilson(round(y * tasks), tasks)) for x, y in _known(records, key) if y is not None and 0 <= y <= 1]
