"""Rules of the collector.

1. Every game is played once, up to `slots` at a time, and comes back in order; a finished game's slot goes to the next.
2. `terminated`, `turn_limit` and `token_limit` are told apart; after a truncation the last observation is kept, as text and as the prompt
   whose last token's value is read; after the task's end it is not.
3. A faulty reply reaches the environment as no command, and the subgoal stays; switches, KEEPs and mismatches are recorded as decided.
4. `append` makes one sequence an episode, made of exactly the tokens the policy read and wrote; `window` makes one a turn.
5. A reply cut at its limit is closed in the conversation, but the closing token is not the model's.
6. Commands are handed to the policy only where `rollout.constrain` asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hiper.config import Constrain, Context, Dialect, EnvConfig, ProtocolConfig, RolloutConfig, RunConfig, Style
from hiper.protocol import BlockId, Switch, describe, parse, render
from hiper.rollout.chat import ChatCodec
from hiper.rollout.collect import Collector
from hiper.rollout.episode import Episode
from hiper.rollout.player import TaskPlayer
from hiper.rollout.trajectory import StopReason
from hiper.sft.demos import read_demos
from hiper.sft.encode import encode
from hiper.suites import make_env
from hiper.suites.alfworld import Game
from hiper.suites.alfworld.expert import Expert
from hiper.suites.alfworld.prior import LocationPrior
from hiper.suites.base import StepResult, TextEnv
from hiper.suites.expert import Demonstration, demonstrate
from hiper.suites.tasks import Task, TaskIndex

LOOK = render(Switch.SWITCH, "find mug", "look")


def config(max_turns: int = 50, max_tokens: int = 4096, constrain: Constrain = Constrain.free, **protocol: Any) -> RunConfig:
    return RunConfig(
        threads=1,
        device="cpu",
        env=EnvConfig(max_turns=max_turns),
        rollout=RolloutConfig(max_tokens=max_tokens, max_reply_tokens=30, constrain=constrain),
        protocol=ProtocolConfig(**{"style": Style.terse, **protocol}),
    )


class Recorded:
    """A real game that remembers what it was told."""

    def __init__(self, game: TextEnv) -> None:
        self._game = game
        self.told: list[str] = []
        self.first = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._game, name)

    def reset(self) -> str:
        self.first = self._game.reset()
        return self.first

    def step(self, command: str) -> StepResult:
        self.told.append(command)
        return self._game.step(command)


@pytest.fixture(scope="module")
def experts_play(task_index: TaskIndex) -> dict[str, Demonstration]:
    expert = Expert(LocationPrior.learn(task_index))
    return {entry.path: demonstrate(Game.load(task_index.resolve(entry)), expert, 50) for entry in task_index.split("train")}


@pytest.fixture
def games(task_index: TaskIndex) -> Iterator[list[tuple[Task, Recorded]]]:
    yield [(entry, Recorded(make_env(RunConfig(), task_index.resolve(entry)))) for entry in task_index.split("train")]


@pytest.fixture
def recite(codec: ChatCodec, experts_play: dict[str, Demonstration]) -> Callable[[str, int], str]:
    """The expert's replies, looked up by the conversation's first prompt."""
    plays = {}
    for demo in experts_play.values():
        opening = codec.tokenizer.decode(codec.first(demo.turns[0][0].replace("-= Welcome to TextWorld, ALFRED! =-", "").strip()))
        for special in ("<|user|> ", " <|assistant|>"):
            opening = opening.replace(special, "")
        assert opening not in plays, "openings must tell the games apart"
        plays[opening] = [render(Switch.SWITCH if s.switch else Switch.KEEP, s.subgoal, s.action) for _, s in demo.turns]
    return lambda opening, turn: plays[opening][turn]


def test_every_game_is_played_once_and_comes_back_in_order(
    codec: ChatCodec, scripted: Any, games: list, experts_play: dict[str, Demonstration], recite: Callable
) -> None:
    policy = scripted(codec, recite)
    progress: list[tuple[int, int]] = []
    episodes = Collector(policy, codec, config()).play(iter(games), 5, len(games), lambda done, total: progress.append((done, total)))
    assert [episode.trajectory.task_id for episode in episodes] == [entry.path for entry, _ in games]
    assert policy.most == 5
    assert len(policy.released) == 12
    assert set(policy.released) == set(range(5))
    assert progress == [(n, 12) for n in range(1, 13)]
    lengths = [len(episode.trajectory.turns) for episode in episodes]
    assert len(set(lengths)) > 3, "games of one length would come back in order anyway"
    for episode, (entry, env) in zip(episodes, games, strict=True):
        demo, trajectory = experts_play[entry.path], episode.trajectory
        assert (trajectory.stop, trajectory.won, episode.terminated) == (StopReason.terminated, True, True)
        assert (trajectory.split, trajectory.task_type, trajectory.task) == (entry.split, entry.task_type, demo.task)
        assert trajectory.final_observation == demo.final_observation
        assert env.told == [step.action for _, step in demo.turns]
        for turn, (observation, step) in zip(trajectory.turns, demo.turns, strict=True):
            subgoal = re.sub(r"\b(a|an|the) ", "", step.subgoal)  # the word tokenizer leaves articles out
            assert (turn.observation, turn.subgoal, turn.action, turn.switch) == (observation, subgoal, step.action, step.switch)
            assert turn.admissible
            assert not turn.faults
        assert [turn.reward for turn in trajectory.turns] == [0.0] * (len(trajectory.turns) - 1) + [1.0]
        assert episode.keeps == [not step.switch for _, step in demo.turns]
        assert not any(episode.mismatches)
        assert trajectory.segments == sum(step.switch for _, step in demo.turns)


def test_fewer_games_than_slots_and_none_at_all(codec: ChatCodec, scripted: Any, games: list, recite: Callable) -> None:
    policy = scripted(codec, recite)
    assert len(Collector(policy, codec, config()).play(games[:2], 7)) == 2
    assert policy.most == 2
    assert Collector(policy, codec, config()).play([], 7) == []


def test_games_are_loaded_as_they_are_drawn(codec: ChatCodec, scripted: Any, games: list, recite: Callable) -> None:
    policy = scripted(codec, recite)

    def drawn() -> Iterator[tuple[Task, Recorded]]:
        for number, game in enumerate(games[:6]):
            assert number <= 2 + len(policy.released), "no game is loaded before there is a slot for it"
            yield game

    assert len(Collector(policy, codec, config()).play(drawn(), 3)) == 6


def check_tokens(episode: Episode, codec: ChatCodec) -> None:
    """Each turn's tokens are its reply, block by block."""
    turns = [(sequence, tokens) for sequence in episode.sequences for tokens in sequence.turns]
    assert [tokens.turn for _, tokens in turns] == list(range(len(episode.trajectory.turns)))
    for turn, (sequence, tokens) in zip(episode.trajectory.turns, turns, strict=True):
        ids = sequence.ids[tokens.start : tokens.start + turn.tokens]
        assert len(tokens.blocks) == len(tokens.logprobs) == len(tokens.allowed) == turn.tokens
        assert tokens.logprobs == [-0.5 * (i + 1) for i in range(turn.tokens)]
        assert codec.tokenizer.decode(ids, skip_special_tokens=True) == turn.reply
        assert sequence.ids[tokens.start - 1] == codec.tokenizer.convert_tokens_to_ids("<|assistant|>")
        if not turn.faults:
            action = [token for token, block in zip(ids, tokens.blocks, strict=True) if block == BlockId.action]
            assert codec.tokenizer.decode(action) == f"<action> {turn.action} </action>"


def test_an_episode_is_one_sequence_of_what_was_read_and_written(
    codec: ChatCodec, scripted: Any, games: list, recite: Callable, experts_play: dict[str, Demonstration]
) -> None:
    policy = scripted(codec, recite)
    episodes = Collector(policy, codec, config()).play(games[:1], 1)
    check_tokens(episodes[0], codec)
    (sequence,) = episodes[0].sequences
    assert sequence.final is None
    assert sequence.ids == policy.held[0]
    assert [request.fresh for request in policy.asked] == [True] + [False] * (len(policy.asked) - 1)


def test_demonstrations_are_encoded_as_they_would_be_played(
    codec: ChatCodec, scripted: Any, games: list, recite: Callable, demos: Path
) -> None:
    """The warm start trains on the very token sequences that rollouts produce."""

    def words(text: str) -> str:
        return codec.tokenizer.decode(codec.tokenizer.encode(text))

    played = {}
    for episode in Collector(scripted(codec, recite), codec, config()).play(games, 4):
        played[tuple(text for turn in episode.trajectory.turns for text in (words(describe(turn.observation)), turn.reply))] = episode
    compared = 0
    for conversation in read_demos(demos):
        episode = played.get(tuple(words(message["content"]) for message in conversation.messages))
        if episode is None:  # a renumbered one
            continue
        (example,) = encode([conversation], codec, 4096)
        (sequence,) = episode.sequences
        assert example["input_ids"] == sequence.ids
        theirs = {i for tokens in sequence.turns for i in range(tokens.start, tokens.start + len(tokens.blocks))}
        assert {i for i, label in enumerate(example["labels"]) if label >= 0} == theirs
        compared += 1
    assert compared > 8


@pytest.mark.parametrize("context", Context)
def test_turns_run_out(codec: ChatCodec, scripted: Any, games: list, recite: Callable, context: Context) -> None:
    script = recite if context is Context.append else lambda opening, turn: LOOK
    episodes = Collector(scripted(codec, script), codec, config(max_turns=2, context=context)).play(games[:4], 4)
    for episode, (_, env) in zip(episodes, games, strict=False):
        trajectory = episode.trajectory
        assert (trajectory.stop, trajectory.won, episode.terminated) == (StopReason.turn_limit, False, False)
        assert len(trajectory.turns) == len(env.told) == 2
        check_tokens(episode, codec)
        last = episode.sequences[-1]
        assert last.final == len(last.ids) - 1
        assert last.ids[last.final] == codec.tokenizer.convert_tokens_to_ids("<|assistant|>")
        shown = codec.tokenizer.decode(codec.tokenizer.encode(trajectory.final_observation))
        prompt = codec.tokenizer.decode(last.ids)
        if context is Context.append:
            assert prompt.endswith(f"<|end|> <|user|> {shown} <|assistant|>")
        else:
            assert f" {shown} " in prompt


def test_a_game_won_on_its_last_turn_is_terminated(
    codec: ChatCodec, scripted: Any, games: list, recite: Callable, experts_play: dict[str, Demonstration]
) -> None:
    entry, env = games[0]
    needed = len(experts_play[entry.path].turns)
    (episode,) = Collector(scripted(codec, recite), codec, config(max_turns=needed)).play([(entry, env)], 1)
    assert episode.trajectory.stop is StopReason.terminated
    (short,) = Collector(scripted(codec, recite), codec, config(max_turns=needed - 1)).play([(entry, env)], 1)
    assert short.trajectory.stop is StopReason.turn_limit


@pytest.mark.parametrize("limit", [150, 200, 300])
def test_a_conversation_never_outgrows_its_tokens(codec: ChatCodec, scripted: Any, games: list, limit: int) -> None:
    cfg = config(max_tokens=limit)
    episodes = Collector(scripted(codec, lambda opening, turn: LOOK), codec, cfg).play(games[:6], 6)
    for episode in episodes:
        (sequence,) = episode.sequences
        assert episode.trajectory.stop is StopReason.token_limit
        assert len(sequence.ids) <= limit or len(episode.trajectory.turns) == 1
        room = cfg.rollout.max_reply_tokens + 1
        assert len(sequence.ids) + room > limit, "it stops only when another turn might not fit"
        assert sequence.final == len(sequence.ids) - 1
        check_tokens(episode, codec)


def test_a_faulty_reply_is_no_command(codec: ChatCodec, scripted: Any, games: list) -> None:
    replies = [
        LOOK,
        "look",
        "<switch>look</switch> <subgoal>find mug</subgoal> <action>look</action>",
        LOOK.replace("look", "take shelf"),
    ]
    entry, env = games[0]
    (episode,) = Collector(scripted(codec, lambda opening, turn: replies[turn]), codec, config(max_turns=4)).play([(entry, env)], 1)
    turns = episode.trajectory.turns
    assert env.told == ["look", "", "", "take shelf"]
    assert [turn.action for turn in turns] == env.told
    assert [turn.admissible for turn in turns] == [True, False, False, False]
    assert [turn.faults for turn in turns] == [[], ["missing_switch", "missing_subgoal", "missing_action"], ["unknown_switch"], []]
    assert [turn.subgoal for turn in turns] == ["find mug"] * 4
    assert turns[2].observation == "Nothing happens.", "a faulty reply costs a turn"
    assert turns[1].reply == "look"
    (sequence,) = episode.sequences
    assert set(sequence.turns[1].blocks) == {BlockId.action}, "an unreadable reply still gets credit"
    assert sequence.turns[2].blocks.count(BlockId.none) == 1, "only the end token is outside the blocks"


def reply(switch: str, subgoal: str | None) -> str:
    return f"<switch>{switch}</switch> {'' if subgoal is None else f'<subgoal>{subgoal}</subgoal>'} <action>look</action>"


@pytest.mark.parametrize(
    ("dialect", "replies", "switches", "subgoals", "keeps", "mismatches", "commands"),
    [
        (
            Dialect.full,
            [
                ("KEEP", "find mug"),
                ("KEEP", "find mug"),
                ("KEEP", "heat mug"),
                ("SWITCH", "heat mug"),
                ("SWITCH", None),
                ("SWITCH", "find mug"),
            ],
            [True, False, False, True, False, True],
            ["find mug", "find mug", "find mug", "heat mug", "heat mug", "find mug"],
            [False, True, True, False, False, False],
            [False, False, True, False, False, False],
            ["look", "look", "look", "look", "", "look"],
        ),
        (
            Dialect.compact,
            [
                ("SWITCH", "find mug"),
                ("KEEP", None),
                ("KEEP", "heat mug"),
                ("SWITCH", "heat mug"),
                ("KEEP", None),
                ("SWITCH", None),
            ],
            [True, False, False, True, False, False],
            ["find mug", "find mug", "find mug", "heat mug", "heat mug", "heat mug"],
            [False, True, True, False, True, False],
            [False, False, True, False, False, False],
            ["look", "look", "look", "look", "look", ""],
        ),
    ],
    ids=["full", "compact"],
)
def test_decisions_are_recorded(
    codec: ChatCodec,
    scripted: Any,
    games: list,
    dialect: Dialect,
    replies: list,
    switches: list[bool],
    subgoals: list[str],
    keeps: list[bool],
    mismatches: list[bool],
    commands: list[str],
) -> None:
    entry, env = games[0]
    policy = scripted(codec, lambda opening, turn: reply(*replies[turn]))
    (episode,) = Collector(policy, codec, config(max_turns=6, dialect=dialect)).play([(entry, env)], 1)
    turns = episode.trajectory.turns
    assert [turn.switch for turn in turns] == switches
    assert [turn.subgoal for turn in turns] == subgoals
    assert (episode.keeps, episode.mismatches) == (keeps, mismatches)
    assert env.told == commands


def test_the_window_context_is_a_sequence_a_turn(codec: ChatCodec, scripted: Any, games: list) -> None:
    entry, env = games[0]
    replies = [LOOK, reply("KEEP", "find mug"), reply("SWITCH", "heat mug"), LOOK]
    policy = scripted(codec, lambda opening, turn: replies[turn])
    cfg = config(max_turns=4, context=Context.window, history=2)
    (episode,) = Collector(policy, codec, cfg).play([(entry, env)], 1)
    assert len(episode.sequences) == 5
    check_tokens(episode, codec)
    prompts = [codec.tokenizer.decode(request.ids, skip_special_tokens=True) for request in policy.asked]
    for number, (sequence, request) in enumerate(zip(episode.sequences, policy.asked, strict=False)):
        assert request.fresh
        assert sequence.ids[: sequence.turns[0].start] == request.ids
        assert len(sequence.turns) == 1
        assert sequence.final is None
        assert number or sequence.turns[0].start == len(request.ids)
    last = episode.sequences[-1]
    assert (last.turns, last.final) == ([], len(last.ids) - 1)
    assert "find mug" not in prompts[0]
    assert [prompt.count("find mug") for prompt in prompts[1:3]] == [1, 1]
    assert prompts[3].count("heat mug") == 1


def test_a_cut_reply_is_closed_in_the_conversation(codec: ChatCodec, scripted: Any, games: list) -> None:
    entry, env = games[0]
    policy = scripted(codec, lambda opening, turn: "<switch>SWITCH</switch> <subgoal>find", closed=False)
    (episode,) = Collector(policy, codec, config(max_turns=2)).play([(entry, env)], 1)
    (sequence,) = episode.sequences
    for tokens in sequence.turns:
        after = tokens.start + len(tokens.blocks)
        assert codec.end not in sequence.ids[tokens.start : after]
        assert sequence.ids[after] == codec.end
    assert sequence.ids[: len(policy.held[0])] == policy.held[0], "the policy's context is the learner's"
    assert env.told == ["", ""]


def test_commands_are_handed_over_only_when_asked_for(codec: ChatCodec, scripted: Any, games: list) -> None:
    policy = scripted(codec, lambda opening, turn: LOOK)
    Collector(policy, codec, config(max_turns=2)).play(games[:1], 1)
    assert [request.commands for request in policy.asked] == [None, None]
    policy = scripted(codec, lambda opening, turn: LOOK)
    Collector(policy, codec, config(max_turns=1, constrain=Constrain.admissible)).play(games[:1], 1)
    assert "look" in policy.asked[0].commands
    assert set(policy.asked[0].commands) <= {*games[0][1].admissible_commands}


def test_a_model_plays_real_games(speaker: Path, task_index: TaskIndex) -> None:
    entries = task_index.split("valid_seen")[:4]
    cfg = config(max_turns=4, constrain=Constrain.admissible)
    cfg.rollout.slots = 3

    player = TaskPlayer.start(cfg, speaker, task_index.root)

    def played(temperature: float, seed: int) -> list[str]:
        return [episode.trajectory.to_json() for episode in player.play(entries, temperature, torch.Generator().manual_seed(seed))]

    greedy = played(0.0, 0)
    assert greedy == played(0.0, 1)
    assert played(1.0, 0) == played(1.0, 0) != played(1.0, 1)
    assert played(0.0, 0) == greedy, "one player serves all batches, and none leaves a trace in the next"
    trajectories = [episode.trajectory for episode in player.play(entries, 1.0, torch.Generator().manual_seed(0))]
    assert [t.task_id for t in trajectories] == [entry.path for entry in entries]
    turns = [turn for t in trajectories for turn in t.turns]
    assert all(turn.admissible == (not turn.faults) for turn in turns), "limited replies are admissible where they are readable"
    assert sum(turn.admissible for turn in turns) > len(turns) / 2
    assert all(parse(turn.reply).action == turn.action for turn in turns if not turn.faults)
