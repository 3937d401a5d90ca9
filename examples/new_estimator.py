"""An estimator of one's own: REINFORCE with a moving average of earlier returns as its baseline (Williams, 1992, doi:10.1007/BF00992696).

`python examples/new_estimator.py [OVERRIDE ...]`, such as `algo.memory=0.5 seed=1`. Nothing in `hiper/` knows of it. As a package, it would
name `register` under the entry-point group `hiper.algorithms`, and then `hiper run algo=moving_average` finds it, in every process.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hiper.algos import register_algorithm
from hiper.algos.types import Estimate, Estimator, ForwardOutputs, one_for_all
from hiper.cli.main import main
from hiper.config.algo import AlgoConfig
from hiper.config.checks import require
from hiper.rl.returns import returns_to_go
from hiper.rollout.batch import Batch


@dataclass
class MovingAverageConfig(AlgoConfig):
    name: str = "moving_average"
    memory: float = 0.9
    """Share of the average that an iteration leaves, in [0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.memory < 1, "algo.memory", self.memory, "at least 0 and below 1")


class MovingAverage(Estimator[MovingAverageConfig]):
    average = 0.0

    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        returns = returns_to_go(rewards, batch.mask, gamma=self.settings.gamma)
        advantages = (returns - self.average) * batch.mask
        self.average += (1 - self.settings.memory) * (float(returns[batch.mask].mean()) - self.average)
        return Estimate(one_for_all(advantages))

    def state(self) -> dict[str, Any]:
        return {"average": self.average}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.average = state["average"]


def register() -> None:
    register_algorithm("moving_average", MovingAverageConfig, MovingAverage)


if __name__ == "__main__":
    register()
    sys.exit(main(["run", "--direct", "experiment=smoke", "algo=moving_average", *sys.argv[1:]]))
