"""The loss of a micro-batch: clipped policy loss, KL to the reference, entropy bonuses, switch-rate loss, value losses.

A mini-batch is one gradient, however many micro-batches it is split into: each term is divided by the mini-batch's count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hiper.algos.types import Credit, ForwardOutputs
from hiper.config.algo import AlgoConfig, CriticConfig, KLPlace
from hiper.protocol import BlockId
from hiper.rl.losses import entropy_loss, kl_loss, policy_loss, value_loss
from hiper.rollout.batch import Batch
from hiper.train.microbatch import MicroBatch


@dataclass(frozen=True)
class LossInputs:
    """A mini-batch: B trajectories with T turns and N reply tokens, of which an optimiser step sees some."""

    batch: Batch
    outputs: ForwardOutputs
    """Before the iteration's first step."""
    credit: Credit
    in_step: Tensor
    """(B,) bool. Trajectories of this step."""
    token_in_step: Tensor
    """(N,) bool."""
    token_count: Tensor
    """Scalar: trained tokens."""
    turn_count: Tensor
    """Scalar: turns."""
    later: Tensor
    """(B, T) bool. Turns after the first: the first turn's start is forced."""
    blocks: Tensor
    """(N,) long. `BlockId` of each token."""

    @classmethod
    def of(cls, batch: Batch, outputs: ForwardOutputs, credit: Credit, chosen: Tensor) -> LossInputs:
        """The mini-batch of chosen trajectories, (b,) long."""
        in_step = torch.zeros(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
        in_step[chosen] = True
        token_in_step = in_step[batch.token_row]
        live = batch.mask & in_step[:, None]
        later = live.clone()
        later[:, 0] = False
        return cls(
            batch,
            outputs,
            credit,
            in_step,
            token_in_step,
            token_count=(credit.loss_mask & token_in_step).sum(),
            turn_count=live.sum(),
            later=later,
            blocks=batch.flat(batch.blocks),
        )


@dataclass(frozen=True)
class LossOutputs:
    """Of one micro-batch."""

    loss: Tensor
    """Scalar; it needs no gradient where nothing is left to step."""
    metrics: list[tuple[str, Tensor]]
    """Scalars without gradient; those of one key, of all micro-batches, add up to the mini-batch's."""


@dataclass(frozen=True)
class _Term:
    """One part of a loss."""

    weight: float | None
    """None: it is a metric alone."""
    value: Tensor
    metric: str | None = None


def ppo_loss(part: MicroBatch, step: LossInputs, algo: AlgoConfig, *, critic_only: bool, fitted: bool) -> LossOutputs:
    """The loss of a micro-batch.

    Args:
        part: its forward pass, with gradients.
        step: the mini-batch it is of.
        algo: settings of the loss.
        critic_only: the policy has no loss.
        fitted: the value heads are fitted by least squares, so that value losses are metrics alone.
    """
    terms: list[_Term] = []
    if not critic_only:
        terms += _policy_terms(part, step, algo)
        if algo.switch_rate_target is not None:
            terms.append(_switch_rate_term(part, step, algo.switch_rate_target, algo.switch_rate_coef))
    terms += _value_terms(part, step, algo, fitted)
    loss = part.logprobs.new_zeros(())
    metrics: list[tuple[str, Tensor]] = []
    for term in terms:
        if term.weight is not None:
            loss = loss + (term.value if term.weight == 1.0 else term.weight * term.value)
        if term.metric is not None:
            metrics.append((term.metric, term.value.detach()))
    return LossOutputs(loss, metrics)


def _policy_terms(part: MicroBatch, step: LossInputs, algo: AlgoConfig) -> Iterator[_Term]:
    loss_mask = step.credit.loss_mask[part.tokens]
    policy = policy_loss(
        part.logprobs,
        step.outputs.logprobs[part.tokens],
        step.credit.advantages[part.tokens],
        loss_mask,
        clip=algo.clip,
        clip_high=algo.clip_high,
        count=step.token_count,
    )
    # The reference holds every reply token, those outside the blocks too: nothing else keeps them from drifting.
    kl = kl_loss(
        part.logprobs,
        step.outputs.ref_logprobs[part.tokens],
        torch.ones_like(loss_mask),
        estimator=algo.kl_estimator.value,
        count=(step.token_in_step & ~step.batch.forced).sum(),
    )
    yield _Term(1.0, policy.loss, "optim/policy_loss")
    yield _Term(None, policy.clip_fraction, "optim/clip_fraction")
    yield _Term(None, policy.approx_kl, "optim/approx_kl")
    yield _Term(algo.kl_coef if algo.kl_in is KLPlace.loss else None, kl.loss, "optim/kl_ref")
    if algo.entropy_coef > 0:
        yield _Term(algo.entropy_coef, entropy_loss(part.entropies, loss_mask, count=step.token_count).loss)
    if algo.switch_entropy_coef > 0:
        # Per turn, not per token: the tags around the decision have no entropy to give.
        deciding = loss_mask & (step.blocks[part.tokens] == BlockId.switch)
        yield _Term(algo.switch_entropy_coef, entropy_loss(part.entropies, deciding, count=step.turn_count).loss)


def _switch_rate_term(part: MicroBatch, step: LossInputs, target: float, weight: float) -> _Term:
    """The squared distance of the switch rate to its target; its gradient is right, its value is not.

    The square is of the whole mini-batch and this is a part of it: the distance is taken as it was before the step.
    """
    row, turn = part.turns.unbind(1)
    before = step.outputs.logprobs
    now = step.batch.switch_probability(before.index_put((part.tokens,), part.logprobs))[row, turn]
    distance = step.batch.switch_probability(before)[step.later].mean() - target
    return _Term(1.0, weight * 2 * distance * ((now * step.later[row, turn]).sum() / step.later.sum().clamp(min=1)))


def _value_terms(part: MicroBatch, step: LossInputs, algo: AlgoConfig, fitted: bool) -> Iterator[_Term]:
    if not algo.needs.critic:
        return
    assert isinstance(algo, CriticConfig)  # see hiper.algos.registry.make_estimator
    weight = None if fitted else algo.value_coef
    row, turn = part.turns.unbind(1)
    for level, target, mask in step.credit.values:
        value = value_loss(
            part.values[:, level.head].float(),
            step.outputs.value(level)[row, turn],
            target[row, turn],
            mask[row, turn],
            clip=algo.value_clip,
            count=(mask & step.in_step[:, None]).sum(),
        )
        yield _Term(weight, value.loss, "value/loss")
    if step.credit.token_target is not None:
        value = value_loss(
            part.token_values.float(),
            step.outputs.token_values[part.tokens],
            step.credit.token_target[part.tokens],
            step.credit.loss_mask[part.tokens],
            clip=algo.value_clip,
            count=step.token_count,
        )
        yield _Term(weight, value.loss, "value/loss")
