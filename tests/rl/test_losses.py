"""Rules pinned here:

- each loss on numbers worked by hand;
- gradients point the right way, the clip zeroes them where and only where it binds;
- an empty mask gives exactly 0 and a zero gradient; what lies outside the mask, NaN or -inf, never matters;
- micro-batches with the mini-batch's count add up to the mini-batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl.losses import (
    KL_ESTIMATORS,
    entropy_loss,
    explained_variance,
    kl_loss,
    kl_terms,
    policy_loss,
    token_entropy,
    truncated_weights,
    value_loss,
)

NAN, INF = float("nan"), float("inf")


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, requires_grad=True)


def every(n: int) -> Tensor:
    return torch.ones(n, dtype=torch.bool)


# --- policy ---------------------------------------------------------------------------------------


def test_policy_loss_by_hand() -> None:
    ratios, advantages = (1.5, 0.5, 1.5, 0.5, 1.1), torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0])
    logprobs = leaf(*map(math.log, ratios))
    result = policy_loss(logprobs, torch.zeros(5), advantages, every(5), clip=0.2)
    # min(rho A, clip(rho) A):  min(1.5, 1.2)  min(0.5, 0.8)  min(-1.5, -1.2)  min(-0.5, -0.8)  min(2.2, 2.2)
    assert result.loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 + 2.2) / 5)
    assert result.clip_fraction.item() == pytest.approx(2 / 5)
    assert result.approx_kl.item() == pytest.approx(sum(rho - 1 - math.log(rho) for rho in ratios) / 5, rel=1e-5)
    result.loss.backward()  # type: ignore[no-untyped-call]
    # d(-rho A)/d logprob = -rho A, and zero where the clip binds: tokens 0 and 3.
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, -0.5, 1.5, 0.0, -2.2]) / 5)


def test_clip_higher_by_hand() -> None:
    result = policy_loss(leaf(*map(math.log, (1.25, 1.5, 0.7))), torch.zeros(3), torch.ones(3), every(3), clip=0.2, clip_high=0.3)
    assert result.loss.item() == pytest.approx(-(1.25 + 1.3 + 0.7) / 3)
    falling = policy_loss(leaf(math.log(0.5)), torch.zeros(1), -torch.ones(1), every(1), clip=0.2, clip_high=0.3)
    assert falling.loss.item() == pytest.approx(0.8), "the lower side keeps its own clip"


def test_truncated_weights_by_hand() -> None:
    trainer, sampler = torch.tensor([-1.0, -1.0, -3.0, 0.0]), torch.tensor([-1.0, -3.0, -1.0, -INF])
    weights = truncated_weights(trainer, sampler, torch.tensor([True, True, True, False]), cap=2.0)
    assert weights.tolist() == pytest.approx([1.0, 2.0, math.exp(-2), 1.0])


def test_an_unmoved_policy_gets_the_plain_policy_gradient() -> None:
    advantages, mask = torch.tensor([2.0, -3.0, 5.0]), torch.tensor([True, True, False])
    logprobs = leaf(-1.0, -2.0, -3.0)
    result = policy_loss(logprobs, logprobs, advantages, mask, clip=0.2)
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.0, 1.5, 0.0]))  # -A / 2 on the two trained tokens
    assert result.clip_fraction == 0 and result.approx_kl == 0


def test_a_step_down_the_loss_raises_what_was_good() -> None:
    logits = torch.zeros(1, 3, requires_grad=True)
    logprob = logits.log_softmax(-1)[:, 1]
    policy_loss(logprob, logprob, torch.ones(1), every(1), clip=0.2).loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits - logits.grad).softmax(-1)[0, 1] > 1 / 3


def test_a_token_far_off_its_policy_stays_finite() -> None:
    logprobs = leaf(0.0, -500.0)
    result = policy_loss(logprobs, torch.tensor([-500.0, 0.0]), torch.tensor([-1.0, 1.0]), every(2), clip=0.2)
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    assert result.loss.isfinite() and result.approx_kl.isfinite() and logprobs.grad.isfinite().all()


# --- KL and entropy -------------------------------------------------------------------------------


def test_kl_by_hand() -> None:
    # d = ref - new = ln 2 and -ln 2: k3 = 2 - ln 2 - 1 and 1/2 + ln 2 - 1; k1 = -ln 2 and ln 2.
    logprobs = leaf(-math.log(2), 0.0)
    result = kl_loss(logprobs, torch.tensor([0.0, -math.log(2)]), every(2))
    assert result.loss.item() == pytest.approx(0.25)
    assert result.k1.item() == pytest.approx(0.0, abs=1e-7)
    result.loss.backward()  # type: ignore[no-untyped-call]
    # d k3/d logprob = 1 - exp(d): negative for a token the reference likes better, so a step down the loss raises it.
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.0, 0.5]) / 2)


def test_k3_is_an_unbiased_estimate_of_the_divergence() -> None:
    policy, reference = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    expected = (policy * (policy / reference).log()).sum()
    each = torch.stack([kl_loss(p.log()[None], q.log()[None], every(1)).loss for p, q in zip(policy, reference, strict=True)])
    torch.testing.assert_close((policy * each).sum(), expected)


def test_k2_has_the_gradient_of_the_divergence_and_k3_that_of_its_reverse() -> None:
    logits, reference = torch.tensor([0.5, -0.2, 1.0], requires_grad=True), torch.tensor([0.2, 0.2, 0.6])
    policy = logits.log_softmax(0)
    forward, reverse = (policy.exp() * (policy - reference.log())).sum(), (reference * (reference.log() - policy)).sum()
    for estimator, divergence in (("k2", forward), ("k3", reverse)):
        each = [kl_loss(policy[i : i + 1], reference[i : i + 1].log(), every(1), estimator=estimator).loss for i in range(3)]
        # Sampled tokens carry the policy's weights, which no gradient flows through.
        (found,) = torch.autograd.grad((policy.exp().detach() * torch.stack(each)).sum(), logits, retain_graph=True)
        (expected,) = torch.autograd.grad(divergence, logits, retain_graph=True)
        torch.testing.assert_close(found, expected)


def test_k1_is_unbiased_with_a_gradient_of_zero_on_average() -> None:
    policy, reference = torch.tensor([0.7, 0.2, 0.1], requires_grad=True), torch.tensor([0.5, 0.2, 0.3])
    each = kl_terms(policy.log(), reference.log(), every(3), estimator="k1")
    assert float((policy * each).sum().detach()) == pytest.approx(float((policy * (policy / reference).log()).sum().detach()), abs=1e-6)
    (gradient,) = torch.autograd.grad((policy.detach() * each).sum(), policy)
    assert gradient.tolist() == pytest.approx([1.0, 1.0, 1.0], abs=1e-6), "the same for every token: nothing on the simplex"


def test_k2_does_not_explode_on_a_token_the_policy_has_dropped() -> None:
    gradients = {}
    for estimator in KL_ESTIMATORS:
        logprobs = leaf(-12.0)
        kl_loss(logprobs, torch.tensor([0.0]), every(1), estimator=estimator).loss.backward()  # type: ignore[no-untyped-call]
        assert logprobs.grad is not None
        gradients[estimator] = logprobs.grad.item()
    assert gradients["k2"] == pytest.approx(-12.0) and gradients["k3"] < -1e5


def test_token_entropy_by_hand_and_with_impossible_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -INF, -INF], [3.0, -INF, -INF, -INF]], requires_grad=True)
    entropies = token_entropy(logits)
    torch.testing.assert_close(entropies, torch.tensor([math.log(4), math.log(2), 0.0]))
    entropies.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_entropy_loss_by_hand() -> None:
    result = entropy_loss(torch.tensor([1.0, 2.0, NAN]), torch.tensor([True, True, False]))
    assert (result.loss.item(), result.entropy.item()) == (-1.5, 1.5)
    logits = torch.tensor([[2.0, 0.0]], requires_grad=True)
    entropy_loss(token_entropy(logits), every(1)).loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and logits.grad[0, 0] > 0 > logits.grad[0, 1]  # a step down evens them out


# --- values ---------------------------------------------------------------------------------------


def test_value_loss_by_hand() -> None:
    values, old, targets = leaf(1.0, 2.0, 0.2), torch.zeros(3), torch.tensor([2.0, 3.0, 2.0])
    result = value_loss(values, old, targets, every(3), clip=0.5)
    # Clipped to 0.5, 0.5, 0.2: errors max(1, 2.25), max(1, 6.25), 1.8^2; halved and averaged.
    assert result.loss.item() == pytest.approx(0.5 * (2.25 + 6.25 + 3.24) / 3)
    assert result.clip_fraction.item() == pytest.approx(2 / 3)
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.tensor([0.0, 0.0, -1.8]) / 3)


def test_value_clip_never_stops_a_head_from_coming_back() -> None:
    # It ran past its target by more than the clip: the unclipped error is the larger one and keeps its gradient.
    values = leaf(3.0)
    result = value_loss(values, torch.zeros(1), torch.tensor([0.4]), every(1), clip=0.5)
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None and values.grad.item() == pytest.approx(2.6) and result.clip_fraction == 0


def test_explained_variance_by_hand() -> None:
    targets, mask = torch.tensor([0.0, 2.0, 4.0, NAN]), torch.tensor([True, True, True, False])

    def share(*values: float) -> float:
        return explained_variance(torch.tensor([*values, NAN]), targets, mask).item()

    assert share(0, 2, 4) == 1.0
    assert share(5, 5, 5) == 0.0
    assert share(1, 3, 5) == 1.0  # a constant error leaves no variance
    assert share(0, 1, 2) == pytest.approx(0.75)  # errors 0, 1, 2: variance 2/3 of 8/3
    assert share(4, 2, 0) == pytest.approx(-3.0)  # errors -4, 0, 4: variance 32/3 of 8/3
    assert explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 3.0]), every(2)) == 0.0
    assert explained_variance(torch.tensor([1.0]), torch.tensor([3.0]), every(1)) == 0.0
    assert explained_variance(torch.tensor([1.0]), torch.tensor([3.0]), ~every(1)) == 0.0


# --- masks and counts, every loss -----------------------------------------------------------------

Loss = Callable[..., Any]
LOSSES: dict[str, Loss] = {
    "policy": lambda x, y, z, mask, **more: policy_loss(x, y, z, mask, clip=0.2, **more),
    "kl": lambda x, y, z, mask, **more: kl_loss(x, y, mask, **more),
    "kl, k2": lambda x, y, z, mask, **more: kl_loss(x, y, mask, estimator="k2", **more),
    "entropy": lambda x, y, z, mask, **more: entropy_loss(x, mask, **more),
    "value": lambda x, y, z, mask, **more: value_loss(x, y, z, mask, clip=0.2, **more),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_an_empty_mask_contributes_nothing(loss: Loss) -> None:
    x = leaf(-INF, NAN, 1.0)
    result = loss(x, torch.tensor([NAN, -INF, 2.0]), torch.tensor([NAN, INF, 3.0]), ~every(3))
    assert all(value.item() == 0.0 for value in result)
    result.loss.backward()
    assert x.grad is not None and (x.grad == 0).all()
    assert loss(torch.zeros(0), torch.zeros(0), torch.zeros(0), every(0)).loss.item() == 0.0


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_what_is_masked_never_matters(loss: Loss) -> None:
    x, y, z = (torch.randn(6, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    mask = torch.tensor([True, False, True, True, False, False])
    plain = x.clone().requires_grad_()
    spoilt = torch.where(mask, x, torch.tensor([0, NAN, 0, 0, -INF, INF])).requires_grad_()
    expected = loss(plain, y, z, mask)
    result = loss(spoilt, torch.where(mask, y, -INF), torch.where(mask, z, NAN), mask)
    alone = loss(x[mask], y[mask], z[mask], every(3))
    for ours, theirs, third in zip(result, expected, alone, strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours, third)
    result.loss.backward()
    expected.loss.backward()
    torch.testing.assert_close(spoilt.grad, plain.grad)
    assert spoilt.grad is not None and (spoilt.grad[~mask] == 0).all()
    assert all(not value.requires_grad for value in result[1:])


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_micro_batches_add_up(loss: Loss) -> None:
    x, y, z = (torch.randn(10, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    mask = torch.rand(10, generator=torch.Generator().manual_seed(9)) < 0.6
    whole = loss(x, y, z, mask)
    for count in (int(mask.sum()), mask.sum()):
        parts = [loss(x[i], y[i], z[i], mask[i], count=count) for i in (slice(0, 3), slice(3, 4), slice(4, 10))]
        for index, expected in enumerate(whole):
            torch.testing.assert_close(torch.stack([part[index] for part in parts]).sum(), expected)


# --- refusals -------------------------------------------------------------------------------------


def test_refuses() -> None:
    three, mask = torch.zeros(3), every(3)
    with pytest.raises(ValueError, match=r"old_logprobs has shape \(2,\)"):
        policy_loss(three, three[:2], three, mask, clip=0.2)
    with pytest.raises(ValueError, match="mask has dtype torch.float32"):
        kl_loss(three, three, mask.float())
    with pytest.raises(ValueError, match=r"mask has shape \(2,\)"):
        entropy_loss(three, mask[:2])
    with pytest.raises(ConfigError, match="clip=0 is out of range"):
        policy_loss(three, three, three, mask, clip=0)
    with pytest.raises(ConfigError, match="clip=-1 is out of range"):
        policy_loss(three, three, three, mask, clip=0.2, clip_high=-1)
    with pytest.raises(ConfigError, match="cap=0 is out of range"):
        truncated_weights(three, three, mask, cap=0)
    with pytest.raises(ConfigError, match="kl_estimator='k4' is unknown"):
        kl_loss(three, three, mask, estimator="k4")
    with pytest.raises(ConfigError, match="clip=-1 is out of range"):
        value_loss(three, three, three, mask, clip=-1)
    with pytest.raises(ValueError, match=r"targets has shape \(2,\)"):
        explained_variance(three, three[:2], mask)
