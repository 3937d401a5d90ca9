"""Demonstrations in tokens: what the warm start reads, which of it is learned, and what each learned token could be chosen from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hiper.config import Dialect
from hiper.errors import DataError
from hiper.protocol import parse, reply_text
from hiper.rollout.chat import ChatCodec
from hiper.rollout.constrain import CommandTries, GrammarConstraint, GrammarTurn
from hiper.rollout.episode import AllowedTokens
from hiper.rollout.remember import Remember, size_of
from hiper.sft.demos import Conversation
from hiper.sft.sharing import IGNORED

Example = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Reply:
    """Where a reply stands in its conversation, end token included."""

    start: int
    stop: int
    weight: float


class Encoded(Sequence[Example]):
    """Conversations in tokens, message by message exactly as rollouts encode them; only replies and their end tokens carry labels.

    Token ids are there from the start. Labels and limits, half of the work of encoding, are made when an item is asked for: processes that
    learn together ask for their own rows only.
    """

    def __init__(self, conversations: Sequence[Conversation], codec: ChatCodec, max_length: int, grammar: Dialect | None = None) -> None:
        """See `encode`."""
        self._tries = CommandTries(codec.tokenizer, codec.end)
        self._grammar = grammar
        self._tokenizer = codec.tokenizer
        self._subgoals: Remember[tuple[int, ...], str | None] = Remember(lambda ids, subgoal: size_of(subgoal, len(ids), objects=3))
        self.ids: list[NDArray[np.int32]] = []
        """(L,) of each conversation."""
        self._replies: list[list[_Reply]] = []
        self._admissible = [conversation.admissible for conversation in conversations]
        for number, conversation in enumerate(conversations, start=1):
            if grammar is not None and conversation.admissible is None:
                raise DataError(
                    f"demonstration {number} does not say which commands were admissible, which rollout.constrain=grammar needs. "
                    "Write the demonstrations with `hiper demos`, or choose another rollout.constrain."
                )
            ids: list[int] = []
            replies: list[_Reply] = []
            for message in conversation.messages:
                if message["role"] == "user":
                    ids.extend(codec.later(message["content"]) if ids else codec.first(message["content"]))
                    continue
                start = len(ids)
                ids.extend((*self._tries.encode(message["content"]), codec.end))  # replies repeat, and are remembered
                replies.append(_Reply(start, len(ids), message.get("weight", 1)))
            if len(ids) > max_length:
                raise DataError(
                    f"demonstration {number} has {len(ids)} tokens, more than sft.max_length={max_length}. "
                    "Raise it, or use a context or dialect with shorter conversations."
                )
            self.ids.append(np.array(ids, dtype=np.int32))
            self._replies.append(replies)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Example: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...

    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        ids: list[int] = self.ids[place].tolist()
        labels = [IGNORED] * len(ids)
        allowed_tokens: list[AllowedTokens | None] = []
        limits = None if self._grammar is None else self._limits(place, ids)
        for turn, reply in enumerate(self._replies[place]):
            if reply.weight <= 0:
                continue
            for offset in range(reply.start, reply.stop):
                entry = None if limits is None else limits[turn][offset - reply.start]
                if entry is None or not entry.forced:
                    labels[offset] = ids[offset]
                    allowed_tokens.append(entry)
        return {"input_ids": ids, "labels": labels, **({} if limits is None else {"allowed_tokens": allowed_tokens})}

    def _limits(self, place: int, ids: list[int]) -> list[list[AllowedTokens | None]]:
        """What each token of each reply was chosen from."""
        admissible = self._admissible[place]
        assert self._grammar is not None and admissible is not None
        found: list[list[AllowedTokens | None]] = []
        subgoal: str | None = None
        for reply, commands in zip(self._replies[place], admissible, strict=True):
            written = ids[reply.start : reply.stop]
            found.append(_follow(GrammarConstraint(self._tries, GrammarTurn(self._grammar, subgoal), commands), written))
            subgoal = self._subgoals(tuple(written), self._subgoal) or subgoal
        return found

    def _subgoal(self, reply: tuple[int, ...]) -> str | None:
        assert self._grammar is not None
        return parse(reply_text(self._tokenizer, reply), self._grammar).subgoal


def encode(conversations: Sequence[Conversation], codec: ChatCodec, max_length: int, grammar: Dialect | None = None) -> Encoded:
    """Conversations in tokens.

    Args:
        conversations: of a demonstration file. A reply of weight 0 carries no labels.
        codec: the chat template.
        max_length: most tokens of a conversation.
        grammar: the dialect whose grammar replies are held to; tokens without an alternative then carry no labels. None: no limits.

    Returns:
        Dicts of `input_ids` and `labels`; with `grammar` also `allowed_tokens`, one for each label that is not ignored.

    Raises:
        DataError: a conversation is too long; or, with `grammar`, comes without admissible commands.
    """
    return Encoded(conversations, codec, max_length, grammar)


def _follow(constraint: GrammarConstraint, reply: list[int]) -> list[AllowedTokens | None]:
    """What each token of a reply was chosen from; None from where a reply leaves the grammar."""
    allowed: list[AllowedTokens | None] = []
    for token in reply:
        entry = constraint.allowed
        if entry is not None and (token in entry.ids) is entry.all_but:
            break
        allowed.append(entry)
        constraint.push(token)
    return allowed + [None] * (len(reply) - len(allowed))
