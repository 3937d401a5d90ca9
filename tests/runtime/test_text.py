"""Rules of text from elsewhere.

1. What a file, a model or a game says never acts on the terminal: not in a game that is played or watched, not in a log, not in an error.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from hiper.cli.main import main
from hiper.cli.play import play
from hiper.runtime.progress import start_logging
from hiper.runtime.text import visible
from hiper.suites.alfworld import Game

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e\u009b31m"


def test_ordinary_text_is_left_alone() -> None:
    for text in ("Put a mug in the fridge.\n\t95 % – ünï\u202f✓", "", "[red]markup[/red]"):
        assert visible(text) == text


def test_what_would_act_is_shown() -> None:
    assert visible(HOSTILE + "\ud800") == "‹U+001B›[2J‹U+001B›]0;owned‹U+0007›‹U+202E›‹U+009B›31m‹U+D800›"


@pytest.fixture
def hostile_game(generated_games: Path, tmp_path: Path) -> Path:
    """A game that resets the terminal wherever one arrives."""
    game = next((generated_games / "valid_seen").glob("*/*/game.tw-pddl"))
    record = json.loads(game.read_text())
    grammar = record["grammar"].replace("You arrive at", "\\u001bc\\u202eYou arrive at")
    assert grammar != record["grammar"]
    path = tmp_path / "game.tw-pddl"
    path.write_text(json.dumps({**record, "grammar": grammar}))
    return path


def test_a_game_cannot_write_to_the_terminal(hostile_game: Path) -> None:
    said: list[str] = []
    game = Game.load(hostile_game)
    game.reset()
    place = next(command for command in game.admissible_commands if command.startswith("go to"))
    answers = iter(["?", place, "q"])
    play(game, lambda prompt: next(answers), said.append)
    assert any("‹U+001B›c‹U+202E›You arrive at" in text for text in said), "the game does say it"
    assert all(visible(text) == text for text in said)


def test_nor_can_one_that_is_watched(hostile_game: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "--expert", str(hostile_game)]) == 0
    shown = capsys.readouterr().out
    assert "‹U+001B›c" in shown and visible(shown) == shown


def test_nor_can_a_message_or_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps({"name": HOSTILE, "base": [], "arms": {"a": []}}))
    assert main(["compare", str(study)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("hiper: ") and visible(said) == said
    root = logging.getLogger("hiper")
    kept, root.handlers = root.handlers, []
    try:
        start_logging()
        logging.getLogger("hiper.x").warning("a file says %s", HOSTILE)
        (handler,) = root.handlers
        shown = handler.format(logging.LogRecord("hiper.x", logging.ERROR, "", 1, "it says %s", (HOSTILE,), None))
        assert "‹U+001B›[2J" in shown and visible(shown) == shown
        words = ("\x1b[1m%s\x1b[0m lacks %s", ("A", HOSTILE), None)
        record = logging.getLogger("transformers.x").makeRecord("x", logging.WARNING, "", 1, *words)
        assert record.getMessage() == f"A lacks {visible(HOSTILE)}"
    finally:
        root.handlers = kept
        logging.setLogRecordFactory(logging.LogRecord)
