"""Two networks, one agent: a planner writes the switch and the subgoal, an executor goes on with the action.

HiPER (arXiv:2602.16165) holds that the two levels can be learned apart and that a learned planner transfers: planner and executor of
different checkpoints can play together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hiper.config import Dialect
from hiper.protocol import planned, reply_text
from hiper.rollout.chat import ChatCodec
from hiper.rollout.samplers.types import Request, Sampled, Sampler


class _Reader:
    """A sampler, and what it has not read yet of each conversation."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._unread: dict[int, list[int]] = {}
        self._fresh: set[int] = set()  # conversations to begin anew
        self._begun: set[int] = set()

    def hear(self, slot: int, ids: Sequence[int], *, fresh: bool = False) -> None:
        """Tokens of a conversation, to be read before the sampler's next reply."""
        if fresh:
            self._unread[slot] = []
            self._fresh.add(slot)
        self._unread.setdefault(slot, []).extend(ids)

    def reply(self, requests: Sequence[Request]) -> list[Sampled]:
        """Answers to requests, whose `ids` and `fresh` are replaced by what was heard."""
        asked = [replace(r, ids=self._unread.pop(r.slot, []), fresh=r.slot in self._fresh) for r in requests]
        for request in requests:
            self._fresh.discard(request.slot)
            self._begun.add(request.slot)
        return self.sampler.reply(asked) if asked else []

    def release(self, slot: int) -> None:
        """The conversation is over."""
        if slot in self._begun:
            self.sampler.release(slot)
        self._unread.pop(slot, None)
        self._fresh.discard(slot)
        self._begun.discard(slot)


class PairSampler:
    """Lets one sampler begin each reply and another end it; each reads what the other has written."""

    def __init__(self, planner: Sampler, executor: Sampler, codec: ChatCodec, dialect: Dialect, max_reply_tokens: int) -> None:
        """Prepare to answer.

        Args:
            planner, executor: they share the codec's tokenizer, and how they draw.
            codec: where replies end.
            dialect: says where a plan ends.
            max_reply_tokens: where both cut a reply.
        """
        self._planner, self._executor = _Reader(planner), _Reader(executor)
        self._codec, self._dialect, self._most = codec, dialect, max_reply_tokens

    def begin(self, temperature: float, generator: torch.Generator) -> None:
        """Say how the coming replies of both are drawn."""
        self._planner.sampler.begin(temperature, generator)
        self._executor.sampler.begin(temperature, generator)

    def reply(self, requests: Sequence[Request]) -> list[Sampled]:
        """One reply a request, in order."""
        for request in requests:
            for reader in (self._planner, self._executor):
                reader.hear(request.slot, request.ids, fresh=request.fresh)
        replies = self._planner.reply([replace(request, until=self._planned) for request in requests])
        # A reply that ended, or was cut, with its plan or before it is the planner's alone.
        open_ = [number for number, plan in enumerate(replies) if plan.ids[-1] != self._codec.end and len(plan.ids) < self._most]
        for number in set(range(len(requests))) - set(open_):
            self._executor.hear(requests[number].slot, self._closed(replies[number].ids))
        actions = self._executor.reply([replace(requests[number], written=replies[number].ids) for number in open_])
        for number, action in zip(open_, actions, strict=True):
            plan = replies[number]
            replies[number] = Sampled(plan.ids + action.ids, plan.logprobs + action.logprobs, plan.allowed + action.allowed)
            self._planner.hear(requests[number].slot, self._closed(action.ids))
        return replies

    def release(self, slot: int) -> None:
        """The conversation is over."""
        self._planner.release(slot)
        self._executor.release(slot)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Go on with these weights of the executor; a planner of another checkpoint stays as it is."""
        self._executor.sampler.load_weights(weights)

    def close(self) -> None:
        """Give back what both hold."""
        self._planner.sampler.close()
        self._executor.sampler.close()

    def _planned(self, ids: Sequence[int]) -> bool:
        return planned(reply_text(self._codec.tokenizer, ids), self._dialect)

    def _closed(self, ids: list[int]) -> list[int]:
        """A reply's tokens with the end that a cut one lacks, as the sampler that wrote it holds them."""
        return ids if ids[-1] == self._codec.end else [*ids, self._codec.end]
