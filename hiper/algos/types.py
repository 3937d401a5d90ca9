"""What an estimator is and what passes through it: forward outputs in, advantages and value targets out.

Importing this needs no torch: composing a config looks up estimators, and only training computes with them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from hiper.config.algo import AlgoConfig, Level

if TYPE_CHECKING:
    from torch import Tensor

    from hiper.rollout.batch import Batch

S = TypeVar("S", bound=AlgoConfig)


class ForwardOutputs(NamedTuple):
    """The network's outputs on a batch before an update; N reply tokens, B trajectories, T turns."""

    logprobs: Tensor
    """(N,) float, under the policy that is about to be trained."""
    ref_logprobs: Tensor
    """(N,) float, under the SFT model; equal to `logprobs` where no KL is wanted."""
    entropies: Tensor
    """(N,) float, nats."""
    values: Tensor
    """(B, T, 3) float: V_low, V_high, V_switch; zero on padding."""
    final_values: Tensor
    """(B, 3) float: the critic after a truncated episode's last action; zero where nothing follows."""
    token_values: Tensor
    """(N,) float: V_low in the state each reply token was chosen in; zero on tokens that had no alternative, and unless needed."""
    states: Tensor | None = None
    """(B, T, 2, D) float: what V_low reads, and what V_high and V_switch read; zero on padding. Only when asked for: it is large."""
    token_states: Tensor | None = None
    """(N, D) float: what V_low reads for `token_values`. Only when asked for."""
    keep_values: Tensor | None = None
    """(B, T) float: V_low(s_t, o_{t-1}), as if the turn had kept the subgoal; zero on first turns. Only when needed."""

    def value(self, level: Level) -> Tensor:
        """(B, T) float."""
        return self.values[..., level.head]

    def final_value(self, level: Level) -> Tensor:
        """(B,) float."""
        return self.final_values[:, level.head]


class ValueTarget(NamedTuple):
    """What one value head is fitted to."""

    level: Level
    target: Tensor
    """(B, T) float."""
    mask: Tensor
    """(B, T) bool. Turns that count."""


class Estimate(NamedTuple):
    """What an estimator returns."""

    levels: Mapping[Level, Tensor]
    """(B, T) float each: advantages of a turn's action, subgoal and switch decision, before standardising."""
    values: tuple[ValueTarget, ...] = ()
    """Empty without a critic, or with one that judges tokens."""
    tokens: tuple[Tensor, Tensor] | None = None
    """(N,) float each: advantages, and targets of V_low; with `credit=token`."""


class Credit(NamedTuple):
    """What the learner learns from."""

    shaped: Tensor
    """(B, T) float. Rewards with penalties."""
    levels: Mapping[Level, Tensor]
    """(B, T) float each, as estimated: before standardising."""
    values: tuple[ValueTarget, ...]
    advantages: Tensor
    """(N,) float. Of each reply token, standardised if configured."""
    loss_mask: Tensor
    """(N,) bool. Tokens the policy loss reads."""
    token_target: Tensor | None = None
    """(N,) float. Target of V_low at each trained token; with `credit=token`."""


class Estimator(ABC, Generic[S]):
    """From rewards to advantages. One object a training; `state` and `restore` carry what it remembers over a checkpoint."""

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def estimate(self, rewards: Tensor, batch: Batch, forward: ForwardOutputs) -> Estimate:
        """Advantages and value targets of an iteration's episodes. Called once an iteration, in every process with the same arguments.

        Args:
            rewards: (B, T) float, shaped.
            batch: the episodes.
            forward: the network's outputs on them; holds what `settings.needs` asks for.
        """

    def state(self) -> dict[str, Any]:
        """What JSON can hold of what it remembers between iterations."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""


def one_for_all(advantages: Tensor) -> dict[Level, Tensor]:
    """An advantage that a turn's three decisions share."""
    return dict.fromkeys(Level, advantages)
