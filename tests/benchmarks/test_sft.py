"""Rules of the benchmarks of the warm start and of a core's peak.

1. Tokens are those of the demonstrations, padding apart; both losses read the same batches.
2. Operations are counted: of a product, and of attention on a CPU, which torch's own counter leaves out.
3. A share is of processor time on a CPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hiper.benchmarks.peak import Peak, Shape, count_flops, gemm_rate
from hiper.benchmarks.sft import SETTINGS, bench
from hiper.composition.compose import compose
from hiper.errors import ConfigError
from hiper.suites.alfworld.games import TaskIndex

SMALL = ["threads=1", "sft.batch_size=2", "model.tiny.hidden=32", "model.tiny.layers=2", "model.tiny.heads=2", "model.tiny.kv_heads=2"]


@pytest.fixture(scope="module")
def result(task_index: TaskIndex) -> dict[str, Any]:
    return bench(compose([*SETTINGS, *SMALL, "model.tiny.intermediate=48"]), task_index, steps=4)


def test_both_losses_read_the_same(result: dict[str, Any]) -> None:
    limited, trl = result["losses"]["limited"], result["losses"]["trl"]
    assert limited["tokens"] == trl["tokens"]
    assert limited["padded_tokens"] == trl["padded_tokens"] >= limited["tokens"] > 2 * 2 * 20
    assert result["ratio"] == pytest.approx(limited["tokens_per_second"] / trl["tokens_per_second"], abs=0.01)


def test_a_step_has_the_operations_of_its_network(result: dict[str, Any]) -> None:
    """Two for each weight of a linear layer and token, and twice that backwards; the rest is attention and the vocabulary's."""
    for loss in result["losses"].values():
        layers = 2 * (2 * 32 * 32 + 2 * 32 * 32 + 3 * 32 * 48)
        assert loss["flops"] > 3 * 2 * layers * loss["padded_tokens"]
        assert loss["share_of_peak"] > 0
    assert result["losses"]["trl"]["flops"] > result["losses"]["limited"]["flops"], "the whole vocabulary at every token"


def test_too_few_steps_are_refused(task_index: TaskIndex) -> None:
    with pytest.raises(ConfigError, match="--steps 2"):
        bench(compose([*SETTINGS, *SMALL]), task_index, steps=2)


@pytest.mark.parametrize("causal", [False, True])
def test_operations_are_counted(causal: bool) -> None:
    layer, states = nn.Linear(8, 16, bias=False), torch.randn(3, 8)
    heads = torch.randn(2, 4, 32, 16, requires_grad=True)
    with count_flops() as done:
        layer(states)
        assert done() == 2 * 3 * 8 * 16
        before = done()
        out = nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=causal)
        forward = 2 * 2 * (2 * 4 * 32 * 32) * 16 // (2 if causal else 1)
        assert done() - before == forward
        out.sum().backward()
        assert done() - before == forward * 7 // 2


def test_a_rate_is_of_all_shapes_and_a_share_of_processor_time() -> None:
    assert gemm_rate([Shape(64, 32, 32), Shape(64, 32, 32)], torch.device("cpu"), torch.float32, seconds=0.01) > 1e6
    assert Peak(100.0, torch.device("cpu"), 2).share(50.0, seconds=9.0, cpu_seconds=2.0) == 0.5
    assert Peak(100.0, torch.device("cuda"), 2).share(50.0, seconds=1.0, cpu_seconds=9.0) == 0.5
