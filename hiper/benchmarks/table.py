"""One table of all benchmarks, from what each of them prints; and what changed between two of its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiper.runtime.reading import read_json_object
from hiper.runtime.records import read_value

SECONDS = ("s", "ms")
"""Units of which less is better; of all others more is."""

PHASES = {"rollout": "rollouts", "score": "training, forward passes and credit", "update": "training, update", "total": "an iteration"}


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    value: float
    unit: str
    share_of_peak: float | None = None
    """Of the core's own rate of matrix products, 0 to 1; None where it says nothing."""
    rival: str = ""
    rival_value: float | None = None
    """In the same unit, measured in the same process."""

    @property
    def times(self) -> float | None:
        """How many times as fast as the rival."""
        return None if self.rival_value is None else faster(self.unit, self.value, self.rival_value)


def faster(unit: str, value: float, other: float) -> float:
    """How many times as fast `value` is as `other`."""
    return other / value if unit in SECONDS else value / other


def rows(results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """The table's rows.

    Args:
        results: what each benchmark printed, by its name (`train`, `sft`, `alfworld`, `webshop`, `hae`, `startup`); one that is not there
            leaves its rows out.
    """
    writers = {"train": _train, "sft": _sft, "alfworld": _alfworld, "webshop": _webshop, "hae": _hae, "startup": _startup}
    return [row for name, write in writers.items() if name in results for row in write(results[name])]


def _train(found: Mapping[str, Any]) -> Iterator[Row]:
    ours, plain = found["schemes"]["append"], found["schemes"]["generate"]
    for phase, name in PHASES.items():
        yield Row(name, ours[phase]["tokens_per_second"], "tokens/s", ours[phase]["share_of_peak"])
    for phase, name in PHASES.items():
        rates = (one[phase]["trajectories_per_second"] for one in (ours, plain))
        yield Row(f"{name}, by episode", next(rates), "episodes/s", None, "a sample a turn, transformers.generate", next(rates))


def _sft(found: Mapping[str, Any]) -> Iterator[Row]:
    ours, trl = found["losses"]["limited"], found["losses"]["trl"]
    yield Row(
        "warm start", ours["tokens_per_second"], "tokens/s", ours["share_of_peak"], "TRL's trainer as it is", trl["tokens_per_second"]
    )


def _alfworld(found: Mapping[str, Any]) -> Iterator[Row]:
    rival = "the alfworld package"
    yield Row("ALFWorld, commands", found["steps_per_second"], "steps/s", None, rival, found["reference_steps_per_second"])
    yield Row("ALFWorld, a game opened", found["load_seconds"], "s", None, rival, found["reference_load_seconds"])


def _webshop(found: Mapping[str, Any]) -> Iterator[Row]:
    yield Row("WebShop, searches", found["searches_per_second"], "searches/s")
    yield Row("WebShop, clicks", found["clicks_per_second"], "clicks/s")
    yield Row("WebShop, shop opened", found["ready_seconds"]["index cached"], "s")


def _hae(found: Mapping[str, Any]) -> Iterator[Row]:
    for rival, key in (("turn by turn, floats", "python_loop_milliseconds"), ("turn by turn, 0-d tensors", "scalar_tensor_milliseconds")):
        yield Row(f"HAE, 128 x 50 turns, beside {rival}", found["milliseconds"], "ms", None, rival, found[key])


def _startup(found: Mapping[str, Any]) -> Iterator[Row]:
    for command, seconds in found["seconds"].items():
        yield Row(f"hiper, {command}", seconds, "s")


def show(found: Iterable[Row]) -> str:
    """The table as text."""
    lines = [("", "here", "", "share of peak", "times as fast", "as", "")]
    for row in found:
        share = "" if row.share_of_peak is None else f"{100 * row.share_of_peak:.0f} %"
        times, other = ("", "") if row.times is None else (_figure(row.times), f"{_figure(row.rival_value)} {row.unit}")
        lines.append((row.what, _figure(row.value), row.unit, share, times, row.rival, other))
    return _aligned(lines, "lrlrrlr")


def changes(old: Iterable[Row], new: Iterable[Row]) -> str:
    """What changed from one table to another, as ratios: above 1 is faster now. Rows that one of them lacks are named."""
    before, after = ({row.what: row for row in found} for found in (old, new))
    lines = [("", "before", "after", "", "times as fast")]
    for what, row in after.items():
        earlier = before.get(what)
        ratio = "new" if earlier is None else f"{faster(row.unit, row.value, earlier.value):.2f}"
        lines.append((what, "" if earlier is None else _figure(earlier.value), _figure(row.value), row.unit, ratio))
    lines += [(what, _figure(row.value), "", row.unit, "gone") for what, row in before.items() if what not in after]
    return _aligned(lines, "lrrlr")


def _figure(value: float | None) -> str:
    """Three significant digits, thousands apart."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _aligned(lines: Sequence[Sequence[str]], sides: str) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = ([cell.rjust(w) if side == "r" else cell.ljust(w) for cell, w, side in zip(line, widths, sides, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in cells)


def to_json(found: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows for a file."""
    return [asdict(row) for row in found]


def load_rows(path: Path) -> list[Row]:
    """The rows of a file that `benchmarks/all.py` wrote.

    Raises:
        DataError: no such file, or one of something else.
    """
    found: list[Row] = read_value(list[Row], read_json_object(path).get("rows"), f"{path}: rows, as `make bench` writes them")
    return found
