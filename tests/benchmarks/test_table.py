"""Rules of the table of benchmarks.

1. A row is a figure that a benchmark printed, with what it is measured beside; of a benchmark that is not there, there is none.
2. Faster is above 1, for rates and for seconds alike, beside a rival and beside an earlier commit.
3. A file of another kind is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.all import PARTS
from hiper.benchmarks.table import Row, changes, faster, load_rows, rows, show, to_json
from hiper.cli.main import parse
from hiper.errors import DataError


def phase(rate: float, episodes: float, share: float) -> dict[str, float]:
    return {"tokens_per_second": rate, "trajectories_per_second": episodes, "share_of_peak": share}


def scheme(rate: float, episodes: float) -> dict[str, dict[str, float]]:
    return {name: phase(rate, episodes, 0.5) for name in ("rollout", "score", "update", "total")}


RESULTS = {
    "train": {"schemes": {"append": scheme(9000.0, 8.0), "generate": scheme(40_000.0, 2.0)}},
    "sft": {"losses": {"limited": phase(5000.0, 0.0, 0.4), "trl": phase(2500.0, 0.0, 0.3)}},
    "alfworld": {"steps_per_second": 12_000.0, "reference_steps_per_second": 100.0, "load_seconds": 0.002, "reference_load_seconds": 2.0},
    "webshop": {"searches_per_second": 300.0, "clicks_per_second": 9000.0, "ready_seconds": {"index built": 2.0, "index cached": 0.1}},
    "hae": {"milliseconds": 2.0, "python_loop_milliseconds": 30.0, "scalar_tensor_milliseconds": 900.0},
    "startup": {"seconds": {"help": 0.4, "finished run": 1.5}},
}


def test_each_benchmark_has_rows_and_each_row_its_rival() -> None:
    assert set(RESULTS) == set(PARTS)
    found = {row.what: row for row in rows(RESULTS)}
    assert found["training, update"] == Row("training, update", 9000.0, "tokens/s", 0.5)
    assert found["training, update, by episode"].times == 4.0
    assert found["warm start"].times == 2.0
    assert (found["ALFWorld, commands"].times, found["ALFWorld, a game opened"].times) == (120.0, 1000.0)
    assert [row.times for row in rows({"hae": RESULTS["hae"]})] == [15.0, 450.0]
    assert found["WebShop, searches"].times is None
    assert found["hiper, finished run"].value == 1.5
    assert len(found) == len(rows(RESULTS)), "a row's name is its own, by which commits are compared"
    for name in RESULTS:
        assert rows({name: RESULTS[name]}), name


def test_the_table_shows_what_was_measured() -> None:
    lines = show(rows(RESULTS)).splitlines()
    assert len({len(line) for line in lines[:2]}) <= 2
    (line,) = (line for line in lines if line.startswith("warm start"))
    assert line.split() == ["warm", "start", "5,000", "tokens/s", "40", "%", "2", "TRL's", "trainer", "as", "it", "is", "2,500", "tokens/s"]


def test_faster_is_above_one() -> None:
    assert faster("tokens/s", 10.0, 5.0) == faster("s", 5.0, 10.0) == faster("ms", 5.0, 10.0) == 2.0


def test_two_commits_are_compared(tmp_path: Path) -> None:
    before = [Row("rate", 100.0, "tokens/s"), Row("time", 4.0, "s"), Row("dropped", 1.0, "s")]
    after = [Row("rate", 150.0, "tokens/s"), Row("time", 2.0, "s"), Row("added", 1.0, "s")]
    lines = {line.split()[0]: line.split() for line in changes(before, after).splitlines()[1:]}
    assert lines["rate"][-1] == "1.50"
    assert lines["time"][-1] == "2.00"
    assert (lines["added"][-1], lines["dropped"][-1]) == ("new", "gone")
    for name, found in (("a", before), ("b", after)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"rows": to_json(found)}), encoding="utf-8")
        assert load_rows(tmp_path / f"{name}.json") == found
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "benchmarks/compare.py"), "a.json", "b.json"]
    ran = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False)
    assert ran.stdout.rstrip("\n") == changes(before, after), ran.stderr


@pytest.mark.parametrize("content", ["{}", '{"rows": [{"what": "a"}]}', '{"rows": 3}'])
def test_a_file_of_another_kind_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.json"):
        load_rows(file)


@pytest.mark.parametrize("name", [name for name, words in PARTS.items() if words[:2] == ("-m", "hiper")])
def test_its_commands_are_commands(name: str) -> None:
    parse(list(PARTS[name][2:]))
