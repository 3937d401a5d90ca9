"""Small line charts as SVG text: axes, ticks, labels, legend, bands. No script, no fonts, no outside request.

Colours are CSS variables (`--low`, `--high`, `--switch`, `--ink`, `--muted`, `--grid`), so a chart follows the light or dark page
that holds it; `standalone` makes a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

PALETTE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f6f7f9; --ink: #1c2024; --muted: #646c75; --grid: #e3e6ea;
  --low: #0b6bb5; --high: #bd4f16; --switch: #0a7d60;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --panel: #1c2025; --ink: #e8eaed; --muted: #9aa3ad; --grid: #2f353c;
    --low: #5db0f0; --high: #f2955b; --switch: #45c7a0;
  }
}
"""
"""Colours of page and charts. The three level colours stay apart for the colour-blind, and have a contrast of 4.5 or more."""

STYLE = """
.chart { display: block; width: 100%; height: auto; font: 11px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.chart text { fill: var(--muted); font-variant-numeric: tabular-nums; }
.chart .title { fill: var(--ink); font-weight: 600; font-size: 12.5px; }
.chart .now { fill: var(--ink); font-weight: 600; }
.chart .gridline { stroke: var(--grid); stroke-width: 1; shape-rendering: crispEdges; }
.chart .baseline { stroke: var(--muted); stroke-width: 1; shape-rendering: crispEdges; }
.chart .line { fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }
.chart .band { stroke: none; fill-opacity: .15; }
.chart .range { fill: var(--muted); fill-opacity: .09; }
.chart .whisker { stroke-width: 1.2; }
.chart .hollow { fill: var(--page); stroke-width: 1.5; }
"""
"""Style of the charts' classes."""

WIDTH, HEIGHT = 360, 222
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 46, 30
_LETTER = 5.9  # mean width of a letter at 11 px, to place legend entries


@dataclass(frozen=True)
class Series:
    """One line, or one row of points, of a chart."""

    label: str
    colour: str
    """Name of a colour variable: low, high, switch, ink or muted."""
    points: Sequence[tuple[float, float | None]]
    """(x, y) in rising x; None breaks the line."""
    band: Sequence[tuple[float, float, float]] = field(default_factory=tuple)
    """(x, lower, upper): drawn as an area behind a line, as whiskers on points."""
    dots: bool = False
    """Draw points in place of a line."""
    bare: bool = False
    """The legend leaves the last value out, where the last is not the latest."""

    @property
    def last(self) -> float | None:
        """The last value there is."""
        return next((y for _, y in reversed(self.points) if y is not None), None)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that cover [low, high]: steps of 1, 2, 2.5 or 5 times a power of ten.

    Raises:
        ValueError: the range is not finite or runs backwards.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"ticks need a finite range; got [{low}, {high}].")
    if high - low < 1e-12 * max(1.0, abs(low), abs(high)):
        pad = abs(low) * 0.1 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) + 0.0 for number in range(first, last + 1)]


def percent(value: float) -> str:
    """0.256 -> '25.6 %'; no decimals where there is nothing behind the point."""
    text = f"{100 * value:.1f}".removesuffix(".0")
    return f"{text}\u202f%"


def plain(value: float) -> str:
    """A number in at most four significant figures, thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    if abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "\u2212")
    return f"{value:.3g}".replace("-", "\u2212")


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str = "iteration",
    as_percent: bool = False,
    y_range: tuple[float, float] | None = None,
    zero: bool = False,
    healthy: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
    x_text: Callable[[float], str] | None = None,
) -> Markup:
    """A chart; with no value at all, an empty frame that says so.

    Args:
        title: above the chart, left.
        series: lines and points; the legend shows each one's last value.
        x_label: below the axis.
        as_percent: values are shares of 1, shown as percentages.
        y_range: fixed ends of the axis; unset: what the data needs.
        zero: the axis includes zero.
        healthy: a range shaded in the background.
        x_ticks: where the axis is labelled, its ends included; unset: whole numbers.
        x_text: how a place on the axis is written; unset: as a number.
    """
    place = x_text or plain
    show: Callable[[float], str] = percent if as_percent else plain
    drawn = [one for one in series if one.last is not None]
    described = "; ".join(f"{one.label}: {show(one.last)} at last" for one in drawn if one.last is not None) or "no data"
    head = (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}. {escape(described)}" '
        f'xmlns="http://www.w3.org/2000/svg"><text class="title" x="0" y="14">{escape(title)}</text>'
    )
    if not drawn:
        note = f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle">not recorded</text>'
        return Markup(head + _frame() + note + "</svg>")
    scale = _Scale(drawn, y_range, zero, as_percent, x_ticks)
    parts = [head, _legend(drawn, show)]
    if healthy is not None:
        top, bottom = scale.y(healthy[1]), scale.y(healthy[0])
        parts.append(f'<rect class="range" x="{_LEFT}" y="{top:.1f}" width="{WIDTH - _LEFT - _RIGHT}" height="{bottom - top:.1f}"/>')
    parts += [_axes(scale, show, place, x_label)]
    parts += [_draw(one, scale, show, place) for one in drawn]
    return Markup("".join(parts) + "</svg>")


def interval_chart(rows: Sequence[tuple[str, str, float, float, float]]) -> Markup:
    """Proportions with their intervals, one below the other on a common axis from 0 to 100 %.

    Args:
        rows: (label, colour, rate, lower, upper), shares of 1.
    """
    left, right, row, top = 80, 22, 24, 2
    width, bottom = 480, top + row * len(rows)

    def x(value: float) -> float:
        return left + value * (width - left - right)

    described = "; ".join(f"{label} {percent(rate)}, interval {percent(low)} to {percent(high)}" for label, _, rate, low, high in rows)
    parts = [
        f'<svg class="chart" viewBox="0 0 {width} {bottom + 20}" role="img" aria-label="{escape(described)}" xmlns="http://www.w3.org/2000/svg">'
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="gridline" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{percent(tick)}</text>')
    for number, (label, colour, rate, low, high) in enumerate(rows):
        y = top + row * (number + 0.5)
        parts.append(
            f'<text class="now" x="0" y="{y + 4}">{escape(label)}</text>'
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}" stroke="var(--{colour})" stroke-width="7" stroke-opacity=".28"/>'
            f'<circle cx="{x(rate):.1f}" cy="{y}" r="4.5" fill="var(--{colour})"/>'
        )
    return Markup("".join(parts) + "</svg>")


def share_chart(rows: Sequence[tuple[str, float]]) -> Markup:
    """Shares of a whole as bars, one below the other.

    Args:
        rows: (label, share of 1).
    """
    left, right, row = 190, 50, 22
    width, bottom = 480, row * len(rows) + 4
    described = "; ".join(f"{label} {percent(share)}" for label, share in rows)
    head = (
        f'<svg class="chart" viewBox="0 0 {width} {bottom}" role="img" aria-label="{escape(described)}" xmlns="http://www.w3.org/2000/svg">'
    )
    parts = [head]
    for number, (label, share) in enumerate(rows):
        y = 2 + row * number
        length = share * (width - left - right)
        parts.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{length:.1f}" height="{row - 8}" fill="var(--low)"/>'
            f'<text class="now" x="{left + length + 6:.1f}" y="{y + 14}">{escape(percent(share))}</text>'
        )
    return Markup("".join(parts) + "</svg>")


def standalone(chart: Markup) -> str:
    """The chart as a file of its own, with its colours and style."""
    head, _, rest = str(chart).partition(">")
    background = '<rect width="100%" height="100%" fill="var(--page)"/>'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{head}><style>{PALETTE}{STYLE}</style>{background}{rest}\n'


class _Scale:
    """From data to pixels."""

    def __init__(
        self,
        series: Sequence[Series],
        y_range: tuple[float, float] | None,
        zero: bool,
        as_percent: bool,
        x_ticks: Sequence[float] | None,
    ) -> None:
        xs = [x for one in series for x, _ in one.points] + list(x_ticks or ())
        self.x_low, self.x_high = min(xs), max(xs)
        if self.x_low == self.x_high:
            self.x_low, self.x_high = self.x_low - 1, self.x_high + 1
        ys = [y for one in series for _, y in one.points if y is not None] + [y for one in series for _, *ends in one.band for y in ends]
        if y_range is not None:
            low, high = y_range
            self.y_ticks = [tick for tick in nice_ticks(low, high, 4) if low - 1e-9 <= tick <= high + 1e-9]
            self.y_low, self.y_high = low, high
        else:
            low, high = min(ys), max(ys)
            if zero:
                low, high = min(low, 0.0), max(high, 0.0)
            if as_percent and high - low < 0.02:  # a flat line of 100 % is not an earthquake
                low, high = max(0.0, low - 0.02), min(1.0, high + 0.02) if high <= 1 else high
            self.y_ticks = nice_ticks(low, high, 4)
            self.y_low, self.y_high = self.y_ticks[0], self.y_ticks[-1]
        whole = [tick for tick in nice_ticks(self.x_low, self.x_high, 5) if self.x_low <= tick <= self.x_high and tick == int(tick)]
        self.x_ticks = whole if x_ticks is None else x_ticks

    def x(self, value: float) -> float:
        return _LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        inside = min(max(value, self.y_low), self.y_high)
        return HEIGHT - _BOTTOM - (inside - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - _TOP - _BOTTOM)


def _frame() -> str:
    y = HEIGHT - _BOTTOM
    return f'<line class="baseline" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'


def _axes(scale: _Scale, show: Callable[[float], str], place: Callable[[float], str], x_label: str) -> str:
    parts = []
    for tick in scale.y_ticks:
        y = scale.y(tick)
        parts.append(f'<line class="gridline" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.8:.1f}" text-anchor="end">{escape(show(tick))}</text>')
    if scale.y_low < 0 < scale.y_high:
        parts.append(f'<line class="baseline" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{scale.y(0):.1f}" y2="{scale.y(0):.1f}"/>')
    parts.append(_frame())
    for tick in scale.x_ticks:
        x, y = scale.x(tick), HEIGHT - _BOTTOM
        anchor = "end" if x > WIDTH - _RIGHT - 12 else "middle"
        parts.append(f'<line class="baseline" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 15}" text-anchor="{anchor}">{escape(place(tick))}</text>')
    parts.append(f'<text x="{(WIDTH + _LEFT - _RIGHT) / 2}" y="{HEIGHT - 2}" text-anchor="middle">{escape(x_label)}</text>')
    return "".join(parts)


def _legend(series: Sequence[Series], show: Callable[[float], str]) -> str:
    """Below the title: mark, label, last value; alone, the value needs no more than the title."""
    if len(series) == 1 and not series[0].dots and series[0].last is not None:
        return f'<text class="now" x="{WIDTH - _RIGHT}" y="14" text-anchor="end">{escape(show(series[0].last))}</text>'
    parts, x = [], 0.0
    for one in series:
        assert one.last is not None
        value = "" if one.bare else show(one.last)
        colour = f"var(--{one.colour})"
        if one.dots:
            parts.append(f'<circle class="hollow" cx="{x + 6:.1f}" cy="28" r="3" stroke="{colour}"/>')
        else:
            parts.append(f'<line class="line" x1="{x:.1f}" x2="{x + 12:.1f}" y1="28" y2="28" stroke="{colour}"/>')
        parts.append(f'<text x="{x + 17:.1f}" y="32">{escape(one.label)} <tspan class="now">{escape(value)}</tspan></text>')
        x += 17 + _LETTER * (len(one.label) + len(value) + 1) + 18
    return "".join(parts)


def _draw(one: Series, scale: _Scale, show: Callable[[float], str], place: Callable[[float], str]) -> str:
    colour = f"var(--{one.colour})"
    known = [(x, y) for x, y in one.points if y is not None]
    if one.dots:
        parts = []
        for x, low, high in one.band:
            parts.append(
                f'<line class="whisker" stroke="{colour}" x1="{scale.x(x):.1f}" x2="{scale.x(x):.1f}" '
                f'y1="{scale.y(low):.1f}" y2="{scale.y(high):.1f}"/>'
            )
        for x, y in known:
            tip = f"<title>{escape(one.label)}, {escape(place(x))}: {escape(show(y))}</title>"
            parts.append(f'<circle class="hollow" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="3" stroke="{colour}">{tip}</circle>')
        return "".join(parts)
    parts = []
    if one.band:
        upper = [f"{scale.x(x):.1f},{scale.y(high):.1f}" for x, _, high in one.band]
        lower = [f"{scale.x(x):.1f},{scale.y(low):.1f}" for x, low, _ in reversed(one.band)]
        parts.append(f'<polygon class="band" fill="{colour}" points="{" ".join(upper + lower)}"/>')
    for run in _runs(one.points):
        if len(run) == 1:
            parts.append(f'<circle cx="{scale.x(run[0][0]):.1f}" cy="{scale.y(run[0][1]):.1f}" r="1.8" fill="{colour}"/>')
        else:
            path = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in run)
            parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
    return "".join(parts)


def _runs(points: Iterable[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Stretches without a gap."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]
