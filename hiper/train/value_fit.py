"""Value heads by least squares.

The heads are linear in the trunk's last hidden states, so their best weights have a closed form. Gradient steps get a handful of
updates an iteration and lag behind; a lagging critic is worse than none for HAE, whose low level bootstraps from the planner's value at
every switch. Sums over past iterations fade, as the trunk and the policy they were made with do (recursive least squares with
forgetting; Ljung, System Identification, 1999, chapter 11).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LeastSquares:
    """Ridge regression of each head's targets on the states it reads, over all iterations so far, older ones counting less."""

    def __init__(self, width: int, heads: int, *, ridge: float, memory: float) -> None:
        """Start without data.

        Args:
            width: D, of a state.
            heads: H.
            ridge: weight of the penalty, in observations; the intercept is not penalised.
            memory: what an iteration's sums keep with each iteration after it, in [0, 1).
        """
        self._ridge, self._memory = ridge, memory
        self.moments = torch.zeros(heads, width + 1, width + 1, dtype=torch.float64)
        """(H, D + 1, D + 1): sums of outer products of states, each with a 1 appended."""
        self.products = torch.zeros(heads, width + 1, dtype=torch.float64)
        """(H, D + 1): sums of states times targets."""

    def fade(self) -> None:
        """A new iteration begins."""
        self.moments *= self._memory
        self.products *= self._memory

    def add(self, head: int, states: Tensor, targets: Tensor) -> None:
        """Count observations of one head: states (M, D) and targets (M,) float."""
        ones = torch.ones(len(states), 1, dtype=torch.float64)
        x = torch.cat([states.double().cpu(), ones], dim=1)
        self.moments[head] += x.T @ x
        self.products[head] += x.T @ targets.double().cpu()

    def write(self, heads: nn.Linear) -> None:
        """Set the heads to the solution; a head without data is left as it is."""
        width = self.moments.shape[1] - 1
        penalty = torch.diag(torch.tensor([self._ridge] * width + [1e-6], dtype=torch.float64))
        with torch.no_grad():
            for head, (moments, products) in enumerate(zip(self.moments, self.products, strict=True)):
                if moments[-1, -1] > 0:
                    solution = torch.linalg.solve(moments + penalty, products).to(heads.weight)
                    heads.weight[head], heads.bias[head] = solution[:-1], solution[-1]
