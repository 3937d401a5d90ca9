"""The network's outputs on a batch before any step: log-probabilities and values."""

from __future__ import annotations

import torch

from hiper.algos.types import ForwardOutputs
from hiper.model.actor import Actor
from hiper.rollout.batch import Batch
from hiper.runtime.distributed import ALONE, World
from hiper.train.microbatch import microbatches


@torch.no_grad()
def forward(
    actor: Actor,
    reference: Actor | None,
    batch: Batch,
    *,
    budget: int,
    temperature: float,
    with_states: bool = False,
    with_token_values: bool = False,
    world: World = ALONE,
) -> ForwardOutputs:
    """Run the network, and the reference if there is one, over every sequence once, without gradients; each process over its share.

    Where the sampler has kept the network's hidden states, only what is read from them is computed.
    """
    mine = world.shard(torch.arange(len(batch.mask), device=batch.mask.device))
    logprobs, entropies = torch.zeros_like(batch.sampled_logprobs), torch.zeros_like(batch.sampled_logprobs)
    values = batch.rewards.new_zeros((*batch.mask.shape, 3))
    final = batch.rewards.new_zeros((len(batch.mask), 3))
    states = batch.rewards.new_zeros((*batch.mask.shape, 2, actor.heads.in_features)) if with_states else None
    token_values = torch.zeros_like(batch.sampled_logprobs)
    token_states = token_values.new_zeros((batch.tokens, actor.heads.in_features)) if with_states and with_token_values else None
    for part in microbatches(
        actor,
        batch,
        mine,
        budget=budget,
        temperature=temperature,
        with_entropies=True,
        with_token_values=with_token_values,
        recorded=True,
    ):
        logprobs[part.tokens], entropies[part.tokens] = part.logprobs, part.entropies
        values[part.turns[:, 0], part.turns[:, 1]] = part.values.float()
        if states is not None:
            states[part.turns[:, 0], part.turns[:, 1]] = part.states.float()
        if with_token_values:
            token_values[part.tokens] = part.token_values.float()
        if token_states is not None:
            token_states[part.tokens] = part.token_states.float()
        final[part.final_rows] = part.final_values.float()
    ref_logprobs = logprobs if reference is None else torch.zeros_like(logprobs)
    if reference is not None:
        for part in microbatches(reference, batch, mine, budget=budget, temperature=temperature, with_values=False):
            ref_logprobs[part.tokens] = part.logprobs
    # Zero where it is another's: the sum over the processes is the whole, exactly.
    read = [logprobs, entropies, values, final, states, token_values, token_states, None if reference is None else ref_logprobs]
    world.all_reduce([tensor for tensor in read if tensor is not None])
    return ForwardOutputs(logprobs, ref_logprobs, entropies, values, final, token_values, states, token_states)
