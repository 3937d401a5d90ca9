"""An iteration's episodes as tensors.

Turn-level facts are (B, T), padded on the right; reply tokens are flat, each with its trajectory, turn and block. A
`TokenSequence` is one forward pass of the network: a whole conversation in the `append` context, so every trajectory is run once, or
one turn in the `window` context. Learner and estimator see no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hiper.rl.blocks import Block
from hiper.rollout.episode import AllowedTokens, Episode, TokenSequence


@dataclass
class Batch:
    """B trajectories of up to T turns, with N reply tokens in S sequences."""

    sequences: list[TokenSequence]
    owner: Tensor
    """(S,) long. Trajectory of each sequence."""
    rewards: Tensor
    """(B, T) float, the environment's."""
    segment_starts: Tensor
    mask: Tensor
    invalid: Tensor
    keep: Tensor
    mismatch: Tensor
    """(B, T) bool."""
    terminated: Tensor
    """(B,) bool."""
    groups: Tensor
    """(B,) long. Trajectories with equal numbers play the same task."""
    anchors: Tensor
    """(B, T) long. Turns with equal numbers saw the same observation; 0 on padding."""
    token_sequence: Tensor
    token_position: Tensor
    """(N,) long. Where each reply token stands; the hidden state one earlier predicts it."""
    token_id: Tensor
    token_row: Tensor
    token_column: Tensor
    """(N,) long. Trajectory, and index among that trajectory's reply tokens."""
    turns: Tensor
    blocks: Tensor
    """(B, R) long. Turn and block of each trajectory's reply tokens; block 0 on padding."""
    sampled_logprobs: Tensor
    """(N,) float. What the sampler recorded."""
    allowed: list[AllowedTokens | None]
    """N entries. What each token was drawn from."""
    forced: Tensor
    """(N,) bool. Tokens that had no alternative: their probability is 1 and they teach nothing."""
    first_position: Tensor
    low_position: Tensor
    """(B, T) long. Position, in the sequence of the turn, whose hidden state holds V_high and V_switch, and V_low."""
    turn_sequence: Tensor
    """(B, T) long. Sequence of each turn."""
    final_sequence: Tensor
    final_position: Tensor
    """(B,) long. Where a truncated episode's final state is read; -1: not kept."""

    @property
    def tokens(self) -> int:
        """Reply tokens."""
        return len(self.token_id)

    @property
    def read_tokens(self) -> int:
        """Tokens of all sequences, prompts included."""
        return sum(len(sequence.ids) for sequence in self.sequences)

    def by_row(self, flat: Tensor) -> Tensor:
        """(N,) values of reply tokens as (B, R), zero on padding."""
        table = flat.new_zeros(self.turns.shape)
        table[self.token_row, self.token_column] = flat
        return table

    def flat(self, table: Tensor) -> Tensor:
        """(B, R) values back as (N,)."""
        return table[self.token_row, self.token_column]

    def switch_probability(self, logprobs: Tensor) -> Tensor:
        """(B, T) probability of SWITCH: of the switch block that was written, or what is left beside a KEEP that was.

        Args:
            logprobs: (N,) float, of the reply tokens; gradients flow.
        """
        in_switch = self.flat(self.blocks) == Block.switch
        chosen = torch.where(in_switch & ~self.forced, logprobs, 0.0)
        written = torch.zeros_like(self.rewards).scatter_add(1, self.turns, self.by_row(chosen)).exp()
        return torch.where(self.segment_starts, written, 1 - written)


def make_batch(episodes: Sequence[Episode], device: torch.device) -> Batch:
    """Lay episodes out as tensors; every episode has at least one turn."""
    rows, width = len(episodes), max(len(episode.trajectory.turns) for episode in episodes)
    sequences: list[TokenSequence] = []
    owner: list[int] = []
    tokens: list[tuple[int, int, int, int, int]] = []  # sequence, position, id, row, column
    blocks: list[list[int]] = []
    turn_of: list[list[int]] = []
    logprobs: list[float] = []
    allowed: list[AllowedTokens | None] = []
    places = torch.zeros(3, rows, width, dtype=torch.long)  # sequence, first, low
    final = torch.full((2, rows), -1, dtype=torch.long)
    facts = torch.zeros(5, rows, width, dtype=torch.bool)  # starts, mask, invalid, keep, mismatch
    rewards = torch.zeros(rows, width)
    anchors = torch.zeros(rows, width, dtype=torch.long)
    seen: dict[str, int] = {}
    tasks: dict[str, int] = {}
    for row, episode in enumerate(episodes):
        row_blocks: list[int] = []
        row_turns: list[int] = []
        for sequence in episode.sequences:
            number = len(sequences)
            sequences.append(sequence)
            owner.append(row)
            for reply in sequence.turns:
                places[:, row, reply.turn] = torch.tensor([number, reply.start - 1, reply.start + reply.low - 1])
                for offset, block in enumerate(reply.blocks):
                    position = reply.start + offset
                    tokens.append((number, position, sequence.ids[position], row, len(row_blocks)))
                    row_blocks.append(block)
                    row_turns.append(reply.turn)
                logprobs += reply.logprobs
                allowed += reply.allowed
            if sequence.final is not None:
                final[:, row] = torch.tensor([number, sequence.final])
        blocks.append(row_blocks)
        turn_of.append(row_turns)
        turns = episode.trajectory.turns
        count = len(turns)
        rewards[row, :count] = torch.tensor([turn.reward for turn in turns])
        anchors[row, :count] = torch.tensor([seen.setdefault(turn.observation, len(seen)) for turn in turns])
        facts[:, row, :count] = torch.tensor(
            [
                [turn.switch for turn in turns],
                [True] * count,
                [bool(turn.faults) or not turn.admissible for turn in turns],
                episode.keeps,
                episode.mismatches,
            ]
        )
    table = torch.tensor(tokens, dtype=torch.long).T
    segment_starts, mask, invalid, keep, mismatch = facts.to(device)
    return Batch(
        sequences=sequences,
        owner=torch.tensor(owner, device=device),
        rewards=rewards.to(device),
        segment_starts=segment_starts,
        mask=mask,
        invalid=invalid,
        keep=keep,
        mismatch=mismatch,
        terminated=torch.tensor([episode.terminated for episode in episodes], device=device),
        groups=torch.tensor([tasks.setdefault(episode.trajectory.task_id, len(tasks)) for episode in episodes], device=device),
        anchors=anchors.to(device),
        token_sequence=table[0].to(device),
        token_position=table[1].to(device),
        token_id=table[2].to(device),
        token_row=table[3].to(device),
        token_column=table[4].to(device),
        turns=padded(turn_of).to(device),
        blocks=padded(blocks).to(device),
        sampled_logprobs=torch.tensor(logprobs, device=device),
        allowed=allowed,
        forced=torch.tensor([entry is not None and entry.forced for entry in allowed], device=device),
        turn_sequence=places[0].to(device),
        first_position=places[1].to(device),
        low_position=places[2].to(device),
        final_sequence=final[0].to(device),
        final_position=final[1].to(device),
    )


def padded(lists: list[list[int]]) -> Tensor:
    """(rows, longest) long, zeros on the right."""
    width = max(len(row) for row in lists)
    return torch.tensor([row + [0] * (width - len(row)) for row in lists], dtype=torch.long)
