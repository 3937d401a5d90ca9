"""Rules of demonstrations.

1. A line is a conversation: user and assistant in turn, every reply valid under the protocol in force; `append` writes a line an episode,
   `window` a line a turn.
2. Only training games are played; a game that comes round again has other numbers; every episode written is won, but for lapses.
3. A seed fixes the file, byte for byte.
4. A file that is no demonstration file is refused, with its line.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from hiper.config import Context, DemosConfig, Dialect, EnvConfig, ProtocolConfig, RunConfig, Style
from hiper.errors import DataError
from hiper.protocol import Switch, parse
from hiper.sft.demos import Conversation, read_demos, write_demos
from hiper.suites.alfworld import Game
from hiper.suites.alfworld.games import index_games
from hiper.suites.alfworld.settings import ALFWorldConfig
from hiper.suites.expert import demonstrate
from hiper.suites.tasks import Task, TaskIndex


def config(count: int = 24, seed: int = 0, turns: int = 50, renumber: bool = True, **protocol: object) -> RunConfig:
    settings = ProtocolConfig(**({"style": Style.terse} | protocol))  # type: ignore[arg-type]
    demos, own = DemosConfig(count=count, seed=seed), ALFWorldConfig(renumber=renumber)
    return RunConfig(demos=demos, protocol=settings, env=EnvConfig(max_turns=turns), suite=own)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def replies(messages: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in messages[1::2]]


def entry(index: TaskIndex, path: str) -> Task:
    return next(entry for entry in index.entries if entry.path == path)


def test_lines_are_conversations(demos: Path, task_index: TaskIndex) -> None:
    found = lines(demos)
    assert len(found) == 24
    for line in found:
        assert line["task_type"] == entry(task_index, line["task_id"]).task_type
        roles = [message["role"] for message in line["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        parsed = [parse(reply) for reply in replies(line["messages"])]
        assert all(reply.valid for reply in parsed)
        assert parsed[0].switch is Switch.SWITCH
        for before, after in zip(parsed, parsed[1:], strict=False):
            assert (after.subgoal == before.subgoal) == (after.switch is Switch.KEEP)
        assert "Your task is to:" in line["messages"][0]["content"]
        assert not any("Welcome to TextWorld" in message["content"] for message in line["messages"])
    assert read_demos(demos) == [Conversation([{**m, "weight": 1} for m in line["messages"]], line["admissible"]) for line in found]


def test_only_training_games_are_played(demos: Path, task_index: TaskIndex) -> None:
    assert {line["task_id"] for line in lines(demos)} == {entry.path for entry in task_index.split("train")}


def test_a_game_that_comes_again_has_other_numbers(demos: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    rounds: dict[str, list[list[dict[str, str]]]] = {}
    for line in lines(demos):
        rounds.setdefault(line["task_id"], []).append(line["messages"])
    assert all(len(times) == 2 for times in rounds.values())
    tasks = [[messages[0]["content"].partition("Your task is to:")[2] for messages in times] for times in rounds.values()]
    assert all(first == second for first, second in tasks)
    assert any(first != second for first, second in rounds.values()), "small scenes have few numbers to change, but some"
    summary = write_demos(task_index, config(renumber=False), tmp_path / "plain.jsonl")
    again: dict[str, list[dict[str, str]]] = {}
    for line in lines(tmp_path / "plain.jsonl"):
        assert again.setdefault(line["task_id"], line["messages"]) == line["messages"]
    assert summary.tasks == len(again) == 12


@pytest.mark.parametrize("dialect", Dialect)
def test_replaying_the_actions_wins(task_index: TaskIndex, tmp_path: Path, dialect: Dialect) -> None:
    summary = write_demos(task_index, config(12, dialect=dialect), tmp_path / "demos.jsonl")
    switches = later = 0
    for line in lines(tmp_path / "demos.jsonl"):
        game = Game.load(task_index.resolve(entry(task_index, line["task_id"])))
        observation = game.reset()
        for asked, answered in zip(line["messages"][::2], line["messages"][1::2], strict=True):
            assert asked["content"] in observation
            reply = parse(answered["content"], dialect)
            assert reply.action in game.admissible_commands
            observation = game.step(reply.action).observation
            assert (reply.subgoal == "") == (dialect is Dialect.compact and reply.switch is Switch.KEEP)
            switches += reply.switch is Switch.SWITCH
            later += 1
        assert game.won
    assert (summary.demonstrations, summary.tasks, summary.failed) == (12, 12, 0)
    assert summary.mean_turns == later / 12
    assert summary.switch_rate == pytest.approx((switches - 12) / (later - 12))


def test_renumbered_games_are_won_with_their_own_names(official_games: Path) -> None:
    """What `alfworld.renumber` rests on: a renumbered game keeps its task, has other numbers, and the expert's play of it wins it again."""
    from hiper.suites.alfworld.expert import Expert
    from hiper.suites.alfworld.prior import LocationPrior

    index = index_games(official_games / "2.1.1", ["valid_seen"], limit=6)
    expert = Expert(LocationPrior.learn(index, "valid_seen"))
    different = 0
    for game_entry in index.entries:
        path = index.resolve(game_entry)
        plain, renumbered = Game.load(path), Game.load(path, random.Random(1))
        demo = demonstrate(renumbered, expert, 50)
        assert demo.won
        assert renumbered.task == plain.task
        renumbered.reset()
        for _, step in demo.turns:
            result = renumbered.step(step.action)
        assert result.terminated
        assert renumbered.won
        different += demo.turns != demonstrate(plain, expert, 50).turns
    assert different > 3


def test_a_seed_fixes_the_file(task_index: TaskIndex, tmp_path: Path) -> None:
    def written(name: str, seed: int) -> bytes:
        write_demos(task_index, config(15, seed), tmp_path / name)
        return (tmp_path / name).read_bytes()

    assert written("a", 0) == written("b", 0)
    assert written("a", 0) != written("c", 1)
    assert not list(tmp_path.glob("*.tmp"))


def test_the_window_context_writes_a_line_a_turn(task_index: TaskIndex, tmp_path: Path) -> None:
    summary = write_demos(task_index, config(3, context=Context.window, history=1), tmp_path / "demos.jsonl")
    found = lines(tmp_path / "demos.jsonl")
    assert len(found) == pytest.approx(3 * summary.mean_turns)
    assert all(len(line["messages"]) == 2 for line in found)
    before: list[str] = []
    for line in found:
        prompt, reply = line["messages"][0]["content"], parse(line["messages"][1]["content"])
        if "Current subgoal: none" in prompt:
            before = []
        admissible = prompt.rpartition("Admissible actions: ")[2].split(", ")
        assert reply.action in admissible
        assert (f"You have taken {len(before)} turns." in prompt) == bool(before)
        if before:
            assert f"You did: {before[-1]}" in prompt
            assert f"{len(before)}. " in prompt
        before.append(reply.action)


def test_games_the_expert_cannot_finish_are_left_out(task_index: TaskIndex, tmp_path: Path) -> None:
    summary = write_demos(task_index, config(12, turns=6, renumber=False), tmp_path / "demos.jsonl")
    assert summary.failed > 0
    assert max(len(line["messages"]) for line in lines(tmp_path / "demos.jsonl")) <= 12
    with pytest.raises(DataError, match="the expert solved none of 12 training tasks"):
        write_demos(task_index, config(12, turns=1), tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_lapses_are_written_as_they_end(task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config(40)
    cfg.demos.lapses = 0.75
    summary = write_demos(task_index, cfg, tmp_path / "demos.jsonl")
    assert summary.demonstrations == len(lines(tmp_path / "demos.jsonl")) == 40
    assert 0.2 < summary.won < 0.8
    assert write_demos(task_index, config(40), tmp_path / "right.jsonl").won == 1.0


def test_progress_and_a_missing_training_split(task_index: TaskIndex, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_demos(task_index, config(3), tmp_path / "demos.jsonl", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    validation = TaskIndex(task_index.root, tuple(task_index.split("valid_seen")))
    with pytest.raises(DataError, match="split 'train' has no tasks"):
        write_demos(validation, config(3), tmp_path / "none.jsonl")


GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}\nnot json\n", r"demos.jsonl:2 is not JSON"),
        (f"{GOOD}\n{GOOD}\n[]\n", r"demos.jsonl:3: not a demonstration"),
        ('{"messages": [{"role": "user"}]}', r"demos.jsonl:1: not a demonstration"),
        ('{"messages": []}', r"demos.jsonl:1: the messages do not alternate"),
        ('{"messages": [{"role": "user", "content": "a"}]}', r"demos.jsonl:1: the messages do not alternate"),
        (GOOD.replace("user", "system"), r"demos.jsonl:1: the messages do not alternate"),
        (GOOD.replace('"a"', "7"), r"demos.jsonl:1: not a demonstration: messages: \[0\].content must be text"),
        (GOOD[:-1] + ', "admissible": [["look", 3]]}', r"demos.jsonl:1: .* admissible: \[0\]\[1\] must be text"),
        ("[" * 100_000, r"demos.jsonl:1 is (not JSON|nested too deeply)"),
        ("", r"demos.jsonl holds no demonstrations. Write them with `hiper demos`"),
    ],
    ids=["no json", "no object", "no content", "no messages", "no reply", "other roles", "no text", "no command", "deep", "empty file"],
)
def test_what_is_no_demonstration_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "demos.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_demos(path)


def test_a_missing_file_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no demonstrations at .* Write them with `hiper demos`"):
        read_demos(tmp_path / "demos.jsonl")
