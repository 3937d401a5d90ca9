"""Rules of prompts.

1. `append`: the first message carries the task, each later one is the observation, with a reminder only by choice; the program's banner
   is never shown.
2. `window`: task, the last `history` turns numbered as played, observation, subgoal in force, admissible actions.
3. `instructed` tells the grammar once, `terse` never; the dialect changes what is said about KEEP.
"""

from __future__ import annotations

import pytest

from hiper.config import Context, Dialect, ProtocolConfig, Style
from hiper.protocol import Prompter, describe
from hiper.protocol.prompts import Past, instructions

BANNER = "-= Welcome to TextWorld, ALFRED! =-\n\n"
FIRST = "You are in the middle of a room.\n\nYour task is to: put a mug in shelf."
PAST = [Past(f"{BANNER}You are in a room.", "go to shelf 1"), Past("You see nothing.", "look"), Past("Nothing happens.", "")]

SCENE = "You act in a house, in text."


def prompter(style: Style = Style.terse, **settings: object) -> Prompter:
    return Prompter(ProtocolConfig(style=style, **settings), SCENE)  # type: ignore[arg-type]


def test_the_banner_is_left_out() -> None:
    assert describe(BANNER + FIRST + "\n") == FIRST


def test_append_says_the_observation_and_nothing_else() -> None:
    words = prompter()
    assert words.appends
    assert words.first(BANNER + FIRST) == FIRST
    assert words.later("You open the drawer 1. ", "put a mug in shelf.", "find a mug") == "You open the drawer 1."


def test_append_may_remind_of_task_and_subgoal() -> None:
    words = prompter(remind=True)
    assert words.first(BANNER + FIRST) == FIRST
    assert words.later("You open the drawer 1.", "put a mug in shelf.", "find a mug") == (
        "You open the drawer 1.\nTask: put a mug in shelf.\nSubgoal: find a mug"
    )
    assert words.later("You open the drawer 1.", "put a mug in shelf.", "").endswith("\nSubgoal: none")


def test_instructions_open_the_conversation_once() -> None:
    words = prompter(Style.instructed)
    assert words.first(BANNER + FIRST) == f"{instructions(Dialect.full, SCENE)}\n\n{FIRST}"
    assert words.later("You open the drawer 1.", "put a mug in shelf.", "find a mug") == "You open the drawer 1."


def test_instructions_follow_the_dialect() -> None:
    full, compact = instructions(Dialect.full, SCENE), instructions(Dialect.compact, SCENE)
    form = "<switch>KEEP or SWITCH</switch> <subgoal>the subgoal</subgoal> <action>one action</action>"
    assert form in full
    assert form in compact
    assert "repeat the current subgoal" in full
    assert "repeat the current subgoal" not in compact
    assert "leave the subgoal block out" in compact


def test_the_window_prompt_word_for_word() -> None:
    words = prompter(context=Context.window, history=2)
    assert not words.appends
    assert words.window("put a mug in shelf.", PAST, "You see a mug 1.", "find a mug", ["take mug 1", "look"]) == (
        "Your task is to: put a mug in shelf.\n"
        "You have taken 3 turns. The last ones:\n"
        "2. You see nothing. You did: look\n"
        "3. Nothing happens. You did: \n"
        "Current observation: You see a mug 1.\n"
        "Current subgoal: find a mug\n"
        "Admissible actions: take mug 1, look"
    )


@pytest.mark.parametrize(("history", "numbers"), [(0, []), (1, ["3. "]), (2, ["2. ", "3. "]), (7, ["1. ", "2. ", "3. "])])
def test_history_limits_the_turns_shown(history: int, numbers: list[str]) -> None:
    lines = prompter(context=Context.window, history=history).window("t", PAST, "o", None, ["look"]).splitlines()
    assert [line[:3] for line in lines if line[:1].isdigit()] == numbers
    assert ("You have taken 3 turns. The last ones:" in lines) == bool(numbers)
    assert not any("Welcome" in line for line in lines)


def test_the_first_window_prompt_has_no_past_and_no_subgoal() -> None:
    shown = prompter(Style.instructed, context=Context.window).window("t", [], BANNER + FIRST, None, ["look"])
    assert shown.startswith(instructions(Dialect.full, SCENE) + "\nYour task is to: t\nCurrent observation: You are in")
    assert "Current subgoal: none" in shown
    assert "turns" not in shown.removeprefix(instructions(Dialect.full, SCENE))
