"""Rules of damaged files.

1. Every kind of file that a command reads, harmed in every way: the command refuses it in one clear message that names it, notes it and
   goes on, or does the stage again with the same result; no traceback, nothing that hangs, nothing that acts on the terminal.
2. What nobody damaged is still there.

`make fuzz` does 500 and writes the table; here is a handful, of every kind that takes little time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.cases import Case, Fuzz, draw, light
from tests.fuzz.damage import CONTENT, PLACES, damage, damages
from tests.fuzz.judge import judge
from tests.fuzz.kinds import KINDS

SHORT = 40
"""Cases in `make test`."""


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzz]:
    place = tmp_path_factory.mktemp("fuzz")
    with Fuzz(place, place) as made:
        yield made


@pytest.fixture(scope="module")
def small_fuzz(tmp_path_factory: pytest.TempPathFactory, finished_run: Path, small_settings: list[str]) -> Iterator[Fuzz]:
    place = tmp_path_factory.mktemp("fuzz")
    with Fuzz(place, place, finished_run, small_settings) as made:
        yield made


def quick() -> list[Case]:
    """So many light cases, no two of a kind and damage."""
    return [case for case in draw(600, seed=1) if light(case)][:SHORT]


@pytest.mark.parametrize("case", quick(), ids=lambda case: f"{case.kind.name}-{case.damage}")
def test_damage_is_answered(small_fuzz: Fuzz, case: Case) -> None:
    verdict = small_fuzz.run(case)
    assert verdict.good, f"{case.shown}: {verdict.outcome}: {verdict.detail}"


@pytest.mark.slow
@pytest.mark.parametrize("case", list(draw(500)), ids=lambda case: f"{case.kind.name}-{case.damage}")
def test_all_damage_is_answered(fuzz: Fuzz, case: Case) -> None:
    verdict = fuzz.run(case)
    assert verdict.good, f"{case.shown}: {verdict.outcome}: {verdict.detail}"


def test_500_cases_reach_every_kind_and_every_damage() -> None:
    cases = list(draw(500))
    assert {case.kind for case in cases} == set(KINDS)
    assert {case.damage for case in cases} == {*CONTENT, *PLACES}
    assert list(draw(500)) == cases, "a seed fixes them"


@pytest.mark.parametrize("form", ["json", "jsonl", "yaml", "text", "binary"])
def test_every_damage_changes_the_file(tmp_path: Path, form: str) -> None:
    text = {"json": '{"a": [1, "b"]}', "jsonl": '{"a": 1, "b": "c"}\n' * 3, "yaml": "a: [1, b]\n"}.get(form, "some words, and more\n")
    other = tmp_path / "other"
    other.write_text("{}")
    for name in damages(form):
        path = tmp_path / name
        path.write_text(text)
        damage(path, name, form, random.Random(0), other)
        assert not path.is_file() or path.read_bytes() != text.encode(), name


@pytest.mark.parametrize(
    ("code", "err", "after", "outcome"),
    [
        (2, "hiper: a.json is not JSON.", {"b": "1"}, "refused"),
        (2, "hiper: something is wrong.", {"b": "1"}, "unclear"),
        (2, "hiper: a.json is odd.\nhiper: a.json is odd.", {"b": "1"}, "unclear"),
        (2, "hiper: a.json holds \x1b[2J.", {"b": "1"}, "unclear"),
        (2, "hiper: a.json is not JSON.", {}, "lost"),
        (0, "", {"b": "2"}, "lost"),
        (0, "", {"c": "1"}, "accepted"),
        (0, "x/a.json is damaged; it is left out", {"b": "1"}, "noted"),
        (1, "Traceback (most recent call last):\nKeyError: 'a'", {"b": "1"}, "traceback"),
        (70, "", {"b": "1"}, "crash"),
        (-9, "", {"b": "1"}, "crash"),
        (None, "", {"b": "1"}, "hang"),
    ],
)
def test_the_judge(code: int | None, err: str, after: dict[str, str], outcome: str) -> None:
    before = {"x/a.json": "0", "b": "1"}
    assert judge(code, 1.0, "", err, "x/a.json", before, after, "", True).outcome == outcome


def test_the_judge_compares_what_was_done_again() -> None:
    before = {"x": "0", "run/demos/times.json": "1", "run/demos/demos.jsonl": "2"}
    again = {"x": "0", "run/demos/times.json": "3", "run/demos/demos.jsonl": "2"}
    assert judge(0, 1.0, "", "", "x", before, again, "", True).outcome == "redone"
    again["run/demos/demos.jsonl"] = "4"
    assert judge(0, 1.0, "", "", "x", before, again, "", True).outcome == "other results"
    assert judge(0, 1.0, "", "", "x", before, again, "", False).outcome == "redone"
