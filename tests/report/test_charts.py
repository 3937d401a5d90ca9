"""Rules of charts.

1. Ticks are round, rising, and cover the data.
2. Any data gives well-formed SVG that stays inside its frame; gaps break lines; no data says so.
3. Text is escaped.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiper.report.charts import HEIGHT, WIDTH, Series, interval_chart, line_chart, nice_ticks, percent, plain, share_chart, standalone

SVG = "{http://www.w3.org/2000/svg}"
numbers = st.floats(-1e9, 1e9, allow_nan=False)


@given(numbers, numbers)
def test_ticks_cover_the_range_in_round_steps(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    ticks = nice_ticks(low, high)
    steps = {round(later - earlier, 9) for earlier, later in zip(ticks, ticks[1:], strict=False)}
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 9
    assert max(steps) - min(steps) <= slack


def test_ticks_by_hand() -> None:
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert nice_ticks(0, 1, 4) == [0, 0.25, 0.5, 0.75, 1]
    assert nice_ticks(3, 47) == [0, 10, 20, 30, 40, 50]
    assert nice_ticks(-0.07, 0.02) == [-0.08, -0.06, -0.04, -0.02, 0, 0.02]
    assert nice_ticks(5, 5)[0] < 5 < nice_ticks(5, 5)[-1]


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.0), (0.0, float("nan")), (float("-inf"), 0.0)])
def test_an_impossible_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="finite range"):
        nice_ticks(low, high)


def test_numbers_are_short_and_signed_with_a_minus() -> None:
    assert [plain(x) for x in (0, 12, 0.12345, 1234567, -3.5, 0.00042, -0.00042)] == [
        "0",
        "12",
        "0.123",
        "1\u202f234\u202f567",
        "\u22123.5",
        "4.2e\u22124",
        "\u22124.2e\u22124",
    ]
    assert [percent(x) for x in (0.256, 1.0, 0.0)] == ["25.6\u202f%", "100\u202f%", "0\u202f%"]


points = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=0, max_size=12).map(
    lambda ys: [(float(x), y) for x, y in enumerate(ys, 1)]
)


@given(st.lists(points, max_size=3), st.booleans(), st.booleans(), st.booleans())
def test_any_data_stays_inside_a_well_formed_chart(
    lines: list[list[tuple[float, float | None]]], dots: bool, shares: bool, zero: bool
) -> None:
    series = [
        Series(f"line {number}", "low", line, [(x, y - 1, y + 1) for x, y in line if y is not None], dots)
        for number, line in enumerate(lines)
    ]
    root = ElementTree.fromstring(line_chart("Any", series, as_percent=shares, zero=zero))
    for element in root.iter():
        coordinates = [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", element.get("points", ""))]
        coordinates += [(float(element.get("cx", 0)), float(element.get("cy", 0)))]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in coordinates)
    if not any(y is not None for line in lines for _, y in line):
        assert "not recorded" in "".join(root.itertext())


def test_values_stand_where_they_should() -> None:
    """With the axis fixed to 0..1, the value 0 is on the base line, 1 at the top tick, 0.5 half-way."""
    root = ElementTree.fromstring(line_chart("A", [Series("a", "low", [(1, 0.0), (2, 0.5), (3, 1.0)])], y_range=(0, 1)))
    drawn = next(element for element in root.iter(f"{SVG}polyline")).get("points", "")
    (x1, y1), (x2, y2), (x3, y3) = [tuple(map(float, pair.split(","))) for pair in drawn.split()]
    assert (y1 + y3) / 2 == pytest.approx(y2, abs=0.1) and y1 > y3
    assert (x1 + x3) / 2 == pytest.approx(x2, abs=0.1) and x1 < x3
    base = next(element for element in root.iter(f"{SVG}line") if element.get("class") == "baseline")
    assert float(base.get("y1", 0)) == pytest.approx(y1, abs=0.1)


def test_a_gap_breaks_the_line_and_a_lone_point_is_seen() -> None:
    chart = line_chart("A", [Series("a", "low", [(1, 1.0), (2, 2.0), (3, None), (4, 3.0)])])
    assert chart.count("<polyline") == 1 and chart.count("<circle") == 1


def test_the_legend_gives_last_values() -> None:
    chart = line_chart(
        "A", [Series("first", "low", [(1, 0.1), (2, 0.25)]), Series("second", "high", [(1, 0.5), (2, None)])], as_percent=True
    )
    assert "first" in chart and "25\u202f%" in chart and "50\u202f%" in chart


def test_text_is_escaped() -> None:
    hostile = "</svg><script>alert(1)</script>"
    for chart in (
        line_chart(hostile, [Series(hostile, "low", [(1, 1.0), (2, 2.0)], dots=True)]),
        interval_chart([(hostile, "low", 0.5, 0.4, 0.6)]),
    ):
        assert "<script" not in chart
        ElementTree.fromstring(chart)


def test_a_file_of_its_own_carries_its_colours() -> None:
    text = standalone(line_chart("A", [Series("a", "low", [(1, 1.0), (2, 2.0)])]))
    root = ElementTree.fromstring(text)
    style = root.find(f"{SVG}style")
    assert style is not None and "--low:" in (style.text or "") and "prefers-color-scheme: dark" in (style.text or "")


def test_places_on_an_axis_can_be_named() -> None:
    series = [Series("complete", "low", [(0, 0.25), (1, 0.5)], dots=True, bare=True)]
    chart = str(line_chart("keep_mode", series, as_percent=True, x_ticks=[0, 1], x_text=["off", "<fixed>"].__getitem__))
    root = ElementTree.fromstring(chart)
    assert [one.text for one in root.iter(f"{SVG}text")][-3:-1] == ["off", "<fixed>"]
    assert [one.text for one in root.iter(f"{SVG}title")] == ["complete, off: 25\u202f%", "complete, <fixed>: 50\u202f%"]
    (label,) = [one for one in root.iter(f"{SVG}text") if (one.text or "").startswith("complete")]
    assert not label[0].text, "no last value where the order means nothing"


def test_shares_are_bars_of_their_length() -> None:
    root = ElementTree.fromstring(str(share_chart([("algo.gamma", 0.75), ("a<b", 0.25)])))
    first, second = (float(bar.get("width", "0")) for bar in root.iter(f"{SVG}rect"))
    assert first == pytest.approx(3 * second)
    assert [one.text for one in root.iter(f"{SVG}text")] == ["algo.gamma", "75\u202f%", "a<b", "25\u202f%"]
