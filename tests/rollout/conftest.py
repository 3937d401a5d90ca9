"""Conversations with a policy, and a policy that reads from a script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from hiper.config import Critic, ModelConfig
from hiper.model.actor import Actor, load_actor
from hiper.rollout.chat import ChatCodec
from hiper.rollout.constrain import GrammarTurn
from hiper.rollout.episode import Episode, TokenSequence, TokenTurn
from hiper.rollout.samplers.types import Request, Sampled, Sampler
from hiper.rollout.trajectory import StopReason, Trajectory, Turn


@pytest.fixture(scope="session")
def codec(words: PreTrainedTokenizerBase) -> ChatCodec:
    return ChatCodec(words)


@pytest.fixture(scope="session")
def actor(speaker: Path) -> Actor:
    """The speaking model; tests read it and change nothing."""
    return load_actor(speaker, ModelConfig(critic=Critic.shared)).eval()


@dataclass
class Talk:
    """One conversation as its partner saw it: everything said, and where each reply stands."""

    ids: list[int] = field(default_factory=list)
    replies: list[tuple[int, Sampled]] = field(default_factory=list)

    def episode(self) -> Episode:
        """The conversation as the learner takes it; blocks and rewards are of no account."""
        turns = [TokenTurn(n, start, [3] * len(s.ids), 0, s.logprobs, s.allowed) for n, (start, s) in enumerate(self.replies)]
        record = [Turn("", "", n == 0, "", "", [], True, 0.0, 0.0, len(s.ids)) for n, (_, s) in enumerate(self.replies)]
        trajectory = Trajectory("game", "train", "type", "task", False, StopReason.turn_limit, record, "")
        return Episode(trajectory, [TokenSequence(self.ids, turns)], [False] * len(turns), [False] * len(turns))


Converse = Callable[..., list[Talk]]


@pytest.fixture
def converse() -> Converse:
    """Leads several conversations with a policy, as many at once as there are slots."""

    def lead(
        policy: Sampler,
        codec: ChatCodec,
        plans: Sequence[Sequence[str]],
        slots: int,
        commands: Sequence[str] | None = None,
        pause: int = 0,
        grammar_turn: GrammarTurn | None = None,
    ) -> list[Talk]:
        """`plans[i]` is what conversation i is told, turn by turn; every `pause`-th round leaves one conversation waiting."""
        talks = [Talk() for _ in plans]
        waiting: Iterator[int] = iter(range(len(plans)))
        running: dict[int, int] = {}
        rounds = 0
        while True:
            for slot in range(slots):
                if slot not in running and (drawn := next(waiting, None)) is not None:
                    running[slot] = drawn
            if not running:
                return talks
            rounds += 1
            asked = list(running)
            if pause and rounds % pause == 0 and len(asked) > 1:
                asked.pop(rounds // pause % len(asked))
            requests = []
            for slot in asked:
                talk, plan = talks[running[slot]], plans[running[slot]]
                said = plan[len(talk.replies)]
                ids = codec.later(said) if talk.replies else codec.first(said)
                requests.append(Request(slot, ids, not talk.replies, commands, grammar_turn))
                talk.ids += ids
            for request, sampled in zip(requests, policy.reply(requests), strict=True):
                number = running[request.slot]
                talk = talks[number]
                talk.replies.append((len(talk.ids), sampled))
                talk.ids += sampled.ids
                if sampled.ids[-1] != codec.end:
                    talk.ids.append(codec.end)
                if len(talk.replies) == len(plans[number]):
                    policy.release(request.slot)
                    del running[request.slot]

    return lead


class ScriptedPolicy:
    """A policy that reads its replies from a script, and keeps each slot's context the way a real one does."""

    def __init__(self, codec: ChatCodec, script: Callable[[str, int], str], closed: bool = True) -> None:
        """`script(opening, turn)` is the reply; `opening` is the first prompt. Not `closed`: cut off before the end."""
        self._codec, self._script, self._closed = codec, script, closed
        self._opening: dict[int, str] = {}
        self._turn: Counter[int] = Counter()
        self.held: dict[int, list[int]] = {}
        self.asked: list[Request] = []
        self.most = 0
        self.released: list[int] = []

    def reply(self, requests: Sequence[Request]) -> list[Sampled]:
        self.most = max(self.most, len(requests))
        self.asked += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Sampled:
        slot, tokenizer = request.slot, self._codec.tokenizer
        if slot not in self._opening:
            assert request.fresh, "a slot's first request starts a conversation"
            self._opening[slot] = tokenizer.decode(request.ids, skip_special_tokens=True)
        held = [] if request.fresh else self.held[slot]
        text = self._script(self._opening[slot], self._turn[slot])
        self._turn[slot] += 1
        ids = [*tokenizer.encode(text, add_special_tokens=False), *([self._codec.end] if self._closed else [])]
        self.held[slot] = held + request.ids + ids + ([] if self._closed else [self._codec.end])
        return Sampled(ids, [-0.5 * (i + 1) for i in range(len(ids))], [None] * len(ids))

    def release(self, slot: int) -> None:
        del self._opening[slot], self._turn[slot]
        self.released.append(slot)


@pytest.fixture
def scripted() -> type[ScriptedPolicy]:
    return ScriptedPolicy
