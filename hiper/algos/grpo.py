"""GRPO: no critic; a trajectory's return against those of its group. arXiv:2402.03300."""

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
class GRPOConfig(AlgoConfig):
    """Settings of GRPO."""

    name: str = "grpo"
    group_size: int = 8
    """Rollouts per task, at least 2. 8, as GiGPO ran it on ALFWorld: 16 tasks x 8 (arXiv:2505.10978)."""
    group_scale: bool = True
    """Divide by the group's standard deviation; false: Dr. GRPO (arXiv:2503.20783)."""

    @property
    def needs(self) -> Needs:
        return Needs(groups=True)


class GRPO(Estimator[GRPOConfig]):
    """See `hiper.rl.grpo`."""

    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        from hiper.rl.grpo import grpo_advantages

        cfg = self.settings
        return Estimate(one_for_all(grpo_advantages(rewards, batch.mask, batch.groups, gamma=cfg.gamma, scale=cfg.group_scale)))


register_algorithm("grpo", GRPOConfig, GRPO)
