"""From an iteration's episodes to what the learner learns from: batch, forward pass, keep values, credit.

The one body of an iteration: training, `hiper benchmark train` and `hiper benchmark credit` all run it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hiper.algos.types import Credit, Estimator, ForwardOutputs
from hiper.model.actor import Actor
from hiper.rollout.batch import Batch, make_batch
from hiper.rollout.episode import Episode
from hiper.train.credit import assign_credit
from hiper.train.forward import forward
from hiper.train.keep import keep_values
from hiper.train.learner import Learner

Encode = Callable[[str], Sequence[int]]
"""Text to token ids."""


class Assessed(NamedTuple):
    """Episodes with their credit."""

    batch: Batch
    outputs: ForwardOutputs
    credit: Credit


def assess(learner: Learner, estimator: Estimator[Any], reference: Actor | None, episodes: Sequence[Episode], encode: Encode) -> Assessed:
    """Run the network over the episodes and credit them, under the learner's settings and with its processes.

    Args:
        learner: its actor is in evaluation mode.
        estimator: of the learner's `algo`; what it `needs` is computed.
        reference: of the KL; None: no KL is wanted.
        episodes: every one, in every process.
        encode: text to token ids, without special tokens.
    """
    cfg, actor = learner.cfg, learner.actor
    needs, budget = cfg.algo.needs, cfg.trainer.microbatch_tokens
    batch = make_batch(episodes, actor.device)
    outputs = forward(
        actor,
        reference,
        batch,
        budget=budget,
        temperature=cfg.rollout.temperature,
        with_states=learner.critic is not None,
        with_token_values=needs.token_values,
        world=learner.world,
    )
    if needs.keep_values:
        kept = keep_values(actor, batch, episodes, outputs.values, encode, cfg.protocol.dialect, budget=budget, world=learner.world)
        outputs = outputs._replace(keep_values=kept)
    return Assessed(batch, outputs, assign_credit(estimator, batch, outputs))
