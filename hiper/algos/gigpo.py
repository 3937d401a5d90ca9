"""GiGPO: GRPO, plus credit among turns of a group that saw the same observation. arXiv:2505.10978."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hiper.algos.registry import register_algorithm
from hiper.algos.types import Estimate, Estimator, ForwardOutputs, one_for_all
from hiper.config.algo import AlgoConfig, Needs, at_least_0

if TYPE_CHECKING:
    from torch import Tensor

    from hiper.rollout.batch import Batch


@dataclass
class GiGPOConfig(AlgoConfig):
    """Settings of GiGPO."""

    name: str = "gigpo"
    gamma: float = 0.95
    """Discount per turn, of the returns to go, in [0, 1] (published: 0.95)."""
    group_size: int = 8
    """Rollouts per task, at least 2 (published: 16 tasks x 8)."""
    group_scale: bool = True
    """Divide by the standard deviation of the group, of trajectories and of turns."""
    step_weight: float = 1.0
    """Weight of the credit among turns that saw the same observation, at least 0 (published: 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_0(self, "step_weight")

    @property
    def needs(self) -> Needs:
        return Needs(groups=True)


class GiGPO(Estimator[GiGPOConfig]):
    """See `hiper.rl.gigpo`."""

    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        from hiper.rl.gigpo import gigpo_advantages

        cfg = self.settings
        return Estimate(
            one_for_all(
                gigpo_advantages(
                    rewards, batch.mask, batch.groups, batch.anchors, gamma=cfg.gamma, weight=cfg.step_weight, scale=cfg.group_scale
                )
            )
        )


register_algorithm("gigpo", GiGPOConfig, GiGPO)
