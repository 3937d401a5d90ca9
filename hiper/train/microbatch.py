"""Forward passes over a batch, a few sequences at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hiper.model.actor import Actor
from hiper.rl.losses import token_entropy
from hiper.rollout.batch import Batch, padded
from hiper.rollout.samplers.transformers import mask_logits


class MicroBatch(NamedTuple):
    """What the network says of some of a batch's sequences."""

    tokens: Tensor
    """(n,) long. Which of the batch's reply tokens; forced ones are left out."""
    logprobs: Tensor
    """(n,) float, under the sampling distribution."""
    entropies: Tensor
    """(n,) float, nats; empty unless asked for."""
    turns: Tensor
    """(m, 2) long. Trajectory and turn of each live turn in these sequences."""
    values: Tensor
    """(m, 3) float: V_low, V_high, V_switch of those turns; empty without values."""
    states: Tensor
    """(m, 2, D) float: what V_low reads, and what V_high and V_switch read; empty without values."""
    token_values: Tensor
    """(n,) float: V_low in the state each of those tokens was chosen in; empty unless asked for."""
    token_states: Tensor
    """(n, D) float: what it reads; empty unless asked for."""
    final_rows: Tensor
    """(f,) long. Trajectories whose final state is in these sequences."""
    final_values: Tensor
    """(f, 3) float."""


def microbatches(
    actor: Actor,
    batch: Batch,
    chosen: Tensor,
    *,
    budget: int,
    temperature: float,
    with_values: bool = True,
    with_entropies: bool = False,
    with_token_values: bool = False,
    recorded: bool = False,
) -> Iterator[MicroBatch]:
    """Run the network over the sequences of chosen trajectories, a few at a time.

    Args:
        actor: gradients flow if the caller enabled them.
        batch: all episodes.
        chosen: (b,) long. Trajectories.
        budget: tokens, padding included, a pass holds at most; a longer sequence goes alone.
        temperature: logits are divided by it, as when sampling.
        with_values: read the value heads.
        with_entropies: also compute each token's entropy.
        with_token_values: also read V_low at every token; needs `with_values`.
        recorded: where the sampler has kept the hidden states of all sequences of a pass, take those. They are the weights' that sampled.
    """
    wanted = torch.isin(batch.owner, chosen).nonzero().flatten().tolist()
    for group in length_groups(wanted, [len(sequence.ids) for sequence in batch.sequences], budget):
        device = batch.owner.device
        place = torch.full((len(batch.sequences),), -1, dtype=torch.long, device=device)
        place[torch.tensor(group, device=device)] = torch.arange(len(group), device=device)
        hidden_states = [batch.sequences[number].hidden for number in group]
        kept = [states for states in hidden_states if states is not None]
        if recorded and len(kept) == len(group):
            output = actor.of_hidden(pad_sequence(kept, batch_first=True))
        else:
            output = actor(padded([batch.sequences[number].ids for number in group]).to(device), with_values=with_values)
        tokens = ((place[batch.token_sequence] >= 0) & ~batch.forced).nonzero().flatten()
        hidden = output.hidden[place[batch.token_sequence[tokens]], batch.token_position[tokens] - 1]
        logits = actor.logits(hidden) / temperature
        logits = mask_logits(logits, [batch.allowed[index] for index in tokens.tolist()])
        logprobs = logits.log_softmax(-1).gather(1, batch.token_id[tokens, None]).squeeze(1)
        entropies = token_entropy(logits) if with_entropies else logits.new_empty(0)
        turns = (batch.mask & (place[batch.turn_sequence] >= 0)).nonzero()
        finals = ((batch.final_sequence >= 0) & (place[batch.final_sequence.clamp(min=0)] >= 0)).nonzero().flatten()
        if with_values:
            row, turn = turns.unbind(1)
            where = place[batch.turn_sequence[row, turn]]
            low = output.values[where, batch.low_position[row, turn], 0]
            rest = output.values[where, batch.first_position[row, turn], 1:]
            values = torch.cat([low[:, None], rest], dim=1)
            states = torch.stack(
                [output.states[where, batch.low_position[row, turn]], output.states[where, batch.first_position[row, turn]]], dim=1
            )
            final = output.values[place[batch.final_sequence[finals]], batch.final_position[finals]]
        else:
            values = final = states = output.values
        token_values = token_states = output.values.new_empty(0)
        if with_token_values:
            chosen_in = (place[batch.token_sequence[tokens]], batch.token_position[tokens] - 1)
            token_values, token_states = output.values[(*chosen_in, 0)], output.states[chosen_in]
        yield MicroBatch(tokens, logprobs, entropies, turns, values, states, token_values, token_states, finals, final)


def length_groups(wanted: list[int], lengths: list[int], budget: int) -> Iterator[list[int]]:
    """Sequences of like length together, so that little of a pass is padding."""
    group: list[int] = []
    for number in sorted(wanted, key=lambda n: (lengths[n], n)):
        if group and lengths[number] * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(number)
    if group:
        yield group
