"""What a comparison found, as a page of Markdown with charts beside it. Nothing in it is typed by hand."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiper.config import RunConfig
from hiper.errors import DataError
from hiper.evaluation import read_evaluation
from hiper.evaluation.write import EVALUATION, TRAJECTORIES
from hiper.experiments.comparison.run import start_evaluation
from hiper.experiments.comparison.spec import Cell, Comparison
from hiper.report.charts import Series, line_chart, percent, standalone
from hiper.report.read import LARGEST
from hiper.rollout.trajectory import read_trajectories
from hiper.runs.plan import has_sft
from hiper.runs.run_dir import read_commit
from hiper.runs.stage_folder import read_stage, read_times
from hiper.runtime.files import write_text
from hiper.tracking import read_metrics

DRAWS = 10_000
"""Of the bootstrap."""

Curve = list[tuple[int, float]]
"""(environment turns, success)."""


@dataclass(frozen=True)
class Outcome:
    """One finished cell."""

    cell: Cell
    start: dict[str, Any]
    """The split's record in the evaluation of its warm start."""
    curve: Curve
    """Success on the watched tasks after so many turns of training; the warm start first, where it was measured on the same tasks."""
    won: list[bool]
    """Of the last policy, task by task."""
    task_types: dict[str, tuple[int, int]]
    """Type -> tasks won, tasks."""
    env_turns: int
    """Played in training."""
    switch_rate: float
    segment_turns: float
    """Of the last iteration's training episodes."""
    seconds: float
    """Training alone."""
    commit: str | None
    """Of this project, when the run was made; None: not known."""

    @property
    def success(self) -> float:
        """Share of the tasks that the last policy wins."""
        return sum(self.won) / len(self.won)

    def turns_to(self, threshold: float) -> int | None:
        """Environment turns after which an evaluation first reached the threshold; None: none did."""
        return next((turns for turns, success in self.curve if success >= threshold), None)


def write_results(comparison: Comparison, out: Path, split: str, command: str = "hiper compare") -> Path:
    """Write `out`, and its charts in a folder of the same name beside it.

    Args:
        comparison: finished, or at least begun: what is missing is said.
        out: a Markdown file; replaced.
        split: whose tasks the table is about.
        command: what makes the comparison, for the page to say.

    Returns:
        `out`.
    """
    shared = _start(comparison.base_cfg, split) if comparison.one_start else None
    cells = comparison.cells()
    found = [outcome for cell in cells if (outcome := _read(cell, split, shared)) is not None]
    charts = out.with_suffix("")
    charts.mkdir(parents=True, exist_ok=True)
    arms = {arm: [one for one in found if one.cell.arm == arm] for arm in comparison.arms}
    arms = {arm: outcomes for arm, outcomes in arms.items() if outcomes}
    for arm, outcomes in arms.items():
        write_text(charts / f"{arm}.svg", standalone(_chart(arm, outcomes, next(iter(arms.items())))))
    missing = [f"{cell.arm} seed {cell.seed}" for cell in cells if not any(one.cell == cell for one in found)]
    write_text(out, "\n".join(_page(comparison, command, arms, shared, split, missing, charts)) + "\n")
    return out


def bootstrap(outcomes: Sequence[list[bool]], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean success of several seeds, by resampling seeds and, within each, tasks.

    Source: hierarchical bootstrap; percentiles of `DRAWS` means (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).
    """
    rng = np.random.default_rng(seed)
    tasks = np.array([len(won) for won in outcomes])
    rates = np.array([sum(won) / len(won) for won in outcomes])
    seeds = rng.integers(len(outcomes), size=(DRAWS, len(outcomes)))
    # The sum of one seed's resampled tasks is binomial with that seed's rate.
    means = (rng.binomial(tasks[seeds], rates[seeds]) / tasks[seeds]).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _start(cfg: RunConfig, split: str) -> dict[str, Any]:
    return _split(start_evaluation(cfg), split)


def _split(folder: Path, split: str) -> dict[str, Any]:
    splits: dict[str, dict[str, Any]] = read_evaluation(folder)["splits"]
    if split not in splits:
        raise DataError(f"the evaluation in {folder} has no split {split!r}; it has {', '.join(splits) or 'none'}. See --split.")
    return splits[split]


def _read(cell: Cell, split: str, shared: dict[str, Any] | None) -> Outcome | None:
    run = Path(cell.cfg.paths.run)
    train, evaluated = read_stage(run, "train"), read_stage(run, "evaluate")
    if train is None or evaluated is None:
        return None
    start = _start(cell.cfg, split) if shared is None else shared
    rows = run / "train" / "metrics.jsonl"
    metrics = read_metrics(rows)
    curve: Curve = [(0, float(start["success_rate"]))] if cell.cfg.trainer.eval_tasks >= start["tasks"] else []
    curve += [(_figure(rows, row, "env/turns"), _figure(rows, row, "eval/success_rate")) for row in metrics if "eval/success_rate" in row]
    record = _split(run / "evaluate" / "trained", split)
    played = read_trajectories(run / "evaluate" / "trained" / TRAJECTORIES)
    won = [trajectory.won for trajectory in played if trajectory.split == split]
    if len(won) != record["tasks"]:
        raise DataError(f"{run / 'evaluate' / 'trained' / TRAJECTORIES} has {len(won)} tasks of {split}, {EVALUATION} {record['tasks']}.")
    last = metrics[-1] if metrics else {}
    return Outcome(
        cell,
        start,
        curve,
        won,
        {name: (one["successes"], one["tasks"]) for name, one in record["task_types"].items()},
        _figure(rows, last, "env/turns"),
        _figure(rows, last, "switch/rate"),
        _figure(rows, last, "switch/segment_length"),
        read_times(run, "train").get("seconds", 0.0),
        read_commit(run),
    )


def _figure(path: Path, row: dict[str, Any], key: str) -> Any:
    """A number of a line of metrics."""
    value: Any = row.get(key)
    if type(value) not in (int, float) or not abs(value) < LARGEST:
        raise DataError(f"{path} is damaged: in a line that is needed, {key} is {value!r:.40}, no number. Train that cell again.")
    return value


def _chart(arm: str, outcomes: Sequence[Outcome], first: tuple[str, Sequence[Outcome]]) -> Any:
    """The arm's mean and the range of its seeds, beside the first arm's mean."""
    series = [Series(arm, "low", _mean(outcomes), _range(outcomes))]
    if arm != first[0]:
        series.append(Series(first[0], "muted", _mean(first[1])))
    return line_chart(f"{arm}: success", series, x_label="environment turns", as_percent=True, y_range=(0, 1))


def _mean(outcomes: Sequence[Outcome]) -> list[tuple[float, float | None]]:
    """Curves of seeds have their points at slightly different turns: the k-th points are averaged in both directions."""
    columns = list(zip(*(one.curve for one in outcomes), strict=False))
    return [(statistics.fmean(x for x, _ in column), statistics.fmean(y for _, y in column)) for column in columns]


def _range(outcomes: Sequence[Outcome]) -> list[tuple[float, float, float]]:
    columns = list(zip(*(one.curve for one in outcomes), strict=False))
    return [(statistics.fmean(x for x, _ in c), min(y for _, y in c), max(y for _, y in c)) for c in columns]


def _page(
    comparison: Comparison,
    command: str,
    arms: dict[str, list[Outcome]],
    shared: dict[str, Any] | None,
    split: str,
    missing: list[str],
    charts: Path,
) -> list[str]:
    commits = sorted({one.commit or "unknown" for outcomes in arms.values() for one in outcomes})
    cfg = comparison.base_cfg
    how = f"temperature {cfg.evaluate.temperature:g}, replies {cfg.rollout.constrain.value}"
    start = shared or next((one.start for outcomes in arms.values() for one in outcomes), None)
    tasks = "no" if start is None else start["tasks"]
    word = "warm start" if has_sft(cfg) else "base model"
    whence = f"Every run has a {word} of its own"
    if shared is not None:
        whence = f"All start from one warm start, which wins {_rate(shared)}"
    lines = [
        f"# Comparison `{comparison.name}`",
        "",
        f"`{command}` at commit {' and '.join(commits) or 'unknown'}: {split}, {tasks} tasks, {how}. {whence}; seeds "
        f"{', '.join(map(str, comparison.seeds))}. The last policy is evaluated, never the best one. Written by the command itself.",
        "",
        f"Settings of all: `{' '.join(comparison.base)}`",
        "",
        "| arm | settings |",
        "|---|---|",
        *(f"| `{arm}` | {' '.join(f'`{word}`' for word in comparison.arms[arm]) or 'those of all'} |" for arm in arms),
        "",
        "## Result",
        "",
        "Mean over the seeds with its 95 % interval (bootstrap over seeds and tasks), and each seed; turns are those of training.",
        "",
        f"| arm | {word} | success | seeds | turns played | switch rate | turns a segment | training, min |",
        "|---|---|---|---|---|---|---|---|",
        *(_result_row(arm, outcomes) for arm, outcomes in arms.items()),
        "",
        "## Environment turns until an evaluation first reaches a success rate",
        "",
        "Mean of the seeds that reached it, and how many did.",
        "",
        "| arm | " + " | ".join(percent(threshold) for threshold in comparison.thresholds) + " |",
        "|---|" + "---|" * len(comparison.thresholds),
        *(_turns_row(arm, outcomes, comparison.thresholds) for arm, outcomes in arms.items()),
        "",
        "## By task type, all seeds together",
        "",
        *_types(arms),
        "",
        "## Curves",
        "",
        "Mean over seeds, and their range; in grey the first arm's mean.",
        "",
        *(f"![{arm}]({charts.name}/{arm}.svg)" for arm in arms),
    ]
    return lines + (["", f"Not finished: {', '.join(missing)}."] if missing else [])


def _result_row(arm: str, outcomes: Sequence[Outcome]) -> str:
    low, high = bootstrap([one.won for one in outcomes])
    rates = ", ".join(f"{100 * one.success:.1f}" for one in outcomes)
    mean = statistics.fmean(one.success for one in outcomes)
    turns = statistics.fmean(one.env_turns for one in outcomes)
    switch = ", ".join(f"{one.switch_rate:.2f}" for one in outcomes)
    segments = ", ".join(f"{one.segment_turns:.1f}" for one in outcomes)
    minutes = statistics.fmean(one.seconds for one in outcomes) / 60
    interval = f"{100 * mean:.1f} % ({100 * low:.1f}-{100 * high:.1f})"
    before = 100 * statistics.fmean(one.start["success_rate"] for one in outcomes)
    return f"| `{arm}` | {before:.1f} % | {interval} | {rates} | {turns:,.0f} | {switch} | {segments} | {minutes:.1f} |"


def _turns_row(arm: str, outcomes: Sequence[Outcome], thresholds: Sequence[float]) -> str:
    cells = []
    for threshold in thresholds:
        reached = [turns for one in outcomes if (turns := one.turns_to(threshold)) is not None]
        cells.append(f"{statistics.fmean(reached):,.0f} ({len(reached)} of {len(outcomes)})" if reached else f"none of {len(outcomes)}")
    return f"| `{arm}` | " + " | ".join(cells) + " |"


def _types(arms: dict[str, list[Outcome]]) -> list[str]:
    names = list(next(iter(arms.values()))[0].task_types) if arms else []
    rows = [f"| arm | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for arm, outcomes in arms.items():
        sums = [tuple(map(sum, zip(*(one.task_types.get(name, (0, 0)) for one in outcomes), strict=True))) for name in names]
        shares = [f"{100 * won / tasks:.1f} % ({won} of {tasks})" if tasks else "none" for won, tasks in sums]
        rows.append(f"| `{arm}` | " + " | ".join(shares) + " |")
    return rows


def _rate(record: dict[str, Any]) -> str:
    low, high = 100 * record["wilson_low"], 100 * record["wilson_high"]
    return f"{100 * record['success_rate']:.1f} % of them ({low:.1f}-{high:.1f})"
