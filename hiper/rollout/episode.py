"""What the learner keeps of an episode: token sequences beside the readable trajectory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from hiper.rollout.trajectory import Trajectory
from hiper.runtime.records import LOCAL


class AllowedTokens(NamedTuple):
    """What a token could be drawn from, where that was less than the whole vocabulary."""

    ids: list[int]
    all_but: bool = False
    """True: everything but `ids`; False: `ids` alone."""

    @property
    def forced(self) -> bool:
        """There was nothing to choose."""
        return not self.all_but and len(self.ids) == 1


@dataclass(slots=True)
class TokenTurn:
    """One reply inside a token sequence."""

    turn: int
    """Index of the turn in its trajectory."""
    start: int
    """Index of the reply's first token; the hidden state at `start - 1` predicts it and holds V_high and V_switch."""
    blocks: list[int]
    """`BlockId` of each reply token."""
    low: int
    """Offset of the reply token whose predicting hidden state holds V_low."""
    logprobs: list[float]
    """Log-probabilities under the sampling distribution."""
    allowed: list[AllowedTokens | None]
    """What each token was drawn from; None: the whole vocabulary."""


@dataclass(slots=True)
class TokenSequence:
    """Tokens the network reads in one pass: a whole conversation (`append`) or one turn's prompt and reply (`window`)."""

    ids: list[int]
    turns: list[TokenTurn]
    final: int | None = None
    """Index of the last token of the final observation's prompt, where a truncated episode's value is read; None: not kept."""
    hidden: Tensor | None = field(default=None, metadata=LOCAL, compare=False)
    """(L, D) the policy's hidden states, where the sampler kept them."""


@dataclass(slots=True)
class Episode:
    """One trajectory with its tokens and the facts the learner's shaping needs, a value a turn."""

    trajectory: Trajectory
    sequences: list[TokenSequence]
    keeps: list[bool] = field(default_factory=list)
    """KEEP decisions that count for the penalty."""
    mismatches: list[bool] = field(default_factory=list)
    """KEEP decisions that spelled another subgoal."""

    @property
    def terminated(self) -> bool:
        """The task ended; otherwise the episode was truncated."""
        return self.trajectory.stop == "terminated"
