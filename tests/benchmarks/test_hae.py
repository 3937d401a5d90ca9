"""Rules pinned here: the recorded cases of the authors' code within 1e-5, the loops that are timed compute the same, the bar on speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hiper.benchmarks.hae import bench, case_error, conform, turn_by_turn
from hiper.errors import DataError
from hiper.rl.hae import hierarchical_advantages


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "conformance" / "hae_reference.json"


def test_every_recorded_case_agrees(reference: Path) -> None:
    cases = json.loads(reference.read_text(encoding="utf-8"))["cases"]
    assert len(cases) == 28
    for case in cases:
        assert case_error(case) < 1e-5, f"case of seed {case['seed']}"


def test_a_wrong_equation_would_show(reference: Path) -> None:
    # The comparison itself must be able to fail: one case read under another lambda is far off.
    case = json.loads(reference.read_text(encoding="utf-8"))["cases"][8]
    assert case_error({**case, "config": {**case["config"], "lam_seg": 1.0}}) > 1e-2


@pytest.mark.parametrize("scalar_tensors", [False, True])
def test_the_timed_loops_compute_the_same(scalar_tensors: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4, 3, 6, generator=generator, dtype=torch.float64)
    segment_starts = torch.rand(3, 6, generator=generator) < 0.4
    segment_starts[:, 0] = True
    mask = torch.arange(6) < torch.tensor([[6], [3], [0]])
    args = (*values, segment_starts, torch.zeros(3, dtype=torch.bool), mask)
    expected = hierarchical_advantages(*args, gamma=0.9, lam_low=0.8, lam_high=0.7, bootstrap="none")
    result = turn_by_turn(*args, gamma=0.9, lam_low=0.8, lam_high=0.7, scalar_tensors=scalar_tensors)
    for name, ours in result._asdict().items():
        torch.testing.assert_close(ours, getattr(expected, name), msg=name)


def test_bench_reports_and_restores_the_threads() -> None:
    threads = torch.get_num_threads()
    result = bench(None)
    assert torch.get_num_threads() == threads
    assert result.keys() == {"milliseconds", "python_loop_milliseconds", "ratio", "scalar_tensor_milliseconds", "scalar_tensor_ratio"}
    assert all(value > 0 for value in result.values())
    assert result["scalar_tensor_ratio"] > 1, "vectorising gained nothing over 0-d tensors"


@pytest.mark.slow
def test_the_bars(reference: Path) -> None:
    result = bench(reference)
    assert result["cases"] == 28
    assert result["max_abs_error"] < 1e-5
    assert result["milliseconds"] < 10


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cases": [{}]}', '{"cases": []}'])
def test_refuses_a_file_of_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cases.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"cases\.json .*Expected hae_reference\.json"):
        conform(path)
    with pytest.raises(DataError, match=r"absent\.json.*No such file"):
        bench(tmp_path / "absent.json")
