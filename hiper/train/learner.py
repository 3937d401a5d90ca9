"""The optimiser's side of an iteration: PPO steps on credited episodes.

An iteration is `hiper.train.iteration.assess`, which credits the episodes, and then `Learner.update`: clipped policy loss, KL to the
reference, value losses, entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiper.algos.switch import switch_probability
from hiper.algos.types import Credit, ForwardOutputs
from hiper.config import CriticFit, RunConfig, Tune
from hiper.config.algo import CriticConfig, KLPlace, Level
from hiper.model.actor import Actor
from hiper.protocol import BlockId
from hiper.rl.losses import entropy_loss, kl_loss, policy_loss, value_loss
from hiper.rollout.batch import Batch
from hiper.runtime.distributed import ALONE, Group
from hiper.train.metrics import Metrics
from hiper.train.microbatch import microbatches
from hiper.train.value_fit import LeastSquares


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
    group: Group = ALONE
    """The processes that share a mini-batch's trajectories and add up their gradients."""

    @classmethod
    def create(cls, actor: Actor, cfg: RunConfig, generator: torch.Generator, group: Group = ALONE) -> Learner:
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
        return cls(actor, torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99)), cfg, generator, critic, group)

    def update(self, batch: Batch, outputs: ForwardOutputs, credit: Credit, *, critic_only: bool, pace: float = 1.0) -> Metrics:
        """Take the PPO steps of one iteration.

        Args:
            batch, outputs, credit: of the iteration's episodes; a fitted critic needs the outputs' states.
            critic_only: leave the policy as it is; used while the critic warms up.
            pace: share of the configured learning rates.

        Returns:
            Means over the steps: losses, clip fraction, KLs, gradient norm.
        """
        totals: Metrics = {}
        norms = 0.0
        steps = 0
        trainer = self.cfg.trainer
        for group, rate in zip(self.optimizer.param_groups, (trainer.lr_actor, trainer.lr_critic), strict=True):
            group["lr"] = rate * pace
        self.actor.train()
        for _ in range(trainer.epochs):
            order = torch.randperm(len(batch.mask), generator=self.generator).to(batch.mask.device)
            for chosen in torch.split(order, trainer.minibatch):
                parts, norm = self._step(batch, outputs, credit, chosen, critic_only)
                for key, value in parts.items():
                    totals[key] = totals.get(key, 0.0) + value
                norms += norm
                steps += 1
        self.actor.eval()
        if self.critic is not None:
            self.fit(self.critic, batch, outputs, credit)
        totals = self.group.total(totals) | {"optim/grad_norm": norms}
        return {key: value / steps for key, value in totals.items()}

    def fit(self, critic: LeastSquares, batch: Batch, outputs: ForwardOutputs, credit: Credit) -> None:
        """Fit the value heads to an iteration's returns, once its policy steps are taken.

        A baseline must not have seen the returns it is subtracted from: what is fitted here judges the next iteration.
        """
        assert outputs.states is not None, "a fitted critic needs forward(..., with_states=True)"
        critic.fade()
        for level, target, mask in credit.values:
            read = 0 if level is Level.low else 1
            critic.add(self.actor.output_of[level.head], outputs.states[:, :, read][mask], target[mask])
        if credit.token_target is not None:
            assert outputs.token_states is not None, "a critic of tokens needs forward(..., with_states=True, with_token_values=True)"
            critic.add(Level.low.head, outputs.token_states[credit.trained], credit.token_target[credit.trained])
        critic.write(self.actor.heads)
        self.group.copy_([critic.moments, critic.products, self.actor.heads.weight, self.actor.heads.bias])

    def _step(self, batch: Batch, outputs: ForwardOutputs, credit: Credit, chosen: Tensor, critic_only: bool) -> tuple[Metrics, float]:
        """One step on the chosen trajectories: what this process's share adds to their means, and the norm of the whole gradient."""
        algo, trainer = self.cfg.algo, self.cfg.trainer
        in_step = torch.zeros(len(batch.mask), dtype=torch.bool, device=batch.mask.device)
        in_step[chosen] = True
        token_in_step = in_step[batch.token_row]
        token_count = (credit.trained & token_in_step).sum()
        live = batch.mask & in_step[:, None]
        turn_count = live.sum()
        entropy_wanted = algo.entropy_coef > 0 or algo.switch_entropy_coef > 0
        flat_blocks = batch.flat(batch.blocks)
        later = live.clone()
        later[:, 0] = False  # the first turn's start is forced
        metrics: dict[str, Tensor] = {}

        def add(key: str, value: Tensor) -> None:
            metrics[key] = metrics.get(key, value.new_zeros(())) + value.detach()

        self.optimizer.zero_grad(set_to_none=True)
        for part in microbatches(
            self.actor,
            batch,
            self.group.share(chosen),
            budget=trainer.microbatch_tokens,
            temperature=self.cfg.rollout.temperature,
            with_entropies=entropy_wanted,
            with_token_values=credit.token_target is not None,
        ):
            trained = credit.trained[part.tokens]
            loss = part.logprobs.new_zeros(())
            if not critic_only:
                policy = policy_loss(
                    part.logprobs,
                    outputs.logprobs[part.tokens],
                    credit.advantages[part.tokens],
                    trained,
                    clip=algo.clip,
                    clip_high=algo.clip_high,
                    count=token_count,
                )
                # The reference holds every reply token, those outside the blocks too: nothing else keeps them from drifting.
                kl = kl_loss(
                    part.logprobs,
                    outputs.ref_logprobs[part.tokens],
                    torch.ones_like(trained),
                    estimator=algo.kl_estimator.value,
                    count=(token_in_step & ~batch.forced).sum(),
                )
                loss = loss + policy.loss
                if algo.kl_in is KLPlace.loss:
                    loss = loss + algo.kl_coef * kl.loss
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
            if algo.switch_rate_target is not None and not critic_only:
                # The square's gradient, with the distance as it was before the step: it is of the whole mini-batch, this is a part of it.
                now = switch_probability(batch, outputs.logprobs.index_put((part.tokens,), part.logprobs))[row, turn]
                distance = switch_probability(batch, outputs.logprobs)[later].mean() - algo.switch_rate_target
                rate = (now * later[row, turn]).sum() / later.sum().clamp(min=1)
                loss = loss + algo.switch_rate_coef * 2 * distance * rate
            for level, target, mask in credit.values:
                assert isinstance(algo, CriticConfig)
                value = value_loss(
                    part.values[:, level.head].float(),
                    outputs.value(level)[row, turn],
                    target[row, turn],
                    mask[row, turn],
                    clip=algo.value_clip,
                    count=(mask & in_step[:, None]).sum(),
                )
                if self.critic is None:
                    loss = loss + algo.value_coef * value.loss
                add("value/loss", value.loss)
            if credit.token_target is not None:
                assert isinstance(algo, CriticConfig)
                value = value_loss(
                    part.token_values.float(),
                    outputs.token_values[part.tokens],
                    credit.token_target[part.tokens],
                    trained,
                    clip=algo.value_clip,
                    count=token_count,
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
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.group.sum_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, trainer.max_grad_norm)
        self.optimizer.step()
        return {key: float(value) for key, value in metrics.items()}, float(norm)
