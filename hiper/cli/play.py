"""A game in the terminal, for a person or for the expert; where the words go is the caller's choice.

Games are files that anybody may have written: what they say is shown by `visible`, so that none of it acts on the terminal.
"""

from __future__ import annotations

from collections.abc import Callable

from hiper.runtime.text import visible
from hiper.suites.base import TextEnv
from hiper.suites.expert import Expert

HELP = "? lists what can be done now; q leaves"
PRIOR_GAMES = 300
"""Training games an expert sees before it is watched; more change little."""
MAX_TURNS = 100


def play(game: TextEnv, ask: Callable[[str], str], say: Callable[[str], object]) -> bool:
    """Let a person play until the goal is reached or they leave; whether it was reached.

    Args:
        game: is started anew.
        ask: shows a prompt and returns a line, as `input` does; EOFError leaves the game.
        say: shows text, as `print` does.
    """
    say(visible(game.reset()))
    say(f"({HELP})")
    turns = 0
    while not game.won:
        try:
            command = ask("> ").strip()
        except EOFError:
            break
        if command == "q":
            break
        if command == "?":
            say(visible("\n".join(game.admissible_commands)))
        elif command:
            say(visible(game.step(command).observation))
            turns += 1
    say(f"You {'won' if game.won else 'left'} after {turns} turns.")
    return game.won


def watch(game: TextEnv, expert: Expert, say: Callable[[str], object]) -> bool:
    """Show the expert playing, with the subgoal it follows; whether it reached the goal."""
    observation = game.reset()
    say(visible(observation))
    expert.start(game.task, observation)
    turns = 0
    while not game.won and turns < MAX_TURNS:
        decision = expert.act(observation, game.admissible_commands)
        if decision.switch:
            say(visible(f"[{decision.subgoal}]"))
        observation = game.step(decision.action).observation
        say(visible(f"> {decision.action}\n{observation}"))
        turns += 1
    say(f"The expert {'won' if game.won else 'gave up'} after {turns} turns.")
    return game.won
