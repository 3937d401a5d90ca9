"""Sampling with transformers, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from hiper.config import RunConfig
from hiper.model.actor import Actor, load_actor, load_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.rollout.constrain import ActionConstraint, CommandTries, Constraint, GrammarConstraint
from hiper.rollout.episode import AllowedTokens
from hiper.rollout.samplers.cache import SlotCache
from hiper.rollout.samplers.types import Request, Sampled
from hiper.runtime.device import pick_device


def mask_logits(logits: Tensor, allowed: Sequence[AllowedTokens | None]) -> Tensor:
    """(N, V) logits with every id that may not be drawn at -inf; `allowed` has N entries."""
    open_: list[tuple[int, AllowedTokens]] = []
    all_but: dict[int, tuple[AllowedTokens, list[int]]] = {}  # these are long, few and shared by many rows
    for row, entry in enumerate(allowed):
        if entry is None:
            continue
        if entry.all_but:
            all_but.setdefault(id(entry), (entry, []))[1].append(row)
        else:
            open_.append((row, entry))
    if not open_ and not all_but:
        return logits
    device = logits.device
    shut = torch.zeros_like(logits, dtype=torch.bool)
    if open_:
        rows = torch.tensor([row for row, _ in open_], device=device)
        counts = torch.tensor([len(entry.ids) for _, entry in open_], device=device)
        columns = torch.tensor(list(chain.from_iterable(entry.ids for _, entry in open_)), device=device)
        shut[rows] = True
        shut[rows.repeat_interleave(counts), columns] = False
    for entry, members in all_but.values():
        closed = torch.zeros(logits.shape[1], dtype=torch.bool, device=device)
        closed[entry.ids] = True
        shut[members] = closed
    return logits.masked_fill(shut, -torch.inf)


class TransformersSampler:
    """Samples from an actor with one growing key-value cache: a token is encoded once, whether prompt or reply."""

    def __init__(self, actor: Actor, codec: ChatCodec, *, slots: int, max_reply_tokens: int) -> None:
        """Prepare to answer up to `slots` conversations at once, with an actor that others may use and train in between.

        Args:
            actor: the network, used without gradients and in evaluation mode.
            codec: where replies end.
            slots: most conversations at once.
            max_reply_tokens: a reply is cut here.
        """
        self._actor, self._codec = actor, codec
        self._slots, self._max_reply = slots, max_reply_tokens
        self._temperature, self._generator = 0.0, torch.Generator(actor.device)
        self._tries = CommandTries(codec.tokenizer, codec.end)
        self._record = False
        self._cache = self._empty_cache()
        self._row: dict[int, int] = {}
        self._slot: list[int] = []  # the slot of each live row
        self._length: list[int] = []  # tokens of each live row that the cache holds
        self._pending: list[list[int]] = []  # sampled or given, not yet in the cache

    @classmethod
    def start(cls, model: Path | str, cfg: RunConfig) -> TransformersSampler:
        """Load a model directory or hub id onto the device of a config.

        Raises:
            ModelError: it does not load.
        """
        codec = ChatCodec(load_tokenizer(model))
        actor = load_actor(model, cfg.model).to(pick_device(cfg)).eval()
        return cls(actor, codec, slots=cfg.rollout.slots, max_reply_tokens=cfg.rollout.max_reply_tokens)

    @property
    def codec(self) -> ChatCodec:
        """The chat template that replies are written in."""
        return self._codec

    def begin(self, temperature: float, generator: torch.Generator, *, record: bool = False) -> None:
        """Say how the coming replies are drawn, and whether to keep the network's hidden states; no conversation is running."""
        assert not self._row, "conversations are running"
        self._temperature, self._generator, self._record = temperature, generator, record
        self._cache = self._empty_cache()

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Go on with these weights, see `Actor.load_lm`: with an actor that is trained in this process there is nothing to copy."""
        assert not self._row, "conversations are running"
        self._actor.load_lm(weights)

    def close(self) -> None:
        """Forget all conversations."""
        self._row, self._slot, self._length, self._pending = {}, [], [], []
        self._cache = self._empty_cache()

    def _empty_cache(self) -> SlotCache:
        """Buffers are allocated by the first forward pass."""
        return SlotCache(self._slots, self._actor.lm.config.num_hidden_layers, keep_hidden=self._record)

    @torch.inference_mode()
    def states(self, ended: Sequence[tuple[int, Sequence[int]]]) -> list[Tensor]:
        """Hidden states of conversations that have ended, see `RecordingSampler.states`."""
        assert self._record, "begin(..., record=True) comes first"
        for slot, ids in ended:
            row = self._row[slot]
            pending = list(ids[self._length[row] :])
            assert pending[: len(self._pending[row])] == self._pending[row], "these are the tokens of another conversation"
            self._pending[row] = pending
        if rows := sorted(row for slot, _ in ended if self._pending[row := self._row[slot]]):
            self._feed(rows)
        return [self._cache.hidden(self._row[slot], len(ids)) for slot, ids in ended]

    @torch.inference_mode()
    def release(self, slot: int) -> None:
        """Free the conversation's row; the last live row moves into its place."""
        row = self._row.pop(slot)
        last = len(self._slot) - 1
        if row != last:
            self._cache.move(last, row, self._length[last])
            self._slot[row], self._length[row], self._pending[row] = self._slot[last], self._length[last], self._pending[last]
            self._row[self._slot[row]] = row
        self._slot.pop(), self._length.pop(), self._pending.pop()
        if not self._slot:  # an update that follows needs the memory
            self._cache = self._empty_cache()

    @torch.inference_mode()
    def reply(self, requests: Sequence[Request]) -> list[Sampled]:
        """Answer every live conversation once.

        Args:
            requests: one for each conversation that is to be answered; conversations not named are left as they are.
        """
        training = self._actor.training
        self._actor.eval()
        try:
            rows = [self._admit(request) for request in requests]
            replies = [
                _Writing(row, self._constraint(request), self._max_reply - len(request.written), self._codec.end, request.until)
                for row, request in zip(rows, requests, strict=True)
            ]
            for reply in replies:
                self._pending[reply.row] += reply.write_forced()
            self._decode(replies, self._prefill(rows, [request.fresh for request in requests]))
            return [reply.sampled for reply in replies]
        finally:
            self._actor.train(training)

    def _constraint(self, request: Request) -> Constraint | None:
        if request.commands is None:
            return None
        constraint: Constraint
        if request.grammar_turn is None:
            constraint = ActionConstraint(self._tries, request.commands)
        else:
            constraint = GrammarConstraint(self._tries, request.grammar_turn, request.commands)
        for token in request.written:
            constraint.push(token)
        return constraint

    def _admit(self, request: Request) -> int:
        row = self._row.get(request.slot)
        if row is None:
            row = self._row[request.slot] = len(self._slot)
            self._slot.append(request.slot)
            self._length.append(0)
            self._pending.append([])
        if request.fresh:
            self._length[row], self._pending[row] = 0, []
        self._pending[row] += [*request.ids, *request.written]
        return row

    def _prefill(self, rows: list[int], fresh: list[bool]) -> Tensor:
        """(B, V) logits after each row's pending tokens. Long openings and short observations go in passes of their own."""
        logits: list[Tensor] = [torch.empty(0)] * len(rows)
        for kind in (True, False):
            members = sorted((row, index) for index, row in enumerate(rows) if fresh[index] is kind)
            if members:
                output = self._feed([row for row, _ in members])
                for (_, index), value in zip(members, output, strict=True):
                    logits[index] = value
        return torch.stack(logits)

    def _feed(self, rows: list[int]) -> Tensor:
        """Put the pending tokens of rows (ascending) into the cache; (B, V) logits after the last of each."""
        device = self._actor.device
        pending = [self._pending[row] for row in rows]
        width = max(len(tokens) for tokens in pending)
        ids = torch.tensor([tokens + [self._codec.pad] * (width - len(tokens)) for tokens in pending], device=device)
        lengths = torch.tensor([self._length[row] for row in rows], device=device)
        # Padding lands beyond a row's end, where nothing looks before the next real token overwrites it.
        positions = lengths[:, None] + torch.arange(width, device=device)
        mask: Tensor | None = self._cache.place(torch.tensor(rows, device=device), positions)
        if not any(self._length[row] for row in rows):  # openings: causal attention is the same, and faster without a mask
            mask = None
        hidden = self._actor(ids, mask, positions, self._cache, with_values=False).hidden
        self._cache.keep(hidden)
        last = torch.tensor([len(tokens) - 1 for tokens in pending], device=device)
        for row, tokens in zip(rows, pending, strict=True):
            self._length[row] += len(tokens)
            self._pending[row] = []
        return self._actor.logits(hidden[torch.arange(len(rows), device=device), last])

    def _decode(self, replies: list[_Writing], logits: Tensor) -> None:
        """Write every reply to its end, or to where another sampler goes on. `logits` (B, V) are those of its first open token."""
        by_row = sorted(replies, key=lambda reply: reply.row)
        waiting = [number for number, reply in enumerate(replies) if not reply.finished]
        open_, logits = [replies[number] for number in waiting], logits[waiting]
        while open_:
            for reply, token, logprob, entry in zip(open_, *self._sample(logits, open_), strict=True):
                reply.write(token, logprob, entry)
                self._pending[reply.row] += [token, *reply.write_forced()]
            open_ = [reply for reply in open_ if not reply.finished]
            if not open_:
                break
            if 3 * len(open_) < len(by_row):  # few are left: gathering their rows costs less than running all
                open_ = sorted(open_, key=lambda reply: reply.row)
                logits = self._feed([reply.row for reply in open_])
                continue
            # Rows that have finished wait with what they hold, and feed its first token again and again to the same place.
            place = {id(reply): number for number, reply in enumerate(by_row)}
            still = {id(reply) for reply in open_}
            held = {reply.row: self._pending[reply.row] for reply in by_row if id(reply) not in still}
            self._pending = [pending[:1] if row in held else pending for row, pending in enumerate(self._pending)]
            fed = self._feed([reply.row for reply in by_row])
            for row, pending in held.items():
                self._length[row] -= 1
                self._pending[row] = pending
            logits = fed[[place[id(reply)] for reply in open_]]
        for reply in replies:
            if reply.cut:  # close the message all the same
                self._pending[reply.row].append(self._codec.end)

    def _sample(self, logits: Tensor, replies: list[_Writing]) -> tuple[list[int], list[float], list[AllowedTokens | None]]:
        allowed = [None if reply.constraint is None else reply.constraint.allowed for reply in replies]
        logits = mask_logits(logits / self._temperature if self._temperature > 0 else logits, allowed)
        logprobs = torch.log_softmax(logits, dim=-1)
        if self._temperature > 0:
            tokens = torch.multinomial(logprobs.exp(), 1, generator=self._generator).squeeze(1)
        else:
            tokens = logits.argmax(dim=-1)
        chosen = logprobs.gather(1, tokens[:, None]).squeeze(1)
        return tokens.tolist(), chosen.tolist(), allowed


@dataclass(slots=True)
class _Writing:
    """A reply in the making."""

    row: int
    constraint: Constraint | None
    most: int
    """Tokens it may have."""
    end: int
    """The token that ends it."""
    until: Callable[[Sequence[int]], bool] | None
    sampled: Sampled = field(default_factory=lambda: Sampled([], [], []))

    def write(self, token: int, logprob: float, entry: AllowedTokens | None) -> None:
        """Add a token."""
        self.sampled.ids.append(token)
        self.sampled.logprobs.append(logprob)
        self.sampled.allowed.append(entry)
        if self.constraint is not None:
            self.constraint.push(token)

    def write_forced(self) -> list[int]:
        """Add tokens for as long as there is only one that may come; these tokens."""
        written: list[int] = []
        while self.constraint is not None and not self.finished:
            entry = self.constraint.allowed
            if entry is None or not entry.forced:
                break
            self.write(entry.ids[0], 0.0, entry)
            written.append(entry.ids[0])
        return written

    @property
    def finished(self) -> bool:
        """Ended, cut, or left to another sampler."""
        ids = self.sampled.ids
        return bool(ids) and (ids[-1] == self.end or self.cut or (self.until is not None and self.until(ids)))

    @property
    def cut(self) -> bool:
        """At the limit without an end."""
        ids = self.sampled.ids
        return len(ids) >= self.most and ids[-1] != self.end
