"""Credit: from rewards and values to an advantage for every reply token, and to what the value heads should learn.

`algo.name` chooses the estimator. Each reads the same episodes and answers the same question, so that runs differ in nothing else:
the hierarchical one credits a turn's switch, subgoal and action apart, the flat ones give one advantage to the whole reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hiper.config import AlgoConfig, Estimator, KLPlace, Level, SwitchCredit
from hiper.model.actor import LEVELS
from hiper.protocol import BlockId
from hiper.rl.gae import turn_advantages
from hiper.rl.gigpo import gigpo_advantages
from hiper.rl.grpo import grpo_advantages
from hiper.rl.hae import hierarchical_advantages, normalize
from hiper.rl.losses import explained_variance, kl_terms, truncated_weights
from hiper.rl.masking import level_turns, mask_coverage, spread
from hiper.rl.reinforce_pp import reinforce_pp_advantages
from hiper.rl.rloo import rloo_advantages
from hiper.rl.shaping import shape_rewards
from hiper.rl.token_gae import token_advantages
from hiper.train.batch import Batch
from hiper.train.forward import Scores
from hiper.train.metrics import Metrics

LOW, HIGH, SWITCH = range(3)
"""The value heads, in the order of `hiper.model.actor.LEVELS`."""

_BLOCK = {Level.low: BlockId.action, Level.high: BlockId.subgoal, Level.switch: BlockId.switch}


class ValueTarget(NamedTuple):
    """What one value head should say."""

    head: int
    """LOW, HIGH or SWITCH."""
    target: Tensor
    """(B, T) float."""
    mask: Tensor
    """(B, T) bool. Turns that count."""


class LevelAdvantages(NamedTuple):
    """Advantages of a turn's action, subgoal and switch decision, each (B, T) float; flat estimators know no difference."""

    low: Tensor
    high: Tensor
    switch: Tensor


class Estimate(NamedTuple):
    """What an estimator returns."""

    levels: LevelAdvantages
    """In the estimator's units."""
    values: tuple[ValueTarget, ...]
    """Empty where the estimator has no critic, or one that judges tokens."""
    tokens: tuple[Tensor, Tensor] | None = None
    """(N,) float each: advantages and targets of V_low, where the estimator's step is a token."""


class Credit(NamedTuple):
    """Who gets which credit."""

    shaped: Tensor
    """(B, T) float. Rewards with penalties."""
    levels: LevelAdvantages
    """As estimated; before standardising, where that is configured."""
    values: tuple[ValueTarget, ...]
    """What the value heads learn."""
    advantages: Tensor
    """(N,) float. Of each reply token, standardised if configured."""
    trained: Tensor
    """(N,) bool. Tokens the policy loss reads."""
    token_target: Tensor | None = None
    """(N,) float. What V_low should say of the state each trained token was chosen in, for estimators whose step is a token."""

    @property
    def judged(self) -> bool:
        """Whether a critic is part of it."""
        return bool(self.values) or self.token_target is not None


@torch.no_grad()
def assign_credit(batch: Batch, scores: Scores, cfg: AlgoConfig) -> Credit:
    """Shape rewards, estimate advantages and lay them on the reply tokens.

    Raises:
        ConfigError: the estimator compares trajectories of a group and the batch has none.
    """
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
        shaped = shaped - cfg.kl_coef * _turn_kl(batch, scores, cfg)
    estimate = ESTIMATORS[cfg.name](shaped, batch, scores, cfg)
    target = None
    if estimate.tokens is not None:
        (advantages, target), trained = estimate.tokens, torch.ones_like(batch.forced)
        advantages = normalize(advantages, ~batch.forced) if cfg.normalize else advantages
    elif cfg.name is Estimator.hae:
        advantages, trained = _by_block(estimate.levels, batch, cfg)
    else:
        advantages, trained = _by_reply(estimate.levels.low, batch, cfg)
    trained &= ~batch.forced
    if cfg.importance_cap is not None:
        advantages = advantages * truncated_weights(scores.logprobs, batch.sampled_logprobs, trained, cap=cfg.importance_cap)
    return Credit(shaped, estimate.levels, estimate.values, advantages, trained, target)


def _turn_kl(batch: Batch, scores: Scores, cfg: AlgoConfig) -> Tensor:
    """(B, T) KL to the reference over each turn's reply, in nats."""
    terms = kl_terms(scores.logprobs, scores.ref_logprobs, ~batch.forced, estimator=cfg.kl_estimator.value)
    return torch.zeros_like(batch.rewards).scatter_add(1, batch.turns, batch.by_row(terms))


def switch_probability(batch: Batch, logprobs: Tensor) -> Tensor:
    """(B, T) probability of SWITCH: of the switch block that was written, or what is left beside a KEEP that was.

    Args:
        batch: the episodes.
        logprobs: (N,) float, of the reply tokens; gradients flow.
    """
    in_switch = batch.flat(batch.blocks) == BlockId.switch
    chosen = torch.where(in_switch & ~batch.forced, logprobs, 0.0)
    written = torch.zeros_like(batch.rewards).scatter_add(1, batch.turns, batch.by_row(chosen)).exp()
    return torch.where(batch.starts, written, 1 - written)


def _by_block(levels: LevelAdvantages, batch: Batch, cfg: AlgoConfig) -> tuple[Tensor, Tensor]:
    """(N,) advantages and mask: each block of a reply has the credit of its level."""
    if cfg.normalize:
        kept = level_turns(batch.turns, batch.blocks, batch.starts, batch.mask)
        levels = LevelAdvantages(*(normalize(advantages, keep) for advantages, keep in zip(levels, kept, strict=True)))
    tokens = spread(*levels, batch.turns, batch.blocks, batch.starts, batch.mask)
    learns = torch.isin(batch.blocks, torch.tensor([_BLOCK[level] for level in cfg.levels], device=batch.blocks.device))
    return batch.flat(tokens.advantages), batch.flat(tokens.trained & learns)


def _by_reply(advantages: Tensor, batch: Batch, cfg: AlgoConfig) -> tuple[Tensor, Tensor]:
    """(N,) advantages and mask: every token of a reply has the turn's credit."""
    # The critic-free estimators bring a scale of their own; REINFORCE++ is standardised by definition.
    if cfg.normalize and cfg.name is Estimator.turn_gae:
        advantages = normalize(advantages, batch.mask)
    return advantages[batch.token_row, batch.flat(batch.turns)], torch.ones_like(batch.forced)


def _hae(shaped: Tensor, batch: Batch, scores: Scores, cfg: AlgoConfig) -> Estimate:
    low, high, switch = scores.values.unbind(-1)
    levels = hierarchical_advantages(
        shaped,
        low,
        high,
        switch,
        batch.starts,
        batch.terminated,
        batch.mask,
        gamma=cfg.gamma,
        lam_low=cfg.lam_low,
        lam_high=cfg.lam_high,
        lam_end=cfg.lam_end,
        switch_credit=cfg.switch_credit.value,
        bootstrap=cfg.bootstrap.value,
        v_low_final=scores.final_values[:, LOW],
        v_high_final=scores.final_values[:, HIGH],
        switch_probability=switch_probability(batch, scores.logprobs),
        v_low_keep=scores.keep_values,
    )
    values = [ValueTarget(LOW, levels.low_target, batch.mask), ValueTarget(HIGH, levels.high_target, batch.mask & batch.starts)]
    if cfg.switch_credit is SwitchCredit.segment_return:
        values.append(ValueTarget(SWITCH, levels.switch_target, batch.mask))
    return Estimate(LevelAdvantages(levels.low, levels.high, levels.switch), tuple(values))


def _turn_gae(shaped: Tensor, batch: Batch, scores: Scores, cfg: AlgoConfig) -> Estimate:
    # V_high's place is before any decision of the turn, which is what a flat critic is to judge.
    found = turn_advantages(
        shaped,
        scores.values[..., HIGH],
        batch.terminated,
        batch.mask,
        gamma=cfg.gamma,
        lam=cfg.lam,
        bootstrap=cfg.bootstrap.value,
        v_final=scores.final_values[:, HIGH],
    )
    return Estimate(_flat(found.advantages), (ValueTarget(HIGH, found.targets, batch.mask),))


def _gae(shaped: Tensor, batch: Batch, scores: Scores, cfg: AlgoConfig) -> Estimate:
    chosen = batch.by_row(~batch.forced)
    found = token_advantages(
        shaped,
        batch.by_row(scores.token_values),
        batch.turns,
        chosen,
        batch.terminated,
        batch.mask,
        gamma=cfg.gamma,
        lam=cfg.lam,
        bootstrap=cfg.bootstrap.value,
        v_final=scores.final_values[:, LOW],
    )
    # For reports: a turn's advantage is the mean of its tokens'.
    count = torch.zeros_like(shaped).scatter_add(1, batch.turns, chosen.to(shaped.dtype))
    mean = torch.zeros_like(shaped).scatter_add(1, batch.turns, found.advantages) / count.clamp(min=1)
    return Estimate(_flat(mean), (), (batch.flat(found.advantages), batch.flat(found.targets)))


def _grpo(shaped: Tensor, batch: Batch, scores: Scores, cfg: AlgoConfig) -> Estimate:
    return _free(grpo_advantages(shaped, batch.mask, batch.groups, gamma=cfg.gamma, scale=cfg.group_scale))


def _rloo(shaped: Tensor, batch: Batch, scores: Scores, cfg: AlgoConfig) -> Estimate:
    return _free(rloo_advantages(shaped, batch.mask, batch.groups, gamma=cfg.gamma))


def _reinforce_pp(shaped: Tensor, batch: Batch, scores: Scores, cfg: AlgoConfig) -> Estimate:
    return _free(reinforce_pp_advantages(shaped, batch.mask, gamma=cfg.gamma))


def _gigpo(shaped: Tensor, batch: Batch, scores: Scores, cfg: AlgoConfig) -> Estimate:
    return _free(
        gigpo_advantages(shaped, batch.mask, batch.groups, batch.anchors, gamma=cfg.gamma, weight=cfg.step_weight, scale=cfg.group_scale)
    )


def _flat(advantages: Tensor) -> LevelAdvantages:
    return LevelAdvantages(advantages, advantages, advantages)


def _free(advantages: Tensor) -> Estimate:
    return Estimate(_flat(advantages), ())


ESTIMATORS: dict[Estimator, Callable[[Tensor, Batch, Scores, AlgoConfig], Estimate]] = {
    Estimator.hae: _hae,
    Estimator.turn_gae: _turn_gae,
    Estimator.gae: _gae,
    Estimator.grpo: _grpo,
    Estimator.rloo: _rloo,
    Estimator.reinforce_pp: _reinforce_pp,
    Estimator.gigpo: _gigpo,
}
"""From shaped rewards (B, T), the batch, its scores and the settings to advantages and value targets."""


def credit_metrics(batch: Batch, scores: Scores, credit: Credit) -> Metrics:
    """What the estimator saw: coverage of its masks, size of its advantages, quality of its critics, entropies."""
    coverage = mask_coverage(batch.turns, batch.blocks, batch.starts, batch.mask)
    blocks = batch.flat(batch.blocks)
    turns = float(batch.mask.sum())
    switch_entropy = scores.entropies[credit.trained & (blocks == BlockId.switch)].sum()
    metrics = {
        "hae/mask_coverage": float(coverage.turns),
        "hae/mask_coverage_subgoal": float(coverage.subgoal),
        "optim/entropy": float(scores.entropies[credit.trained].mean()) if bool(credit.trained.any()) else 0.0,
        "switch/entropy": float(switch_entropy) / max(turns, 1.0),
        "rollout/logprob_gap": float((scores.logprobs - batch.sampled_logprobs).abs().mean()),
    }
    for name, advantages in credit.levels._asdict().items():
        turns_of_level = batch.mask & batch.starts if name == "high" else batch.mask
        metrics[f"hae/adv_{name}_mean"] = float(advantages[turns_of_level].mean())
        metrics[f"hae/adv_{name}_std"] = float(advantages[turns_of_level].std(correction=0))
    for head, target, mask in credit.values:
        name = LEVELS[head]
        metrics[f"value/explained_variance_{name}"] = float(explained_variance(scores.values[..., head], target, mask))
        metrics[f"value/mean_{name}"] = float(scores.values[..., head][mask].mean())
    if credit.token_target is not None:
        metrics["value/explained_variance_low"] = float(explained_variance(scores.token_values, credit.token_target, credit.trained))
        metrics["value/mean_low"] = float(scores.token_values[credit.trained].mean())
    return metrics
