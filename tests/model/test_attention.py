"""Rules of bfloat16 passes on a CPU.

1. Attention and its gradients are PyTorch's float32 ones within bfloat16's rounding, at the borders of a block and between, with as many
   heads as keys or fewer keys.
2. A token sees nothing of later ones, exactly; beside a cache it sees what the mask allows.
3. Where ours is not meant - outside of autocast, with dropout, on long sequences - the result is PyTorch's own to the bit.
4. An actor that computes in bfloat16 keeps its weights, gradients, logits and values in float32, and says nearly what it says in float32.
5. `auto` is one of the two, and the same whenever it is asked.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedTokenizerBase

from hiper.config import ComputeDtype, Critic, Init, TinyConfig
from hiper.model import attention as ours
from hiper.model.actor import Actor
from hiper.model.compute import autocast, multiplies_bfloat16
from hiper.model.tiny import build_tiny

CPU = torch.device("cpu")
ROUNDING = 0.015
"""bfloat16 has eight bits of precision: a number is rounded by up to 0.4 %, and some are rounded twice."""


class Layer(torch.nn.Module):
    """What PyTorch's attention wants to know of the layer it is called for."""

    is_causal = True
    num_key_value_groups = 1


def inputs(length: int, heads: int = 4, keys: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, heads, length, 16), (2, keys, length, 16), (2, keys, length, 16))
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def run(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    """(B, H, Q, D) under autocast."""
    layer = Layer()
    layer.num_key_value_groups = query.shape[1] // key.shape[1]
    with torch.autocast("cpu", torch.bfloat16):
        return ours.attention(layer, query, key, value, mask, **kwargs)[0].transpose(1, 2)


def apart(found: Tensor, expected: Tensor) -> float:
    """Relative distance, by the norm of the whole."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def gradients(output: Tensor, of: list[Tensor]) -> tuple[Tensor, ...]:
    weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((output.float() * weight).sum(), of)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 150])
@pytest.mark.parametrize("keys", [4, 2])
def test_attention_is_pytorchs_within_rounding(length: int, keys: int) -> None:
    tensors = inputs(length, keys=keys)
    exact = scaled_dot_product_attention(*tensors, is_causal=True, enable_gqa=True)
    found = run(*tensors)
    assert found.dtype == torch.bfloat16
    assert apart(found, exact) < ROUNDING
    ours, theirs = gradients(found, tensors), gradients(exact, tensors)
    largest = max(float(gradient.norm()) for gradient in theirs)  # those of queries and keys are zero where there is one token
    assert max(float((mine - other).norm()) for mine, other in zip(ours, theirs, strict=True)) < ROUNDING * largest


def test_a_scale_is_heeded() -> None:
    tensors = inputs(70)
    assert apart(run(*tensors, scaling=1.0), scaled_dot_product_attention(*tensors, is_causal=True, scale=1.0)) < ROUNDING
    assert apart(run(*tensors, scaling=1.0), run(*tensors)) > 0.5


def test_nothing_later_is_seen() -> None:
    query, key, value = (x.detach() for x in inputs(130))
    before = run(query, key, value)
    for place in (1, 64, 100, 129):
        other = [x.clone() for x in (query, key, value)]
        for x in other:
            x[:, :, place:] += 1.0
        after = run(*other)
        assert torch.equal(after[:, :, :place], before[:, :, :place])
        assert not torch.equal(after[:, :, place:], before[:, :, place:])


@torch.no_grad()
@pytest.mark.parametrize("queries", [1, 3, ours._FEW, ours._FEW + 1])
def test_beside_a_cache_the_mask_rules(queries: int) -> None:
    query, (_, key, value) = inputs(queries, seed=3)[0], inputs(90)
    mask = torch.rand(2, 1, queries, 90, generator=torch.Generator().manual_seed(4)) < 0.5
    mask[..., 0] = True
    found = run(query, key, value, mask).float()
    assert apart(found, scaled_dot_product_attention(query, key, value, mask)) < ROUNDING
    unseen = torch.where(mask.any(2)[:, :, :, None], value, 1e4)
    torch.testing.assert_close(run(query, key, unseen, mask).float(), found, atol=0.0, rtol=0.0)


def test_elsewhere_it_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = inputs(40)
    exact = scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.equal(ours.attention(Layer(), query, key, value, None)[0].transpose(1, 2), exact)
    rounded = [x.detach().to(torch.bfloat16) for x in (query, key, value)]
    monkeypatch.setattr(ours, "LONGEST", 39)
    assert torch.equal(run(query, key, value), scaled_dot_product_attention(*rounded, is_causal=True))
    monkeypatch.setattr(ours, "LONGEST", 40)
    assert not torch.equal(run(query, key, value), scaled_dot_product_attention(*rounded, is_causal=True)), "they round differently"
    torch.manual_seed(0)
    dropped = run(query, key, value, dropout=0.5)
    torch.manual_seed(0)
    assert torch.equal(dropped, scaled_dot_product_attention(*rounded, is_causal=True, dropout_p=0.5))


@pytest.mark.parametrize("critic", Critic)
def test_an_actor_keeps_float32_where_it_counts(words: PreTrainedTokenizerBase, critic: Critic) -> None:
    tiny = TinyConfig(hidden=32, layers=2, heads=2, kv_heads=2, intermediate=48, init=Init.default)
    exact = Actor(build_tiny(tiny, words, seed=0), critic)
    torch.nn.init.normal_(exact.heads.weight, generator=torch.Generator().manual_seed(0))
    half = Actor(copy.deepcopy(exact.lm), critic, compute=ComputeDtype.bfloat16)
    half.load_state_dict(exact.state_dict())
    ids = torch.randint(5, len(words), (3, 80), generator=torch.Generator().manual_seed(1))
    said, close = exact(ids), half(ids)
    assert not torch.equal(said.hidden, close.hidden), "this was to be computed in bfloat16"
    for name, of_exact, of_half in (
        ("logits", exact.logits(said.hidden[0]), half.logits(close.hidden[0])),
        ("values", said.values, close.values),
    ):
        assert of_half.dtype == torch.float32
        assert apart(of_half, of_exact) < ROUNDING, name
    half.logits(close.hidden[0]).log_softmax(-1)[:, 7].sum().backward()
    grads = [parameter.grad for parameter in half.lm.parameters()]
    assert all(grad is not None and grad.dtype == torch.float32 and grad.abs().sum() > 0 for grad in grads)


def test_auto_is_one_of_the_two() -> None:
    with autocast(ComputeDtype.auto, CPU):
        found = torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype
    assert found is (torch.bfloat16 if multiplies_bfloat16("cpu") else torch.float32)
    with autocast(ComputeDtype.float32, CPU):
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype is torch.float32
    assert not multiplies_bfloat16("mps"), "not known to be faster"
