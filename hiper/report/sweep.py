"""The page of a sweep: what was tried, what came of it, which settings mattered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hiper import __version__
from hiper.errors import DataError
from hiper.report.charts import PALETTE, STYLE, Series, line_chart, nice_ticks, percent, plain, share_chart, standalone
from hiper.runtime.files import write_text
from hiper.runtime.text import visible

COMPLETE, PRUNED = "complete", "pruned"


@dataclass(frozen=True)
class TrialRow:
    """One trial."""

    number: int
    state: str
    """complete, pruned, failed, running or waiting."""
    value: float | None
    """Objective of a complete trial; of a pruned one what it had reached; a share of 1."""
    iterations: int
    """Up to the last evaluation, over all seeds."""
    turns: int
    """Turns of the environment."""
    settings: Mapping[str, Any]
    note: str = ""
    """Why it failed, or how often it was taken up again."""


@dataclass(frozen=True)
class Axis:
    """The values of one setting."""

    key: str
    log: bool = False
    choices: Sequence[Any] | None = None
    """None: a range."""


@dataclass(frozen=True)
class SweepRecord:
    """A sweep, as its page shows it."""

    name: str
    objective: str
    """What the objective is, in words."""
    tally: str
    """What became of the trials, in words."""
    trials: Sequence[TrialRow]
    axes: Sequence[Axis]
    importances: Mapping[str, float]
    """Setting -> share of 1; empty: too few complete trials to tell."""
    best: TrialRow | None
    experiment: str | None
    """The experiment file with the best settings."""
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)


def write_sweep_report(record: SweepRecord, out: Path) -> Path:
    """Write the page, and its charts as SVG files in `charts/` beside it; it asks for nothing outside itself.

    Raises:
        DataError: the disk refused it.
    """
    charts = draw(record)
    environment = Environment(
        loader=PackageLoader("hiper.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(pct=lambda value: "\u2013" if value is None else percent(value), setting=show_setting, safe_text=visible)
    page = environment.get_template("sweep.html.j2").render(
        version=__version__, palette=Markup(PALETTE), chart_style=Markup(STYLE), sweep=record, charts=charts
    )
    try:
        folder = out.parent / "charts"
        folder.mkdir(parents=True, exist_ok=True)
        for name, chart in charts.items():
            write_text(folder / f"{name}.svg", standalone(chart))
        write_text(out, page)
    except OSError as error:
        raise DataError(f"The report could not be written to {out}: {error.strerror}.") from error
    return out


def draw(record: SweepRecord) -> dict[str, Markup]:
    """Charts by name: `history`, `importances` where they are known, and `slice-KEY` for each setting."""
    charts = {"history": _history(record.trials)}
    if record.importances:
        charts["importances"] = share_chart(sorted(record.importances.items(), key=lambda pair: -pair[1]))
    return charts | {f"slice-{axis.key}": _slice(axis, record.trials) for axis in record.axes}


def show_setting(value: Any) -> str:
    """A setting's value in a table."""
    return plain(value) if isinstance(value, float) else str(value)


def _history(trials: Sequence[TrialRow]) -> Markup:
    best: list[tuple[float, float | None]] = []
    for trial in trials:
        if trial.state == COMPLETE and trial.value is not None:
            best.append((trial.number, max(trial.value, best[-1][1] or 0.0) if best else trial.value))
    dots = [
        Series(state, colour, [(trial.number, trial.value) for trial in trials if trial.state == state], dots=True, bare=True)
        for state, colour in ((COMPLETE, "low"), (PRUNED, "muted"))
    ]
    return line_chart("Objective by trial", [*dots, Series("best so far", "high", best)], x_label="trial", as_percent=True)


def _slice(axis: Axis, trials: Sequence[TrialRow]) -> Markup:
    """The objective over one setting, the other settings as they were."""
    if axis.choices is not None:
        names = [show_setting(choice) for choice in axis.choices]

        def place(value: Any) -> float:
            return float(names.index(show_setting(value)))

        def text(x: float) -> str:
            return names[round(x)]

        ticks: list[float] | None = [float(number) for number in range(len(names))]
    else:

        def place(value: Any) -> float:
            return math.log10(value) if axis.log else float(value)

        def text(x: float) -> str:
            return plain(10**x) if axis.log else plain(x)

        ticks = None
    points = {
        state: [(place(trial.settings[axis.key]), trial.value) for trial in trials if trial.state == state and axis.key in trial.settings]
        for state in (COMPLETE, PRUNED)
    }
    if ticks is None:
        places = [x for of in points.values() for x, _ in of]
        ticks = nice_ticks(min(places), max(places), 4) if places else None
    series = [
        Series(state, colour, sorted(points[state], key=lambda point: point[0]), dots=True, bare=True)
        for state, colour in ((COMPLETE, "low"), (PRUNED, "muted"))
    ]
    return line_chart(axis.key, series, x_label="log scale" if axis.log else "", as_percent=True, x_ticks=ticks, x_text=text)
