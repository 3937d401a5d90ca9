"""Playing episodes: many tasks at once, one sampler, one protocol.

The collector owns the conversation: it words prompts, reads replies, steps environments and keeps the record. It neither
samples tokens (the sampler's work) nor shapes rewards (the learner's).
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from hiper.config import Constrain, Dialect, RolloutConfig, RunConfig
from hiper.errors import ConfigError
from hiper.protocol import Prompter, Reply, ReplySpans, decide, locate, parse, reply_text, token_ends
from hiper.protocol.prompts import Past
from hiper.rollout.chat import ChatCodec
from hiper.rollout.constrain import GrammarTurn
from hiper.rollout.episode import Episode, TokenSequence, TokenTurn
from hiper.rollout.remember import MOST, Remember, size_of
from hiper.rollout.samplers.types import RecordingSampler, Request, Sampled, Sampler
from hiper.rollout.trajectory import StopReason, Trajectory, Turn
from hiper.runtime.progress import Progress
from hiper.suites import suite_of
from hiper.suites.base import TextEnv
from hiper.suites.tasks import Task


@dataclass
class _Running:
    """An episode in progress."""

    entry: Task
    env: TextEnv
    max_turns: int
    observation: str
    task: str
    turns: list[Turn] = field(default_factory=list)
    sequences: list[TokenSequence] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    tokens: list[TokenTurn] = field(default_factory=list)
    keeps: list[bool] = field(default_factory=list)
    mismatches: list[bool] = field(default_factory=list)
    message: list[int] = field(default_factory=list)
    """`append`: ids of the message that shows the newest observation."""
    subgoal: str | None = None
    stop: StopReason | None = None

    @property
    def past(self) -> list[Past]:
        return [Past(turn.observation, turn.action) for turn in self.turns]


class ReplyReader:
    """Reads sampled ids once: text, parse and spans, remembered because replies repeat."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dialect: Dialect, most: int = MOST) -> None:
        """Remember nothing yet.

        Args:
            tokenizer: of the model that writes.
            dialect: of its replies.
            most: bytes that may be remembered.
        """
        self._tokenizer, self._dialect = tokenizer, dialect
        self._known: Remember[tuple[int, ...], tuple[Reply, ReplySpans]] = Remember(_reply_size, most)

    @property
    def bytes(self) -> int:
        """What is remembered, roughly."""
        return self._known.bytes

    def read(self, ids: Sequence[int]) -> tuple[Reply, ReplySpans]:
        """The parsed reply and its token spans."""
        return self._known(tuple(ids), self._read)

    def _read(self, ids: tuple[int, ...]) -> tuple[Reply, ReplySpans]:
        reply = parse(reply_text(self._tokenizer, ids), self._dialect)
        return reply, locate(reply, token_ends(self._tokenizer, ids))


def _reply_size(ids: tuple[int, ...], read: tuple[Reply, ReplySpans]) -> int:
    return size_of(read[0].text, len(ids), objects=12) + 2 * len(read[0].text)


def recording(sampler: Sampler) -> RecordingSampler:
    """The sampler, as one that keeps hidden states.

    Raises:
        ConfigError: it does not.
    """
    if not isinstance(sampler, RecordingSampler):
        raise ConfigError(f"trainer.recompute_logprobs=false: {type(sampler).__name__} keeps no hidden states. Set it to true.")
    return sampler


class Collector:
    """Plays tasks with a sampler, any number of times; what it has learned of replies and commands is kept from one to the next."""

    def __init__(self, sampler: Sampler, codec: ChatCodec, cfg: RunConfig) -> None:
        """Prepare to play.

        Args:
            sampler: writes the replies.
            codec: the sampler's chat template.
            cfg: environment, protocol and rollout settings.
        """
        self._sampler, self._codec = sampler, codec
        self._max_turns = cfg.env.max_turns
        self._rollout: RolloutConfig = cfg.rollout
        self._dialect = cfg.protocol.dialect
        self._prompter = Prompter(cfg.protocol, suite_of(cfg).scene)
        self._reader = ReplyReader(codec.tokenizer, cfg.protocol.dialect)

    def play(
        self,
        tasks: Iterable[tuple[Task, TextEnv]],
        slots: int,
        total: int | None = None,
        progress: Progress | None = None,
        max_turns: int | None = None,
        record: bool = False,
    ) -> list[Episode]:
        """Play every task once, up to `slots` at a time.

        Args:
            tasks: entries with their environments, loaded as they are drawn.
            slots: conversations at once.
            total: number of tasks, for `progress`.
            progress: called with (finished, total).
            max_turns: truncate episodes here; None: `env.max_turns`.
            record: take each conversation's hidden states from the sampler, which was begun with `record=True`; in the `append` context.

        Returns:
            Episodes in the order of `tasks`.

        Raises:
            ConfigError: `record`, and the sampler keeps no states.
        """
        keeper = recording(self._sampler) if record else None
        # Play makes many small objects, and each full collection would walk all that exists besides (modules, tasks, a tokenizer).
        gc.freeze()
        try:
            return self._play(tasks, slots, total, progress, max_turns or self._max_turns, keeper)
        finally:
            gc.unfreeze()

    def _play(
        self,
        tasks: Iterable[tuple[Task, TextEnv]],
        slots: int,
        total: int | None,
        progress: Progress | None,
        max_turns: int,
        keeper: RecordingSampler | None,
    ) -> list[Episode]:
        waiting: Iterator[tuple[int, tuple[Task, TextEnv]]] = iter(enumerate(tasks))
        running: dict[int, tuple[int, _Running]] = {}
        free = list(range(slots))[::-1]
        done: dict[int, Episode] = {}
        while True:
            while free:
                drawn = next(waiting, None)
                if drawn is None:
                    break
                order, (entry, env) = drawn
                observation = env.reset()
                running[free.pop()] = (order, _Running(entry, env, max_turns, observation, env.task))
            if not running:
                return [done[order] for order in sorted(done)]
            requests = [self._request(slot, run) for slot, (_, run) in running.items()]
            for request, sampled in zip(requests, self._sampler.reply(requests), strict=True):
                self._advance(running[request.slot][1], request, sampled)
            ended = {slot: self._finish(run) for slot, (_, run) in running.items() if run.stop is not None}
            if keeper is not None and ended:
                _take_states(keeper, ended)
            for slot, episode in ended.items():
                done[running.pop(slot)[0]] = episode
                self._sampler.release(slot)
                free.append(slot)
                if progress is not None:
                    progress(len(done), total if total is not None else len(done) + len(running))

    def _request(self, slot: int, run: _Running) -> Request:
        constrain = self._rollout.constrain
        commands = None if constrain is Constrain.free else run.env.admissible_commands
        grammar_turn = GrammarTurn(self._dialect, run.subgoal) if constrain is Constrain.grammar else None
        if self._prompter.appends:
            fresh = not run.turns
            ids = self._codec.first(self._prompter.first(run.observation)) if fresh else run.message
            run.ids += ids
            return Request(slot, ids, fresh, commands, grammar_turn)
        prompt = self._prompter.window(run.task, run.past, run.observation, run.subgoal, run.env.admissible_commands)
        return Request(slot, self._codec.first(prompt), True, commands, grammar_turn)

    def _advance(self, run: _Running, request: Request, sampled: Sampled) -> None:
        reply, spans = self._reader.read(sampled.ids)
        decision = decide(reply, run.subgoal)
        tokens = TokenTurn(len(run.turns), 0, spans.blocks, spans.low, sampled.logprobs, sampled.allowed)
        if self._prompter.appends:
            tokens.start = len(run.ids)
            run.ids += sampled.ids
            if sampled.ids[-1] != self._codec.end:
                run.ids.append(self._codec.end)
            run.tokens.append(tokens)
        else:
            tokens.start = len(request.ids)
            run.sequences.append(TokenSequence(request.ids + sampled.ids, [tokens]))
        # Spellings the environment treats alike are looked up as it reads them.
        admissible = decision.command in run.env.admissible_commands
        result = run.env.step(decision.command)
        run.turns.append(
            Turn(
                observation=run.observation,
                reply=reply.text,
                switch=decision.start,
                subgoal=decision.subgoal,
                action=decision.command,
                faults=[fault.value for fault in reply.faults],
                admissible=admissible,
                reward=result.reward,
                shaped=result.reward,
                tokens=len(sampled.ids),
            )
        )
        run.keeps.append(decision.keep)
        run.mismatches.append(decision.mismatch)
        run.subgoal = decision.subgoal
        run.observation = result.observation
        if result.terminated:
            run.stop = StopReason.terminated
            return
        if self._prompter.appends:
            run.message = self._codec.later(self._prompter.later(run.observation, run.task, run.subgoal))
        if len(run.turns) >= run.max_turns:
            run.stop = StopReason.turn_limit
        elif self._prompter.appends and len(run.ids) + len(run.message) + self._rollout.max_reply_tokens + 1 > self._rollout.max_tokens:
            run.stop = StopReason.token_limit

    def _finish(self, run: _Running) -> Episode:
        assert run.stop is not None
        if run.stop is not StopReason.terminated:
            # What follows a truncation has a value: keep the prompt it would have been read from.
            if self._prompter.appends:
                run.ids += run.message
                run.sequences = [TokenSequence(run.ids, run.tokens, final=len(run.ids) - 1)]
            else:
                prompt = self._prompter.window(run.task, run.past, run.observation, run.subgoal, run.env.admissible_commands)
                ids = self._codec.first(prompt)
                run.sequences.append(TokenSequence(ids, [], final=len(ids) - 1))
        elif self._prompter.appends:
            run.sequences = [TokenSequence(run.ids, run.tokens)]
        trajectory = Trajectory(
            task_id=run.entry.path,
            split=run.entry.split,
            task_type=run.entry.task_type,
            task=run.task,
            won=run.env.won,
            score=run.env.score,
            stop=run.stop,
            turns=run.turns,
            final_observation=run.observation,
            digest=run.entry.digest,
        )
        return Episode(trajectory, run.sequences, run.keeps, run.mismatches)


def _take_states(sampler: RecordingSampler, ended: dict[int, Episode]) -> None:
    """Hidden states of episodes that have ended, by slot, each in one sequence."""
    sequences = {slot: episode.sequences[-1] for slot, episode in ended.items()}
    found = sampler.states([(slot, sequence.ids) for slot, sequence in sequences.items()])
    for sequence, hidden in zip(sequences.values(), found, strict=True):
        sequence.hidden = hidden
