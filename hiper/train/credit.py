"""Credit of an iteration: shape rewards, ask the estimator, lay its advantages on the reply tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hiper.algos.types import Credit, Estimate, Estimator, ForwardOutputs
from hiper.config.algo import AlgoConfig, CreditUnit, KLPlace, Level, Needs
from hiper.protocol import BlockId
from hiper.rl.hae import normalize
from hiper.rl.losses import explained_variance, kl_terms, truncated_weights
from hiper.rl.masking import level_turns, mask_coverage, spread
from hiper.rl.shaping import shape_rewards
from hiper.rollout.batch import Batch

_BLOCK = {Level.low: BlockId.action, Level.high: BlockId.subgoal, Level.switch: BlockId.switch}


@torch.no_grad()
def assign_credit(estimator: Estimator[Any], batch: Batch, forward: ForwardOutputs) -> Credit:
    """Shape rewards, estimate advantages and lay them on the reply tokens.

    Raises:
        ConfigError: the estimator compares trajectories of a group and the batch has none.
    """
    cfg: AlgoConfig = estimator.settings
    shaping = cfg.shaping
    shaped = shape_rewards(
        batch.rewards,
        batch.invalid,
        batch.keep,
        batch.mismatch,
        batch.mask,
        invalid_penalty=shaping.invalid,
        keep_penalty=shaping.keep,
        keep_mode=shaping.keep_mode.value,
        keep_mismatch_penalty=shaping.keep_mismatch,
        scale=shaping.success_scale,
    )
    if cfg.kl_in is KLPlace.reward:
        shaped = shaped - cfg.kl_coef * _turn_kl(batch, forward, cfg)
    estimate = estimator.estimate(shaped, batch, forward)
    advantages, loss_mask = _on_tokens(estimate, batch, cfg.needs)
    loss_mask &= ~batch.forced
    if cfg.tis_cap is not None:
        advantages = advantages * truncated_weights(forward.logprobs, batch.sampled_logprobs, loss_mask, cap=cfg.tis_cap)
    target = None if estimate.tokens is None else estimate.tokens[1]
    return Credit(shaped, estimate.levels, estimate.values, advantages, loss_mask, target)


def _turn_kl(batch: Batch, forward: ForwardOutputs, cfg: AlgoConfig) -> Tensor:
    """(B, T) KL to the reference over each turn's reply, in nats."""
    terms = kl_terms(forward.logprobs, forward.ref_logprobs, ~batch.forced, estimator=cfg.kl_estimator.value)
    return torch.zeros_like(batch.rewards).scatter_add(1, batch.turns, batch.by_row(terms))


def _on_tokens(estimate: Estimate, batch: Batch, needs: Needs) -> tuple[Tensor, Tensor]:
    """(N,) advantages and mask of the tokens that learn."""
    if needs.credit is CreditUnit.block:
        return _by_block(estimate.levels, batch, needs)
    everything = torch.ones_like(batch.forced)
    if needs.credit is CreditUnit.token:
        assert estimate.tokens is not None, "an estimator with credit=token returns Estimate.tokens"
        advantages = estimate.tokens[0]
        return normalize(advantages, ~batch.forced) if needs.standardise else advantages, everything
    advantages = estimate.levels[Level.low]
    if needs.standardise:
        advantages = normalize(advantages, batch.mask)
    return advantages[batch.token_row, batch.flat(batch.turns)], everything


def _by_block(levels: Mapping[Level, Tensor], batch: Batch, needs: Needs) -> tuple[Tensor, Tensor]:
    """(N,) advantages and mask: each block of a reply has the credit of its level."""
    of = {level: levels[level] for level in Level}
    if needs.standardise:
        kept = level_turns(batch.turns, batch.blocks, batch.segment_starts, batch.mask)
        of = {level: normalize(of[level], keep) for level, keep in zip(Level, kept, strict=True)}
    tokens = spread(of[Level.low], of[Level.high], of[Level.switch], batch.turns, batch.blocks, batch.segment_starts, batch.mask)
    learns = torch.isin(batch.blocks, torch.tensor([_BLOCK[level] for level in needs.learns], device=batch.blocks.device))
    return batch.flat(tokens.advantages), batch.flat(tokens.loss_mask & learns)


def credit_metrics(batch: Batch, forward: ForwardOutputs, credit: Credit) -> dict[str, float]:
    """What the estimator saw: coverage of its masks, size of its advantages, quality of its critics, entropies."""
    coverage = mask_coverage(batch.turns, batch.blocks, batch.segment_starts, batch.mask)
    blocks = batch.flat(batch.blocks)
    turns = float(batch.mask.sum())
    switch_entropy = forward.entropies[credit.loss_mask & (blocks == BlockId.switch)].sum()
    metrics = {
        "hae/mask_coverage": float(coverage.turns),
        "hae/mask_coverage_subgoal": float(coverage.subgoal),
        "optim/entropy": float(forward.entropies[credit.loss_mask].mean()) if bool(credit.loss_mask.any()) else 0.0,
        "switch/entropy": float(switch_entropy) / max(turns, 1.0),
        "rollout/logprob_gap": float((forward.logprobs - batch.sampled_logprobs).abs().mean()),
    }
    for level in Level:
        advantages = credit.levels[level][batch.mask & batch.segment_starts if level is Level.high else batch.mask]
        metrics[f"hae/adv_{level}_mean"] = float(advantages.mean())
        metrics[f"hae/adv_{level}_std"] = float(advantages.std(correction=0))
    for level, target, mask in credit.values:
        metrics[f"value/explained_variance_{level}"] = float(explained_variance(forward.value(level), target, mask))
        metrics[f"value/mean_{level}"] = float(forward.value(level)[mask].mean())
    if credit.token_target is not None:
        metrics["value/explained_variance_low"] = float(explained_variance(forward.token_values, credit.token_target, credit.loss_mask))
        metrics["value/mean_low"] = float(forward.token_values[credit.loss_mask].mean())
    return metrics
