"""Samplers that write what they are told: for measuring ways of playing against each other on the very same trajectories.

The network is run for every token all the same, and a token is drawn as when sampling; only then the recorded one takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from hiper.model.actor import Actor
from hiper.model.compute import autocast
from hiper.rollout.chat import ChatCodec
from hiper.rollout.episode import AllowedTokens
from hiper.rollout.samplers.transformers import TransformersSampler, _Writing
from hiper.rollout.samplers.types import Request, Sampled


class Script:
    """The replies of recorded tasks, handed out as a collector plays those tasks in their order."""

    def __init__(self, tasks: Iterable[Sequence[list[int]]]) -> None:
        """Take the token ids of each task's replies, end tokens included."""
        self._waiting = iter(tasks)
        self._left: dict[int, Iterator[list[int]]] = {}

    def next(self, slot: int) -> list[int]:
        """What the conversation in a slot says now; a slot that is new, or free again, has the next task."""
        if slot not in self._left:
            self._left[slot] = iter(next(self._waiting))
        reply = next(self._left[slot], None)
        assert reply is not None, "a replayed task went on after its recorded end"
        return reply

    def release(self, slot: int) -> None:
        """The conversation is over."""
        del self._left[slot]


class ReplaySampler(TransformersSampler):
    """`TransformersSampler`, told what to write; replies must not be limited."""

    def __init__(self, actor: Actor, codec: ChatCodec, script: Script, **settings: Any) -> None:
        """Take what `TransformersSampler` takes, and the script."""
        super().__init__(actor, codec, **settings)
        self._script = script
        self._told: dict[int, list[int]] = {}

    def reply(self, requests: Sequence[Request]) -> list[Sampled]:
        """Answer every request with the recorded reply."""
        self._told = {request.slot: self._script.next(request.slot) for request in requests}
        return super().reply(requests)

    def release(self, slot: int) -> None:
        """The conversation is over."""
        self._script.release(slot)
        super().release(slot)

    def _sample(self, logits: Tensor, replies: list[_Writing]) -> tuple[list[int], list[float], list[AllowedTokens | None]]:
        _, _, allowed = super()._sample(logits, replies)
        tokens = [self._told[self._slot[reply.row]][len(reply.sampled.ids)] for reply in replies]
        return tokens, _logprobs(logits, tokens, self._temperature), allowed


class GenerateSampler:
    """`transformers.generate` on prompts padded on the left: nothing is kept between turns, and a batch runs until its last reply ends.

    This is how per-turn trainers play where no inference server does it for them. Needs the `window` context; replies are not limited.
    """

    def __init__(self, actor: Actor, codec: ChatCodec, script: Script, *, max_reply_tokens: int) -> None:
        self._actor, self._codec, self._script = actor, codec, script
        self._temperature, self._max_reply = 1.0, max_reply_tokens

    def begin(self, temperature: float, generator: torch.Generator) -> None:
        """Say how replies are drawn. `generate` draws from torch's own generator; what it draws is replaced."""
        self._temperature = temperature

    @torch.inference_mode()
    def reply(self, requests: Sequence[Request]) -> list[Sampled]:
        """Answer every request with the recorded reply."""
        assert all(request.fresh and request.commands is None for request in requests), "whole prompts and free replies only"
        told = [self._script.next(request.slot) for request in requests]
        width = max(len(request.ids) for request in requests)
        padding = [width - len(request.ids) for request in requests]
        device = self._actor.device
        prompts = [[self._codec.pad] * missing + request.ids for missing, request in zip(padding, requests, strict=True)]
        mask = [[0] * missing + [1] * (width - missing) for missing in padding]
        writer = _Writer(told, width, self._temperature)
        training = self._actor.training
        self._actor.eval()
        lm: Any = self._actor.lm
        with autocast(self._actor.compute, device):
            lm.generate(
                input_ids=torch.tensor(prompts, device=device),
                attention_mask=torch.tensor(mask, device=device),
                do_sample=True,
                temperature=self._temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self._max_reply,
                eos_token_id=self._codec.end,
                pad_token_id=self._codec.pad,
                logits_processor=LogitsProcessorList([writer]),
            )
        self._actor.train(training)
        return [Sampled(ids, logprobs, [None] * len(ids)) for ids, logprobs in zip(told, writer.logprobs, strict=True)]

    def release(self, slot: int) -> None:
        """The conversation is over."""
        self._script.release(slot)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Go on with these weights, see `Actor.load_lm`."""
        self._actor.load_lm(weights)

    def close(self) -> None:
        """Nothing is kept."""


class _Writer(LogitsProcessor):
    """Leaves each row of `generate` one token to draw: the recorded one."""

    def __init__(self, told: list[list[int]], width: int, temperature: float) -> None:
        self._told, self._width, self._temperature = told, width, temperature
        self.logprobs: list[list[float]] = [[] for _ in told]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores of the next token, all but one at -inf; rows that have ended draw what `generate` then overwrites."""
        done = input_ids.shape[1] - self._width
        tokens = [reply[min(done, len(reply) - 1)] for reply in self._told]
        for row, logprob in enumerate(_logprobs(scores, tokens, self._temperature)):
            if done < len(self._told[row]):
                self.logprobs[row].append(logprob)
        chosen = torch.tensor(tokens, device=scores.device)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(1, chosen, 0.0)


def _logprobs(logits: Tensor, tokens: list[int], temperature: float) -> list[float]:
    """Log-probabilities of one token a row, from (N, V) logits."""
    logprobs = (logits / temperature).log_softmax(-1)
    chosen: list[float] = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None]).squeeze(1).tolist()
    return chosen
