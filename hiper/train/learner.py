"""The optimiser's side of an iteration: PPO steps on credited episodes.

An iteration is `hiper.train.iteration.assess`, which credits the episodes, and then `Learner.update`, which takes steps on
`hiper.train.ppo_loss`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hiper.algos.types import Credit, ForwardOutputs
from hiper.config import RunConfig, Trainable, ValueFit
from hiper.config.algo import Level
from hiper.model.actor import Actor
from hiper.rollout.batch import Batch
from hiper.runtime.distributed import ALONE, World
from hiper.train.metrics import Metrics
from hiper.train.microbatch import microbatches
from hiper.train.ppo_loss import LossInputs, ppo_loss
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
    world: World = ALONE
    """The processes that share a mini-batch's trajectories and add up their gradients."""

    @classmethod
    def create(cls, actor: Actor, cfg: RunConfig, generator: torch.Generator, world: World = ALONE) -> Learner:
        """A learner with a fresh optimiser."""
        # Adam's first step moves every weight by the learning rate, however small its gradient: with the usual eps of 1e-8 the KL
        # jumps there. 1e-5 spares weights of the policy that the loss hardly touches.
        if cfg.trainer.trainable is Trainable.norms_and_biases:
            for parameter in actor.lm.parameters():
                parameter.requires_grad_(parameter.dim() == 1)
        critic = None
        if cfg.trainer.value_fit is ValueFit.least_squares:
            actor.heads.requires_grad_(False)
            critic = LeastSquares(
                actor.heads.in_features, actor.heads.out_features, ridge=cfg.trainer.value_ridge, memory=cfg.trainer.value_forgetting
            )
        groups = [
            {"params": actor.actor_parameters(), "lr": cfg.trainer.lr_actor, "eps": 1e-5},
            {"params": actor.critic_parameters(), "lr": cfg.trainer.lr_critic, "eps": 1e-8},
        ]
        return cls(actor, torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.99)), cfg, generator, critic, world)

    def update(self, batch: Batch, outputs: ForwardOutputs, credit: Credit, *, critic_only: bool, lr_scale: float = 1.0) -> Metrics:
        """Take the PPO steps of one iteration.

        Args:
            batch, outputs, credit: of the iteration's episodes; a fitted critic needs the outputs' states.
            critic_only: leave the policy as it is; used while the critic warms up.
            lr_scale: share of the configured learning rates.

        Returns:
            Means over the steps: losses, clip fraction, KLs, gradient norm.
        """
        totals: Metrics = {}
        norms = 0.0
        steps = 0
        trainer = self.cfg.trainer
        for part, rate in zip(self.optimizer.param_groups, (trainer.lr_actor, trainer.lr_critic), strict=True):
            part["lr"] = rate * lr_scale
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
        totals = self.world.total(totals) | {"optim/grad_norm": norms}
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
            critic.add(Level.low.head, outputs.token_states[credit.loss_mask], credit.token_target[credit.loss_mask])
        critic.write(self.actor.heads)
        self.world.broadcast([critic.moments, critic.products, self.actor.heads.weight, self.actor.heads.bias])

    def _step(self, batch: Batch, outputs: ForwardOutputs, credit: Credit, chosen: Tensor, critic_only: bool) -> tuple[Metrics, float]:
        """One step on the chosen trajectories: what this process's share adds to their means, and the norm of the whole gradient."""
        algo, trainer = self.cfg.algo, self.cfg.trainer
        step = LossInputs.of(batch, outputs, credit, chosen)
        metrics: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for part in microbatches(
            self.actor,
            batch,
            self.world.shard(chosen),
            budget=trainer.microbatch_tokens,
            temperature=self.cfg.rollout.temperature,
            with_entropies=algo.entropy_coef > 0 or algo.switch_entropy_coef > 0,
            with_token_values=credit.token_target is not None,
        ):
            found = ppo_loss(part, step, algo, critic_only=critic_only, fitted=self.critic is not None)
            for key, value in found.metrics:
                metrics[key] = metrics.get(key, value.new_zeros(())) + value
            if found.loss.requires_grad:  # else there is nothing to step: a critic that is fitted, in an iteration that only fits it
                torch.autograd.backward(found.loss)
        if critic_only and self.actor.critic is None:
            # The heads share the actor's trunk, which must not move before its advantages mean something.
            for parameter in self.actor.actor_parameters():
                parameter.grad = None
        parameters = [p for part in self.optimizer.param_groups for p in part["params"]]
        self.world.all_reduce_gradients(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, trainer.max_grad_norm)
        self.optimizer.step()
        return {key: float(value) for key, value in metrics.items()}, float(norm)
