"""What keeping the subgoal would have been worth: V_low(s_t, o_{t-1}), which the `option_value` switch credit compares with V_high(s_t).

On KEEP turns that is the turn's own V_low. On SWITCH turns the network reads the turn's context again, followed by the KEEP that was not
written: one more pass over a prefix for each switch, without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hiper.config import Dialect
from hiper.model.actor import Actor
from hiper.protocol import Switch, render
from hiper.rollout.batch import Batch, padded
from hiper.rollout.episode import Episode
from hiper.runtime.distributed import ALONE, World
from hiper.train.microbatch import length_groups


@torch.no_grad()
def keep_values(
    actor: Actor,
    batch: Batch,
    episodes: Sequence[Episode],
    values: Tensor,
    encode: Callable[[str], Sequence[int]],
    dialect: Dialect,
    *,
    budget: int,
    world: World = ALONE,
) -> Tensor:
    """(B, T) float: V_low(s_t, o_{t-1}) on every live turn but the first, zero elsewhere.

    Args:
        actor: the network, in evaluation mode.
        batch: made of `episodes`.
        values: (B, T, 3) float, as `forward` read them.
        encode: text to token ids.
        dialect: how a KEEP is written.
        budget: tokens, padding included, a pass holds at most.
        world: the processes that share the passes.
    """
    found = torch.where(batch.mask & ~batch.segment_starts, values[..., 0], 0.0)
    unwritten: list[tuple[int, int, list[int]]] = []
    for row, episode in enumerate(episodes):
        turns = episode.trajectory.turns
        for sequence in episode.sequences:
            for reply in sequence.turns:
                if reply.turn and turns[reply.turn].switch:
                    kept = _kept(turns[reply.turn - 1].subgoal, dialect)
                    unwritten.append((row, reply.turn, [*sequence.ids[: reply.start], *encode(kept)]))
    unwritten = world.shard(unwritten)
    read_again = torch.zeros_like(found)
    lengths = [len(ids) for _, _, ids in unwritten]
    for part in length_groups(list(range(len(unwritten))), lengths, budget):
        rows, columns, ids = zip(*(unwritten[number] for number in part), strict=True)
        read = actor(padded(list(ids)).to(actor.device)).values
        last = torch.tensor([lengths[number] - 1 for number in part], device=actor.device)
        read_again[list(rows), list(columns)] = read[torch.arange(len(part), device=actor.device), last, 0].float()
    world.all_reduce([read_again])
    return found + read_again


def _kept(subgoal: str, dialect: Dialect) -> str:
    """A KEEP up to where its action would begin: where V_low is read."""
    return render(Switch.KEEP, subgoal, "", dialect).split("<action>")[0].rstrip()
