"""Files that cannot be played are refused with a TaskError that names the file, the trouble and what to do.

Rules pinned: damaged JSON, missing keys, cut-off or nonsensical PDDL, unknown actions, types, sections, predicates, grammar
rules, expressions and goals are each named; nothing else than TaskError ever comes out.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from hiper.errors import TaskError
from hiper.suites.alfworld import Game
from hiper.suites.alfworld.grammar import read_symbols
from hiper.suites.alfworld.world import World

CASES = {
    # name: (key, old, new, message)
    "unknown action": ("pddl_domain", "(:action look", "(:action dance", "action 'dance'"),
    "changed action": (
        "pddl_domain",
        "(pickupable ?o)\n            (atLocation",
        "(cleanable ?o)\n            (atLocation",
        "defines the action 'pickupobject'",
    ),
    "unknown type": ("pddl_domain", "  otype\n", "  otype\n  robot\n", "types this engine does not know: robot"),
    "unknown section": ("pddl_domain", "(:functions", "(:derived (p))\n(:functions", ":derived"),
    "cut domain": ("pddl_domain", "(:action look", "", "the PDDL domain"),
    "grammar lacks an action": ("grammar", "action look {", "action gaze {", "no words for the actions look"),
    "grammar lacks a rule": ("grammar", '"look-variations":', '"other":', "no rule 'look-variations'"),
    "grammar rule without an end": (
        "grammar",
        '"list_empty": [\n                {',
        '"list_empty": [\n                {"condition": "holdsany(a:agent)",',
        "'list_empty'",
    ),
    "unknown predicate": ("grammar", "holdsany(a:agent)", "juggles(a:agent)", "'juggles'"),
    "untracked predicate": ("grammar", "holdsany(a:agent)", "checked(a:agent)", "'checked'"),
    "unknown negation": ("grammar", 'not_inreceptacle(o:object, r:receptacle)",', 'not_holds(a:agent, o:object)",', "'not_holds'"),
    "wrong type": ("grammar", "holdsany(a:agent)", "holdsany(o:object)", "applies 'holdsany'"),
    "no query": ("grammar", '"condition": "holdsany(a:agent)"', '"condition": "holdsany or not"', "not a list of predicates"),
    "unknown expression": ("grammar", "{o.indefinite + ' ' + o.name | holds", "{__import__('os') | holds", "uses"),
    "unknown attribute": ("grammar", "You close the {r.name}.", "You close the {r.desc}.", "'r.desc'"),
    "unknown variable": ("grammar", "You close the {r.name}.", "You close the {x.name}.", "'x.name'"),
    "damaged expression": ("grammar", "You close the {r.name}.", "You close the {r.}.", "damaged"),
    "rule in a circle": ("grammar", "You close the {r.name}.", "#CloseObject.feedback#", "refers to itself"),
    "no task": ("grammar", '"task"', '"duty"', '"task"'),
    "task with rules": ("grammar", "put a mug", "#put# a mug", "plain sentences only"),
    "block is not JSON": ("grammar", '"intro": [', '"intro": [[', "not JSON"),
    "cut grammar": ("grammar", "action help {", "action help ", "damaged"),
    "command that changes": ("grammar", '"open {r}"', '"open [{o.name | inreceptacle(o:object, r:receptacle)}]"', "during the game"),
    "undeclared object": ("pddl_problem", "Mug_bar_1 - object", "", "not among its :objects"),
    "wrong type of argument": ("pddl_problem", "(openable Fridge_bar_1)", "(openable Mug_bar_1)", "the domain wants"),
    "unknown fact": ("pddl_problem", "(openable Fridge_bar_1)", "(sings Fridge_bar_1)", "no such predicate"),
    "not a fact": ("pddl_problem", "(openable Fridge_bar_1)", "openable", "no fact"),
    "nested fact": ("pddl_problem", "(openable Fridge_bar_1)", "(openable (Fridge_bar_1))", "not among"),
    "agent nowhere": ("pddl_problem", "(atLocation agent1 loc_bar_9)", "", "places the agent 0 times"),
    "agent twice": (
        "pddl_problem",
        "(atLocation agent1 loc_bar_9)",
        "(atLocation agent1 loc_bar_9)(atLocation agent1 loc_bar_1)",
        "2 times",
    ),
    "receptacle twice": (
        "pddl_problem",
        "(receptacleAtLocation Fridge_bar_1 loc_bar_4)",
        "(receptacleAtLocation Fridge_bar_1 loc_bar_4)(receptacleAtLocation Fridge_bar_1 loc_bar_1)",
        "'fridge_bar_1' 2 times",
    ),
    "no goal": ("pddl_problem", "(:goal", "(:goals", ":goal"),
    "universal goal": ("pddl_problem", "(exists (?r - receptacle)", "(forall (?r - receptacle)", "forall"),
    "negative goal": ("pddl_problem", "(inReceptacle ?o ?r)", "(not (inReceptacle ?o ?r))", "not (inreceptacle"),
    "free variable": ("pddl_problem", "(inReceptacle ?o ?r)", "(inReceptacle ?o ?s)", "'?s'"),
    "goal on an untracked predicate": ("pddl_problem", "(inReceptacle ?o ?r)", "(isOn ?o)", "ison"),
    "too deep": ("pddl_problem", "(:goal (and", "(:goal (and" + "(" * 5000, "100 deep"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_trouble_is_named(tiny: Any, case: str, tmp_path: Path) -> None:
    key, old, new, message = CASES[case]
    data = tiny.game_data()
    text = str(data[key])
    assert old in text, "the case no longer applies"
    data[key] = text.replace(old, new)
    path = tiny.write(tmp_path / "game.tw-pddl", data)
    with pytest.raises(TaskError) as caught:
        Game.load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "JSON list"),
        (b"{}", "lacks pddl_domain, grammar, pddl_problem"),
        (b'{"pddl_domain": "", "grammar": 3, "pddl_problem": ""}', "lacks grammar"),
    ],
)
def test_a_file_that_is_no_game(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "game.tw-pddl"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message) as caught:
        Game.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"none\.tw-pddl: cannot be read"):
        Game.load(tmp_path / "none.tw-pddl")


def test_a_strange_walkthrough(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="walkthrough"):
        Game.load(tiny.write(tmp_path / "game.tw-pddl", {**tiny.game_data(), "walkthrough": "go"}))


def test_random_damage_never_raises_anything_else(tiny: Any) -> None:
    rng = random.Random(0)
    data = tiny.game_data()
    refused = 0
    for _ in range(300):
        key = rng.choice(["pddl_domain", "grammar", "pddl_problem"])
        text = str(data[key])
        start = rng.randrange(len(text))
        end = len(text) if rng.random() < 0.3 else start + rng.randrange(20)
        broken = {**data, key: text[:start] + rng.choice(["", "(", ")", '"', "}", "{", "#", "x", "\0"]) + text[end:]}
        try:
            game = Game(World.from_data(broken, Path("broken")))
        except TaskError:
            refused += 1
            continue
        game.reset()  # what is accepted can be played
        for _ in range(5):
            game.step(rng.choice(game.admissible_commands or ["look"]))
    assert refused > 150


def test_truncated_json_at_any_place(tiny: Any, tmp_path: Path) -> None:
    raw = json.dumps(tiny.game_data())
    for length in range(0, len(raw), len(raw) // 25):
        path = tmp_path / "game.tw-pddl"
        path.write_text(raw[:length])
        with pytest.raises(TaskError):
            Game.load(path)


RECORDED = [
    # what the grammar reader of textworld 1.7.0 makes of these right-hand sides
    ("abc", [("text", "abc")]),
    ("a; b", [("text", "a")]),
    ('a "q" b', [("text", "a "), ("text", "q"), ("text", " b")]),
    ("\n\n  lead x\n  y", [("text", "lead x\n  y")]),
    (" (it is open)", [("text", "(it is open)")]),
    ("// note\nabc", [("text", "abc")]),
    ("{r.name}  z", [("each", (None, "r.name", None)), ("text", "  z")]),
    ("#a# #b#", [("rule", "a"), ("text", " "), ("rule", "b")]),
    ("x\n#a#\n  z", [("text", "x\n"), ("rule", "a"), ("text", "\n  z")]),
    ("a [x] b", [("text", "a ")]),
    ("a {b} c}d", [("text", "a "), ("each", (None, "b", None)), ("text", " c")]),
    ("a\tb", [("text", "a\tb")]),
    ("don't | x", [("text", "don't ")]),
    ("[{o.name | in(o:object)}].", [("list", (None, "o.name ", "in(o:object)")), ("text", ".")]),
    ("[{#over(o)# | in(o:object)}]", [("list", ("over(o)", None, "in(o:object)"))]),
]


@pytest.mark.parametrize(("text", "symbols"), RECORDED)
def test_right_hand_sides_are_read_as_the_original_reads_them(text: str, symbols: list[object]) -> None:
    assert read_symbols(text) == symbols
