"""What a sampler is: something that writes replies for many conversations at once, for as long as a run lasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hiper.rollout.constrain import GrammarTurn
from hiper.rollout.episode import AllowedTokens


@dataclass(slots=True)
class Request:
    """One conversation's turn to be answered."""

    slot: int
    """Which conversation; the sampler keeps its context between calls."""
    ids: list[int]
    """Tokens to append to what the sampler already holds for the slot; the last reply's tokens are held."""
    fresh: bool
    """Forget what the slot held: a new conversation, or a prompt rebuilt from scratch."""
    commands: Sequence[str] | None
    """Commands the action block may hold; None: any."""
    grammar_turn: GrammarTurn | None = None
    """The form the whole reply is held to; None: only the action block is limited, if that."""
    written: Sequence[int] = ()
    """Tokens the reply already has, of another sampler's writing; the answer goes on behind them."""
    until: Callable[[Sequence[int]], bool] | None = None
    """Given the tokens sampled so far: whether to leave the rest of the reply to another sampler. None: write it to its end."""


@dataclass(slots=True)
class Sampled:
    """One reply as sampled."""

    ids: list[int]
    logprobs: list[float]
    """Log-probability of each token under the sampling distribution: temperature and constraint included."""
    allowed: list[AllowedTokens | None]
    """What each token was drawn from; None: the whole vocabulary."""


class Sampler(Protocol):
    """Writes replies. One is started for a run and serves all of its episodes:

    sampler = TransformersSampler.start(model_dir, cfg)
    sampler.begin(temperature, generator)       # before each batch of episodes
    sampler.reply(requests), sampler.release(slot), ...
    sampler.load_weights(named_tensors)         # between two batches, when the policy has learned
    sampler.close()
    """

    def begin(self, temperature: float, generator: torch.Generator) -> None:
        """Say how the coming replies are drawn; no conversation is running.

        Args:
            temperature: 0 is greedy.
            generator: source of every draw, on the sampler's device.
        """

    def reply(self, requests: Sequence[Request]) -> list[Sampled]:
        """One reply a request, in order."""

    def release(self, slot: int) -> None:
        """The conversation is over."""

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Go on with these weights of the language model, named as in its model directory; no conversation is running.

        Raises:
            ModelError: names or shapes are not the model's.
        """

    def close(self) -> None:
        """Give back what the sampler holds: memory, processes. It answers no more."""


@runtime_checkable
class RecordingSampler(Sampler, Protocol):
    """A sampler that can keep the network's hidden states: what is read from them need not be computed again."""

    def begin(self, temperature: float, generator: torch.Generator, *, record: bool = False) -> None:
        """As of every sampler.

        Args:
            temperature: 0 is greedy.
            generator: source of every draw, on the sampler's device.
            record: keep the hidden states of every token, for `states`.
        """

    def states(self, ended: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        """Hidden states of conversations that have ended and are not released yet, after `begin(..., record=True)`.

        Args:
            ended: slot and all tokens of each, those included that follow its last reply.

        Returns:
            (L, D) a conversation, a state a token: what a forward pass over the whole would give, up to rounding.
        """
