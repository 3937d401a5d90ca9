"""The original's recordings, all of them: pages, actions, rewards, ends, goals, prices, analyses and rankings."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from hiper.errors import DataError
from hiper.suites.webshop.conformance import bench

from .conftest import write_catalogue


def test_nothing_differs(shared: Path) -> None:
    recordings = sorted((shared / "conformance").glob("webshop_*"))
    if not recordings or not (shared / "data" / "webshop").is_dir():  # other people's data, not ours to carry
        pytest.skip(f"no WebShop catalogue or recordings in {shared}")
    found = bench(shared / "data" / "webshop", recordings, walks=3)
    assert found["examples"] == []
    assert set(found["mismatches"].values()) == {0}
    least = {"pages": 1100, "rewards": 4000, "goals": 3400, "prices": 500, "searches": 150, "goals of a seed": 7, "analyses": 3100}
    assert {kind for kind, count in least.items() if found["compared"][kind] < count} == set()


def test_what_differs_is_shown(tmp_path: Path) -> None:
    folder = write_catalogue(tmp_path / "catalogue")
    recording = tmp_path / "recording.jsonl.xz"
    lines = [
        {"t": "shoes", "k": ["boot"]},
        {"kind": "goal", "q": "pumps", "tokens": ["pump"], "hits": [["B000000001", 0, 1.0]]},
        {"i": 0, "asin": "B777777777", "options": {}, "reward": 0.5, "info": {}},
        {"manager": "of something else"},
    ]
    recording.write_bytes(lzma.compress("\n".join(json.dumps(line) for line in lines).encode()))
    found = bench(folder, [recording], walks=2)
    assert found["mismatches"] == {"analyses": 1, "searches": 0, "rewards": 1}
    assert (found["compared"], found["not_compared"]) == ({"analyses": 2, "searches": 1, "rewards": 1}, 1)
    assert found["examples"][0] == {"file": recording.name, "record": 1, "kind": "analyses", "recorded": "['boot']", "ours": "['shoe']"}
    assert found["searches_per_second"] > 0 and found["clicks_per_second"] > 0
    for bad in (b"\xff", lzma.compress(b"[1]"), lzma.compress(b'{"obs0": 1}')):
        recording.write_bytes(bad)
        with pytest.raises(DataError, match=r"recording\.jsonl\.xz"):
            bench(folder, [recording], walks=1)
