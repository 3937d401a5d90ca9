"""RLOO: no critic; the mean return of the group's other trajectories is the baseline. arXiv:2402.14740."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiper.algos.registry import register_algorithm
from hiper.algos.types import Estimate, Estimator, ForwardOutputs, one_for_all
from hiper.config.algo import AlgoConfig, Needs

if TYPE_CHECKING:
    from torch import Tensor

    from hiper.rollout.batch import Batch


@dataclass
class RLOOConfig(AlgoConfig):
    """Settings of RLOO."""

    name: str = "rloo"
    group_size: int = 8
    """Rollouts per task, at least 2."""

    @property
    def needs(self) -> Needs:
        return Needs(groups=True)


class RLOO(Estimator[RLOOConfig]):
    """See `hiper.rl.rloo`."""

    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        from hiper.rl.rloo import rloo_advantages

        return Estimate(one_for_all(rloo_advantages(rewards, batch.mask, batch.groups, gamma=self.settings.gamma)))


register_algorithm("rloo", RLOOConfig, RLOO)
