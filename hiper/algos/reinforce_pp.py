"""REINFORCE++: no critic and no groups; returns to go, standardised over the batch. arXiv:2501.03262."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiper.algos.registry import register_algorithm
from hiper.algos.types import Estimate, Estimator, ForwardOutputs, one_for_all
from hiper.config.algo import AlgoConfig

if TYPE_CHECKING:
    from torch import Tensor

    from hiper.rollout.batch import Batch


@dataclass
class ReinforcePPConfig(AlgoConfig):
    """Settings of REINFORCE++: those of every estimator."""

    name: str = "reinforce_pp"


class ReinforcePP(Estimator[ReinforcePPConfig]):
    """See `hiper.rl.reinforce_pp`, which standardises by definition."""

    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        from hiper.rl.reinforce_pp import reinforce_pp_advantages

        return Estimate(one_for_all(reinforce_pp_advantages(rewards, batch.mask, gamma=self.settings.gamma)))


register_algorithm("reinforce_pp", ReinforcePPConfig, ReinforcePP)
