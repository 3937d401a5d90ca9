"""One iteration's learning: score the episodes, estimate advantages, take PPO steps.

The order is the algorithm: `score` (values and log-probabilities before any step), `assign_credit` (shaped rewards, HAE,
advantages on tokens), `Learner.update` (clipped policy loss, KL to the reference, value losses, entropy).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hiper.config import AlgoConfig, Bootstrap, CriticFit, RunConfig, Tune
from hiper.model.actor import Actor
from hiper.protocol import BlockId
from hiper.rl.hae import HierarchicalAdvantages, hierarchical_advantages, normalize
from hiper.rl.losses import entropy_loss, explained_variance, kl_loss, policy_loss, value_loss
from hiper.rl.masking import level_turns, mask_coverage, spread
from hiper.rl.shaping import shape_rewards
from hiper.train.batch import Batch, passes
from hiper.train.critic import LeastSquares

Metrics = dict[str, float]


class Scores(NamedTuple):
    """The network's view of a batch before an update; N reply tokens, B trajectories, T turns."""

    logprobs: Tensor
    """(N,) float, under the policy that is about to be trained."""
    ref_logprobs: Tensor
    """(N,) float, under the warm-started reference; equal to `logprobs` where no KL is wanted."""
    entropies: Tensor
    """(N,) float, nats."""
    values: Tensor
    """(B, T, 3) float: V_low, V_high, V_switch; zero on padding."""
    final_values: Tensor
    """(B, 3) float: the critic after a truncated episode's last action; zero where nothing follows."""
    states: Tensor | None = None
    """(B, T, 2, D) float: what V_low reads, and what V_high and V_switch read; zero on padding. Only when asked for: it is large."""


class Credit(NamedTuple):
    """Who gets which credit."""

    shaped: Tensor
    """(B, T) float. Rewards with penalties."""
    levels: HierarchicalAdvantages
    """Advantages as estimated, in the reward's units, and value targets."""
    advantages: Tensor
    """(N,) float. Of each reply token, standardised if configured."""
    trained: Tensor
    """(N,) bool. Tokens the policy loss reads."""


@torch.no_grad()
def score(actor: Actor, reference: Actor | None, batch: Batch, *, budget: int, temperature: float, with_states: bool = False) -> Scores:
    """Run the network, and the reference if there is one, over every sequence once, without gradients."""
    everything = torch.arange(len(batch.mask), device=batch.mask.device)
    logprobs, entropies = torch.zeros_like(batch.sampled_logprobs), torch.zeros_like(batch.sampled_logprobs)
    values = batch.rewards.new_zeros((*batch.mask.shape, 3))
    final = batch.rewards.new_zeros((len(batch.mask), 3))
    states = batch.rewards.new_zeros((*batch.mask.shape, 2, actor.heads.in_features)) if with_states else None
    for part in passes(actor, batch, everything, budget=budget, temperature=temperature, with_entropies=True):
        logprobs[part.tokens], entropies[part.tokens] = part.logprobs, part.entropies
        values[part.turns[:, 0], part.turns[:, 1]] = part.values.float()
        if states is not None:
            states[part.turns[:, 0], part.turns[:, 1]] = part.states.float()
        final[part.final_rows] = part.final_values.float()
    ref_logprobs = logprobs.clone()
    if reference is not None:
        for part in passes(reference, batch, everything, budget=budget, temperature=temperature, with_values=False):
            ref_logprobs[part.tokens] = part.logprobs
    return Scores(logprobs, ref_logprobs, entropies, values, final, states)


@torch.no_grad()
def assign_credit(batch: Batch, scores: Scores, cfg: AlgoConfig) -> Credit:
    """Shape rewards, estimate the three advantages and lay them on the reply tokens."""
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
        bootstrap=cfg.bootstrap.value,
        v_low_final=scores.final_values[:, 0] if cfg.bootstrap is Bootstrap.next else None,
        v_high_final=scores.final_values[:, 1] if cfg.bootstrap is Bootstrap.next else None,
    )
    credit = [levels.low, levels.high, levels.switch]
    if cfg.normalize:
        kept = level_turns(batch.turns, batch.blocks, batch.starts, batch.mask)
        credit = [normalize(advantages, keep) for advantages, keep in zip(credit, kept, strict=True)]
    low, high, switch = credit
    tokens = spread(low, high, switch, batch.turns, batch.blocks, batch.starts, batch.mask)
    return Credit(shaped, levels, batch.flat(tokens.advantages), batch.flat(tokens.trained) & ~batch.forced)


@dataclass
class Learner:
    """The optimiser and its settings."""

    actor: Actor
    optimizer: torch.optim.AdamW
    cfg: RunConfig
    generator: torch.Generator
    """Shuffles mini-batches; on the CPU."""
    critic: LeastSquares | None
    """Fits the value heads, where gradient steps do not."""

    @classmethod
    def create(cls, actor: Actor, cfg: RunConfig, generator: torch.Generator) -> Learner:
        """A learner with a fresh optimiser."""
        # Adam's first step moves every weight by the learning rate, however small its gradient: with the usual eps of 1e-8 the KL
        # jumps there. 1e-5 spares weights of the policy that the loss hardly touches.
        if cfg.trainer.tune is Tune.gains:
            for parameter in actor.lm.parameters():
                parameter.requires_grad_(parameter.dim() == 1)
        critic = None
        if cfg.trainer.critic_fit is CriticFit.least_squares:
            actor.heads.requires_grad_(False)
            critic = LeastSquares(
                actor.heads.in_features, actor.heads.out_features, ridge=cfg.trainer.critic_ridge, memory=cfg.trainer.critic_memory
            )
        groups = [
            {"params": actor.actor_parameters(), "lr": cfg.trainer.lr_actor, "eps": 1e-5},
            {"params": actor.critic_parameters(), "lr": cfg.trainer.lr_critic, "eps": 1e-8},
        ]
        return cls(actor, torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99)), cfg, generator, critic)

    def update(self, batch: Batch, scores: Scores, credit: Credit, *, critic_only: bool, pace: float = 1.0) -> Metrics:
        """Take the PPO steps of one iteration.

        Args:
            batch, scores, credit: of the iteration's episodes; a fitted critic needs the scores' states.
            critic_only: leave the policy as it is; used while the critic warms up.
            pace: share of the configured learning rates.

        Returns:
            Means over the steps: losses, clip fraction, KLs, gradient norm.
        """
        totals: dict[str, float] = {}
        steps = 0
        trainer = self.cfg.trainer
        for group, rate in zip(self.optimizer.param_groups, (trainer.lr_actor, trainer.lr_critic), strict=True):
            group["lr"] = rate * pace
        self.actor.train()
        for _ in range(trainer.epochs):
            order = torch.randperm(len(batch.mask), generator=self.generator).to(batch.mask.device)
            for chosen in torch.split(order, trainer.minibatch):
                for key, value in self._step(batch, scores, credit, chosen, critic_only).items():
                    totals[key] = totals.get(key, 0.0) + value
                steps += 1
        self.actor.eval()
        if self.critic is not None:
            self._fit(self.critic, batch, scores, credit)
        return {key: value / steps for key, value in totals.items()}

    def _fit(self, critic: LeastSquares, batch: Batch, scores: Scores, credit: Credit) -> None:
        # After the update: the next iteration's baseline must not have seen the returns it is subtracted from.
        assert scores.states is not None, "a fitted critic needs score(..., with_states=True)"
        levels = credit.levels
        critic.fade()
        for head, (read, targets, mask) in enumerate(
            (
                (0, levels.low_target, batch.mask),
                (1, levels.high_target, batch.mask & batch.starts),
                (1, levels.switch_target, batch.mask),
            )
        ):
            critic.add(head, scores.states[:, :, read][mask], targets[mask])
        critic.write(self.actor.heads)

    def _step(self, batch: Batch, scores: Scores, credit: Credit, chosen: Tensor, critic_only: bool) -> Metrics:
        algo, trainer = self.cfg.algo, self.cfg.trainer
        in_step = torch.zeros(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
        in_step[chosen] = True
        token_in_step = in_step[batch.token_row]
        token_count = (credit.trained & token_in_step).sum()
        live = batch.mask & in_step[:, None]
        turn_count, start_count = live.sum(), (live & batch.starts).sum()
        entropy_wanted = algo.entropy_coef > 0 or algo.switch_entropy_coef > 0
        flat_blocks = batch.flat(batch.blocks)
        metrics: dict[str, Tensor] = {}

        def add(key: str, value: Tensor) -> None:
            metrics[key] = metrics.get(key, value.new_zeros(())) + value.detach()

        self.optimizer.zero_grad(set_to_none=True)
        for part in passes(
            self.actor,
            batch,
            chosen,
            budget=trainer.microbatch_tokens,
            temperature=self.cfg.rollout.temperature,
            with_entropies=entropy_wanted,
        ):
            trained = credit.trained[part.tokens]
            loss = part.logprobs.new_zeros(())
            if not critic_only:
                policy = policy_loss(
                    part.logprobs, scores.logprobs[part.tokens], credit.advantages[part.tokens], trained, clip=algo.clip, count=token_count
                )
                # The reference holds every reply token, those outside the blocks too: nothing else keeps them from drifting.
                kl = kl_loss(
                    part.logprobs,
                    scores.ref_logprobs[part.tokens],
                    torch.ones_like(trained),
                    estimator=algo.kl_estimator.value,
                    count=(token_in_step & ~batch.forced).sum(),
                )
                loss = loss + policy.loss + algo.kl_coef * kl.loss
                add("optim/policy_loss", policy.loss)
                add("optim/clip_fraction", policy.clip_fraction)
                add("optim/approx_kl", policy.approx_kl)
                add("optim/kl_ref", kl.loss)
                if algo.entropy_coef > 0:
                    loss = loss + algo.entropy_coef * entropy_loss(part.entropies, trained, count=token_count).loss
                if algo.switch_entropy_coef > 0:
                    # Per turn, not per token: the tags around the decision have no entropy to give.
                    deciding = trained & (flat_blocks[part.tokens] == BlockId.switch)
                    loss = loss + algo.switch_entropy_coef * entropy_loss(part.entropies, deciding, count=turn_count).loss
            row, turn = part.turns.unbind(1)
            start = batch.starts[row, turn]
            targets = (credit.levels.low_target, credit.levels.high_target, credit.levels.switch_target)
            masks = (torch.ones_like(start), start, torch.ones_like(start))
            counts = (turn_count, start_count, turn_count)
            for head, (target, mask, count) in enumerate(zip(targets, masks, counts, strict=True)):
                value = value_loss(
                    part.values[:, head].float(),
                    scores.values[row, turn, head],
                    target[row, turn],
                    mask,
                    clip=algo.value_clip,
                    count=count,
                )
                if self.critic is None:
                    loss = loss + algo.value_coef * value.loss
                add("value/loss", value.loss)
            if loss.requires_grad:  # else there is nothing to step: a critic that is fitted, in an iteration that only fits it
                torch.autograd.backward(loss)
        if critic_only and self.actor.critic is None:
            # The heads share the actor's trunk, which must not move before its advantages mean something.
            for parameter in self.actor.actor_parameters():
                parameter.grad = None
        norm = nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], trainer.max_grad_norm)
        self.optimizer.step()
        add("optim/grad_norm", norm)
        return {key: float(value) for key, value in metrics.items()}


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
    levels = credit.levels
    for head, (name, advantages, targets, mask) in enumerate(
        (
            ("low", levels.low, levels.low_target, batch.mask),
            ("high", levels.high, levels.high_target, batch.mask & batch.starts),
            ("switch", levels.switch, levels.switch_target, batch.mask),
        )
    ):
        metrics[f"value/explained_variance_{name}"] = float(explained_variance(scores.values[..., head], targets, mask))
        metrics[f"value/mean_{name}"] = float(scores.values[..., head][mask].mean())
        metrics[f"hae/adv_{name}_mean"] = float(advantages[mask].mean())
        metrics[f"hae/adv_{name}_std"] = float(advantages[mask].std(correction=0))
    return metrics
