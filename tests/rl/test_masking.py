"""Rules pinned here:

- action block <- A_low; subgoal block of a segment's first turn <- A_high; switch block of every turn <- A_switch; nothing else trained;
- a KEEP turn's copied subgoal gets no gradient; a token may be trained with advantage zero;
- coverage counts the blocks a turn needs, and only those.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from hiper.rl.blocks import Block
from hiper.rl.masking import level_turns, mask_coverage, spread

# Two trajectories. The first has two turns: SWITCH, then KEEP. The second has one turn without a usable form (all of it action).
N, W, G, A = Block.none, Block.switch, Block.subgoal, Block.action
BLOCKS = torch.tensor([[N, W, G, A, A, N, W, G, A], [N, A, A, A, N, N, N, N, N]])
TURNS = torch.tensor([[-1, 0, 0, 0, 0, -1, 1, 1, 1], [7, 0, 0, 0, -1, -1, -1, -1, -1]])  # read inside blocks only
STARTS = torch.tensor([[True, False], [True, False]])
MASK = torch.tensor([[True, True], [True, False]])
LOW, HIGH, SWITCH = (torch.tensor(values) for values in ([[1.0, 2.0], [3.0, 9.0]], [[10.0, 99.0], [30.0, 99.0]], [[0.5, 0.0], [0.7, 9.0]]))


def test_by_hand() -> None:
    result = spread(LOW, HIGH, SWITCH, TURNS, BLOCKS, STARTS, MASK)
    assert result.advantages.tolist() == [[0, 0.5, 10, 1, 1, 0, 0, 0, 2], [0, 3, 3, 3, 0, 0, 0, 0, 0]]
    # The second turn's switch token is trained though its advantage is 0; its copied subgoal is not.
    assert result.loss_mask.tolist() == [[False, True, True, True, True, False, True, False, True], [False, True, True, True] + [False] * 5]


def test_agrees_with_a_token_by_token_loop() -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        b, t, tokens = 3, 5, 40
        lengths = torch.randint(1, t + 1, (b, 1), generator=generator)
        mask = torch.arange(t) < lengths
        segment_starts = torch.rand(b, t, generator=generator) < 0.4
        low, high, switch = torch.randn(3, b, t, generator=generator)
        blocks = torch.randint(0, 4, (b, tokens), generator=generator)
        turns = (torch.rand(b, tokens, generator=generator) * lengths).long()
        result = spread(low, high, switch, turns, blocks, segment_starts, mask)
        present = level_turns(turns, blocks, segment_starts, mask)
        seen: dict[str, set[tuple[int, int]]] = {"low": set(), "high": set(), "switch": set()}
        for i in range(b):
            for j in range(tokens):
                turn, block = int(turns[i, j]), int(blocks[i, j])
                level = {Block.switch: "switch", Block.subgoal: "high", Block.action: "low"}.get(Block(block))
                if level is None or (level == "high" and not segment_starts[i, turn]):
                    assert result.advantages[i, j] == 0 and not result.loss_mask[i, j]
                else:
                    expected: Tensor = {"low": low, "high": high, "switch": switch}[level]
                    assert result.advantages[i, j] == expected[i, turn] and result.loss_mask[i, j]
                    seen[level].add((i, turn))
        for level, turns_seen in seen.items():
            assert {(i, turn) for i, turn in getattr(present, level).nonzero().tolist()} == turns_seen


def test_coverage_by_hand() -> None:
    coverage = mask_coverage(TURNS, BLOCKS, STARTS, MASK)
    # Three live turns: the formless one lacks a switch, and a subgoal that its segment's start needs.
    assert coverage.turns.item() == pytest.approx(2 / 3)
    assert coverage.switch.item() == pytest.approx(2 / 3)
    assert coverage.subgoal.item() == pytest.approx(1 / 2)
    assert coverage.action.item() == 1.0
    # A KEEP turn needs no subgoal block (the compact dialect writes none).
    compact = BLOCKS.clone()
    compact[0, 7] = Block.none
    assert mask_coverage(TURNS, compact, STARTS, MASK).turns.item() == pytest.approx(2 / 3)
    # Spans that no longer match show at once.
    assert mask_coverage(TURNS, torch.zeros_like(BLOCKS), STARTS, MASK).turns.item() == 0.0


def test_no_live_turn_leaves_nothing_to_cover() -> None:
    nothing, tokens = torch.zeros(2, 1, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.long)
    assert [share.item() for share in mask_coverage(tokens, tokens, nothing, nothing)] == [1.0] * 4
    ones = torch.ones(2, 1)
    assert not spread(ones, ones, ones, tokens, tokens, nothing, nothing).loss_mask.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": BLOCKS.clone().fill_(4)}, r"blocks holds 4; a block is one of 0 none, 1 switch, 2 subgoal, 3 action"),
        ({"blocks": BLOCKS.bool()}, r"blocks has dtype torch.bool"),
        ({"blocks": BLOCKS[:, :4]}, r"blocks has shape \(2, 4\)"),
        ({"turns": TURNS[:1], "blocks": BLOCKS[:1]}, r"turns has shape \(1, 9\).*B=2"),
        ({"turns": TURNS.clone().fill_(1)}, r"turns\[1, 1\]=1 is not a live turn of trajectory 1, which has 1"),
        ({"turns": TURNS.clone().fill_(-1)}, r"turns\[0, 1\]=-1 is not a live turn"),
        ({"turns": TURNS.clone().fill_(2)}, r"turns\[0, 1\]=2 is not a live turn"),
        ({"high": HIGH[:1]}, r"high has shape \(1, 2\)"),
        ({"segment_starts": STARTS.long()}, r"starts has dtype torch.int64"),
        (
            {name: torch.zeros(2, 0).bool() for name in ("mask", "segment_starts", "low", "high", "switch")},
            r"mask has shape \(2, 0\).*one turn",
        ),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    call = {"low": LOW, "high": HIGH, "switch": SWITCH, "turns": TURNS, "blocks": BLOCKS, "segment_starts": STARTS, "mask": MASK}
    with pytest.raises(ValueError, match=message):
        spread(**{**call, **change})
