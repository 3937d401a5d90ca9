"""From characters to tokens: which of a reply's own tokens belong to which block, and where the values are read.

Offsets come from decoding the reply's token ids, never from matching token-id subsequences: byte-pair merges swallow `>` and
punctuation, and a mask that silently misses its block sends no credit (seen in the authors' logs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hiper.protocol.grammar import Block, Reply
from hiper.rl.blocks import Block as BlockId


class Decoder(Protocol):
    """The part of a tokenizer this module needs."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = ...) -> str: ...


class ReplySpans(NamedTuple):
    """Token-level reading of one reply."""

    blocks: list[int]
    """A `BlockId` for each of the reply's tokens."""
    low: int
    """Index of the token whose *predicting* hidden state holds V_low: the first token after `</subgoal>`, else after
    `</switch>`, else 0. V_high and V_switch are always read at index 0."""


def reply_text(tokenizer: Decoder, ids: Sequence[int]) -> str:
    """The reply's words, special tokens left out."""
    return tokenizer.decode(list(ids), skip_special_tokens=True)


def token_ends(tokenizer: Decoder, ids: Sequence[int]) -> list[int]:
    """Character offset at which each token's text ends in `reply_text(ids)`.

    A token that only completes a character begun by earlier bytes ends where that character ends. Offsets never decrease.
    """
    ends: list[int] = []
    longest = 0
    for count in range(1, len(ids) + 1):
        text = tokenizer.decode(list(ids[:count]), skip_special_tokens=True)
        # An unfinished multi-byte character decodes to U+FFFD and must not count until it is whole.
        longest = max(longest, len(text.rstrip("\ufffd")))
        ends.append(longest)
    return ends


def locate(reply: Reply, ends: Sequence[int]) -> ReplySpans:
    """Assign each token of a reply to its block.

    A token belongs to the block that holds its last character: tags and the text between them count as the block's own. Without
    a usable action block every token is the action's, so that an unreadable reply still gets credit.

    Args:
        reply: the parsed reply.
        ends: `token_ends` of the reply's ids.
    """
    if not reply.action:
        return ReplySpans([BlockId.action] * len(ends), 0)
    blocks = [BlockId.none] * len(ends)
    start = 0
    for index, end in enumerate(ends):
        for block, span in reply.spans.items():
            # Overlap, not containment: a merged token such as `></` that straddles a border goes to the block it ends in. A token without
            # characters of its own (the first bytes of one that is not whole yet, a special token) belongs where it stands.
            if span.start < end and (end <= span.end if start < end else end < span.end):
                blocks[index] = BlockId[block.value]
        start = max(start, end)
    after = reply.spans.get(Block.subgoal) or reply.spans.get(Block.switch)
    low = 0
    if after is not None:
        low = next((index for index, end in enumerate(ends) if end > after.end), 0)
    return ReplySpans([int(block) for block in blocks], low)
