"""The losses of an update, over flat or batched tokens and positions.

Every loss is a sum over the masked entries divided by `count`. Left out, `count` is the number of masked entries, so the loss is their
mean. A mini-batch that is run in several micro-batches passes the mini-batch's number to each: the parts then add up to the
mini-batch's mean, whatever the split. With nothing masked a loss is exactly 0 and its gradient zero, never NaN. Entries outside the
mask may hold anything. Reported shares and means follow the same division, so they add up too.

Sources: PPO, arXiv:1707.06347 (clipped surrogate); the value clipping and 0.5 of its reference implementation (openai/baselines, ppo2);
k1, k2 and k3 estimators of KL, Schulman, "Approximating KL Divergence", 2020.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hiper.errors import ConfigError
from hiper.rl._checks import check_bool, check_choice, check_shapes

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 before `exp`: beyond it a token has left its policy by a factor of 5e8, and float32 nears infinity."""

KL_ESTIMATORS = ("k1", "k2", "k3")
"""How the KL to the reference is estimated; see `kl_terms`."""


class PolicyLoss(NamedTuple):
    """Scalars; only `loss` carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor
    """Share of tokens where the clip binds, so that they have no gradient."""
    approx_kl: Tensor
    """k3 estimate of KL(old || new), in nats a token."""


class KLLoss(NamedTuple):
    """Scalars; only `loss` carries a gradient."""

    loss: Tensor
    """In nats a token; never negative, but for k1."""
    k1: Tensor
    """Mean of logprobs - ref_logprobs: unbiased, but of either sign."""


class EntropyLoss(NamedTuple):
    """Scalars; only `loss` carries a gradient."""

    loss: Tensor
    """Minus the mean entropy: adding it to the total rewards entropy."""
    entropy: Tensor
    """Nats a token."""


class ValueLoss(NamedTuple):
    """Scalars; only `loss` carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor
    """Share of positions where the clipped error is the larger one, so that they have no gradient."""


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
    count: float | Tensor | None = None,
) -> PolicyLoss:
    """PPO's clipped surrogate: the sum over tokens of -min(rho * A, clip(rho, 1 - eps, 1 + eps_high) * A) / count.

    Args:
        logprobs: (..., L) float. Log-probability of each token under the policy being trained.
        old_logprobs: same shape. Under the policy that sampled it.
        advantages: same shape. Per token (`masking.spread`); taken as constants.
        mask: same shape, bool. True on trained tokens.
        clip: eps > 0.
        clip_high: eps_high > 0; None: eps. Above eps it lets unlikely tokens grow (clip-higher; DAPO, arXiv:2503.14476).
        count: trained tokens of the mini-batch; unset: of this call.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: `clip` or `clip_high` is not above 0.
    """
    check_shapes("the shape of logprobs", logprobs.shape, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    check_bool(mask=mask)
    clip_high = clip if clip_high is None else clip_high
    _check_clip(clip)
    _check_clip(clip_high)
    log_ratio = _log_ratio(logprobs, old_logprobs.detach(), mask)
    ratio = log_ratio.exp()
    advantages = torch.where(mask, advantages.detach(), 0.0)
    plain, clipped = ratio * advantages, ratio.clamp(1 - clip, 1 + clip_high) * advantages
    return PolicyLoss(
        -_mean(torch.minimum(plain, clipped), mask, count),
        _mean((clipped < plain).to(ratio.dtype), mask, count).detach(),
        _mean(ratio - 1 - log_ratio, mask, count).detach(),
    )


def truncated_weights(old_logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """min(pi_trainer / pi_sampler, cap) of each token: what its advantage is worth where the sampler is another program than the trainer.

    An inference engine's kernels give slightly other probabilities than the trainer's, which makes on-policy data off-policy; the weight
    corrects that, and the cap bounds its variance (truncated importance sampling; Ionides, 2008).

    Args:
        old_logprobs: (..., L) float, by the trainer's network, before any step.
        sampled_logprobs: same shape, as the sampler recorded them.
        mask: same shape, bool. True on trained tokens; the weight of others is 1.
        cap: above 0.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: the cap is not above 0.
    """
    check_shapes("the shape of old_logprobs", old_logprobs.shape, sampled_logprobs=sampled_logprobs, mask=mask)
    check_bool(mask=mask)
    if not cap > 0:
        raise ConfigError(f"cap={cap!r} is out of range: it must be above 0.")
    return torch.where(mask, _log_ratio(old_logprobs, sampled_logprobs, mask).exp().clamp(max=cap), 1.0)


def kl_terms(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, estimator: str) -> Tensor:
    """KL to the reference policy at each sampled token, in nats; zero off the mask.

    With d = ref_logprobs - logprobs: `k1` is -d, `k2` is d^2 / 2, `k3` is exp(d) - d - 1 (published). k1 and k3 are unbiased estimates of
    KL(policy || reference); k3 is never negative, k1 is of either sign. As a loss they differ. The gradient of k1 is zero on average.
    That of k3, 1 - exp(d), is on average that of KL(reference || policy), and has no bound: a token the reference likes and the policy
    has dropped outweighs all others in the step. That of k2, -d, is on average the KL's own and grows with the log-ratio only.

    Args:
        logprobs: (..., L) float, of sampled tokens under the policy being trained.
        ref_logprobs: same shape, under the reference; taken as constants.
        mask: same shape, bool. True on tokens that count.
        estimator: one of `KL_ESTIMATORS`.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: the estimator is unknown.
    """
    check_choice("kl_estimator", estimator, KL_ESTIMATORS)
    check_shapes("the shape of logprobs", logprobs.shape, ref_logprobs=ref_logprobs, mask=mask)
    check_bool(mask=mask)
    log_ratio = -_log_ratio(logprobs, ref_logprobs.detach(), mask)
    if estimator == "k1":
        return -log_ratio
    return log_ratio.square() / 2 if estimator == "k2" else log_ratio.exp() - log_ratio - 1


def kl_loss(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, estimator: str = "k3", count: float | Tensor | None = None) -> KLLoss:
    """Mean of `kl_terms` over the mask; arguments and errors as there, `count` as in `policy_loss`."""
    terms = kl_terms(logprobs, ref_logprobs, mask, estimator=estimator)
    with torch.no_grad():
        k1 = _mean(kl_terms(logprobs, ref_logprobs, mask, estimator="k1"), mask, count)
    return KLLoss(_mean(terms, mask, count), k1)


def token_entropy(logits: Tensor) -> Tensor:
    """Entropy of each position's distribution in nats: (..., V) float logits to (...); a logit of -inf is a token that cannot be."""
    logprobs = logits.log_softmax(dim=-1)
    return -(logprobs.exp() * logprobs.masked_fill(logprobs == -torch.inf, 0.0)).sum(dim=-1)


def entropy_loss(entropies: Tensor, mask: Tensor, *, count: float | Tensor | None = None) -> EntropyLoss:
    """Minus the mean of `entropies` (..., L) (`token_entropy`) over the `mask` (..., L) bool; `count` as in `policy_loss`.

    Raises:
        ValueError: shapes or dtypes differ from the above.
    """
    check_shapes("the shape of entropies", entropies.shape, mask=mask)
    check_bool(mask=mask)
    entropy = _mean(torch.where(mask, entropies, 0.0), mask, count)
    return EntropyLoss(-entropy, entropy.detach())


def value_loss(
    values: Tensor, old_values: Tensor, targets: Tensor, mask: Tensor, *, clip: float, count: float | Tensor | None = None
) -> ValueLoss:
    """Clipped squared error of one value head: the sum of 0.5 * max((v - y)^2, (v_clipped - y)^2) / count.

    v_clipped = old + clip(v - old, -eps, eps): a head that already moved eps towards its target gets no further gradient.

    Args:
        values: (...) float. Of the head being trained, at the positions it is read.
        old_values: same shape. When the trajectories were sampled.
        targets: same shape. Of `hierarchical_advantages`.
        mask: same shape, bool. True on positions that count: live turns, or segment starts for V_high.
        clip: eps > 0, in the reward's units.
        count: positions of the mini-batch; unset: of this call.

    Raises:
        ValueError: shapes or dtypes differ from the above.
        ConfigError: `clip` is not above 0.
    """
    check_shapes("the shape of values", values.shape, old_values=old_values, targets=targets, mask=mask)
    check_bool(mask=mask)
    _check_clip(clip)
    new = torch.where(mask, values, 0.0)
    old, target = (torch.where(mask, tensor.detach(), 0.0) for tensor in (old_values, targets))
    error = (new - target) ** 2
    clipped_error = (old + (new - old).clamp(-clip, clip) - target) ** 2
    return ValueLoss(
        0.5 * _mean(torch.maximum(error, clipped_error), mask, count), _mean((clipped_error > error).to(new.dtype), mask, count).detach()
    )


@torch.no_grad()
def explained_variance(values: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(targets - values) / Var(targets) over the mask: 1 perfect, 0 no better than a constant, negative worse than that.

    A scalar; 0 where it is undefined, with fewer than two positions or equal targets.

    Raises:
        ValueError: shapes or dtypes differ.
    """
    check_shapes("the shape of values", values.shape, targets=targets, mask=mask)
    check_bool(mask=mask)
    target, error = targets[mask].double(), (targets[mask].double() - values[mask].double())
    if target.numel() < 2 or bool((target == target[0]).all()):
        return values.new_zeros(())
    return (1 - error.var(correction=0) / target.var(correction=0)).to(values.dtype)


def _check_clip(clip: float) -> None:
    if not clip > 0:
        raise ConfigError(f"clip={clip!r} is out of range: it must be above 0.")


def _log_ratio(logprobs: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    # Masked before subtracting: padding may hold -inf, and inf - inf or 0 * inf would put NaN into the gradient of every weight.
    difference = torch.where(mask, logprobs, 0.0) - torch.where(mask, other, 0.0)
    return difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def _mean(terms: Tensor, mask: Tensor, count: float | Tensor | None) -> Tensor:
    """Sum of the terms, which are finite everywhere, over the mask, divided by the count (at least 1)."""
    total = (terms * mask).sum()
    if count is None:
        count = mask.sum()
    return total / (count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1))
