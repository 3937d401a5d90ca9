"""GAE over tokens: PPO as it is usually run on language models. GAE: arXiv:1506.02438."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiper.algos.registry import register_algorithm
from hiper.algos.types import Estimate, Estimator, ForwardOutputs, one_for_all
from hiper.config.algo import CreditUnit, CriticConfig, Level, Needs, between_0_and_1

if TYPE_CHECKING:
    from torch import Tensor

    from hiper.rollout.batch import Batch


@dataclass
class GAEConfig(CriticConfig):
    """Settings of GAE over tokens."""

    name: str = "gae"
    lam: float = 1.0
    """Lambda per token, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between_0_and_1(self, "lam")

    @property
    def needs(self) -> Needs:
        return Needs(token_values=True, credit=CreditUnit.token, standardise=self.normalize)


class GAE(Estimator[GAEConfig]):
    """See `hiper.rl.token_gae`. Its critic is V_low at every reply token."""

    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        from hiper.rl.token_gae import token_advantages

        chosen = batch.by_row(~batch.forced)
        found = token_advantages(
            rewards,
            batch.by_row(forward.token_values),
            batch.turns,
            chosen,
            batch.terminated,
            batch.mask,
            gamma=self.settings.gamma,
            lam=self.settings.lam,
            bootstrap=self.settings.bootstrap.value,
            v_final=forward.final_value(Level.low),
        )
        # For reports: a turn's advantage is the mean of its tokens'.
        count = rewards.new_zeros(rewards.shape).scatter_add(1, batch.turns, chosen.to(rewards.dtype))
        mean = rewards.new_zeros(rewards.shape).scatter_add(1, batch.turns, found.advantages) / count.clamp(min=1)
        return Estimate(one_for_all(mean), tokens=(batch.flat(found.advantages), batch.flat(found.targets)))


register_algorithm("gae", GAEConfig, GAE)
