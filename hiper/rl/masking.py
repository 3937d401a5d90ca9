"""Which token gets which advantage.

Action block <- A_low; subgoal block of a segment's first turn <- A_high; switch block of every turn <- A_switch; nothing else is trained.
Source: HiPER, arXiv:2602.16165. Spans come from the protocol's parser as block ids; this module knows no text.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hiper.rl._checks import check_bool, check_shapes
from hiper.rl.blocks import Block


class TokenAdvantages(NamedTuple):
    """Turn-level credit laid on tokens, each (B, L)."""

    advantages: Tensor
    """float; zero on untrained tokens."""
    loss_mask: Tensor
    """bool; True where the policy gradient acts, also where the advantage happens to be zero."""


class LevelTurns(NamedTuple):
    """Turns on which each level has trained tokens, each (B, T) bool."""

    low: Tensor
    high: Tensor
    switch: Tensor


class MaskCoverage(NamedTuple):
    """Shares in [0, 1], scalars; 1 where there is nothing to cover."""

    turns: Tensor
    """Live turns with every block they need: switch and action, and the subgoal where a segment starts."""
    switch: Tensor
    """Live turns with a switch block."""
    subgoal: Tensor
    """Segment starts with a subgoal block."""
    action: Tensor
    """Live turns with an action block."""


def spread(
    low: Tensor, high: Tensor, switch: Tensor, turns: Tensor, blocks: Tensor, segment_starts: Tensor, mask: Tensor
) -> TokenAdvantages:
    """Advantage of each token, and the mask of tokens that are trained.

    Args:
        low, high, switch: (B, T) float. Advantages of a turn's action, subgoal and switch decision.
        turns: (B, L) long. The turn a token belongs to; read where `blocks` is not `none`.
        blocks: (B, L) long. A `Block` for each token.
        segment_starts: (B, T) bool. True where a segment begins.
        mask: (B, T) bool. True on real turns.

    Raises:
        ValueError: shapes or dtypes differ from the above, a block id is unknown, or a token belongs to a turn that is not live.

    Note:
        The copied subgoal of a KEEP turn gets no gradient.
    """
    check_shapes("(B, T)", mask.shape, low=low, high=high, switch=switch)
    at = _turn_of_token(turns, blocks, segment_starts, mask)
    by_block = torch.stack((torch.zeros_like(low), switch, high, low), dim=2)
    loss_mask = (blocks != Block.none) & ((blocks != Block.subgoal) | segment_starts.gather(1, at))
    credit = by_block.flatten(1).gather(1, at * len(Block) + blocks)
    return TokenAdvantages(torch.where(loss_mask, credit, 0.0), loss_mask)


def level_turns(turns: Tensor, blocks: Tensor, segment_starts: Tensor, mask: Tensor) -> LevelTurns:
    """Turns that carry each level's mask: what `hae.normalize` standardises over. Arguments and errors as in `spread`."""
    at = _turn_of_token(turns, blocks, segment_starts, mask)
    present = torch.zeros(*mask.shape, len(Block), dtype=torch.bool, device=mask.device)
    # Tokens outside every block land on turn 0's `none` entry, which nobody reads.
    present.flatten(1).scatter_(1, at * len(Block) + blocks, True)
    return LevelTurns(present[..., Block.action], present[..., Block.subgoal] & segment_starts, present[..., Block.switch])


def mask_coverage(turns: Tensor, blocks: Tensor, segment_starts: Tensor, mask: Tensor) -> MaskCoverage:
    """Share of turns whose needed masks are non-empty. Arguments and errors as in `spread`.

    Spans that stop matching the replies silence a level without any other sign, so this is a metric and an alarm.
    """
    present = level_turns(turns, blocks, segment_starts, mask)
    complete = present.switch & present.low & (present.high | ~segment_starts)
    return MaskCoverage(
        _share(complete, mask), _share(present.switch, mask), _share(present.high, segment_starts & mask), _share(present.low, mask)
    )


def _turn_of_token(turns: Tensor, blocks: Tensor, segment_starts: Tensor, mask: Tensor) -> Tensor:
    """(B, L) long: the turn of each token in a block, 0 for the others; everything checked."""
    check_shapes("(B, T)", mask.shape, segment_starts=segment_starts)
    check_bool(segment_starts=segment_starts, mask=mask)
    if mask.dim() != 2 or not mask.shape[1]:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; it must be (B, T) with at least one turn.")
    check_shapes("(B, L)", turns.shape, blocks=blocks)
    if turns.dim() != 2 or len(turns) != len(mask):
        raise ValueError(f"turns has shape {tuple(turns.shape)}; it must be (B, L) with B={len(mask)} rows, as mask (B, T) has.")
    for name, tensor in (("turns", turns), ("blocks", blocks)):
        if tensor.dtype != torch.long:
            raise ValueError(f"{name} has dtype {tensor.dtype}; it must be torch.long. Convert it with {name}.long().")
    unknown = blocks[(blocks < 0) | (blocks >= len(Block))]
    if unknown.numel():
        raise ValueError(f"blocks holds {int(unknown[0])}; a block is one of {', '.join(f'{int(b)} {b.name}' for b in Block)}.")
    inside = blocks != Block.none
    at = torch.where(inside, turns, 0)
    last = mask.shape[1] - 1
    outside = (at < 0) | (at > last) | (inside & ~mask.gather(1, at.clamp(0, last)))
    if bool(outside.any()):
        row, token = outside.nonzero()[0].tolist()
        raise ValueError(
            f"turns[{row}, {token}]={int(turns[row, token])} is not a live turn of trajectory {row}, which has {int(mask[row].sum())}; "
            f"a token in a block belongs to a turn that mask keeps."
        )
    return at


def _share(part: Tensor, whole: Tensor) -> Tensor:
    total = whole.sum()
    return torch.where(total > 0, (part & whole).sum() / total.clamp(min=1), 1.0)
