"""Rules of records.

1. A record comes back as it was written, lists as tuples where the type says so.
2. What is missing, unknown, of another type or no number is refused, with its place in the record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from hiper.errors import DataError
from hiper.runtime.records import read_record


class Kind(StrEnum):
    good = "good"
    bad = "bad"


@dataclass(frozen=True)
class Part:
    name: str
    share: float | None = None


@dataclass(frozen=True)
class Whole:
    kind: Kind
    count: int
    sure: bool
    parts: list[Part]
    pairs: Mapping[str, tuple[int, int]]
    best: Part | None
    sizes: tuple[int, ...]
    folder: Path
    more: dict[str, Any] = field(default_factory=dict)


WHOLE = Whole(Kind.good, 3, True, [Part("a", 0.5), Part("b")], {"x": (1, 2)}, Part("c", 1), (4, 5), Path("a"), {"any": [None, "thing"]})


def test_a_record_comes_back() -> None:
    assert read_record(Whole, json.loads(json.dumps(asdict(WHOLE), default=str)), "x.json") == WHOLE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "ugly"}, "kind must be one of good, bad"),
        ({"kind": []}, "kind must be one of good, bad"),
        ({"count": 3.0}, "count must be a whole number"),
        ({"count": True}, "count must be a whole number"),
        ({"count": "3"}, "count must be a whole number"),
        ({"sure": 1}, "sure must be true or false"),
        ({"parts": {}}, "parts must be a list"),
        ({"parts": [{"name": "a"}, {"name": 7}]}, r"parts\[1\].name must be text"),
        ({"parts": [{"share": 1}]}, r"parts\[0\].name must be there"),
        ({"parts": [{"name": "a", "share": float("nan")}]}, r"parts\[0\].share must be a number or null"),
        ({"pairs": {"x": [1]}}, "pairs.x must be a list of 2"),
        ({"pairs": {"x": [1, "2"]}}, "pairs.x must be a whole number"),
        ({"best": 7}, "best must be an object or null"),
        ({"sizes": [1, 2.0]}, r"sizes\[1\] must be a whole number"),
        ({"folder": None}, "folder must be text"),
        ({"best": {"name": None}}, "best.name must be text"),
        ({"new": 1}, "new must be nothing this version knows"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"x.json: {message}"):
        read_record(Whole, {**json.loads(json.dumps(asdict(WHOLE), default=str)), **changes}, "x.json")


@pytest.mark.parametrize("value", [float("nan"), {"float": "7ff8000000000000"}])
def test_a_file_holds_no_marks_of_messages(value: object) -> None:
    with pytest.raises(DataError, match="x.json: share must be a number or null"):
        read_record(Part, {"name": "a", "share": value}, "x.json")


@pytest.mark.parametrize("value", [None, [], 3, "text"])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="x.json: it must be an object"):
        read_record(Whole, value, "x.json")
