"""A scene as a PDDL problem, in the form of the official games, and the names a player sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hiper.suites.alfworld.floorplans import Receptacle, Tables

_ESCAPES = str.maketrans({"-": "_minus_", "|": "_bar_", "+": "_plus_", ".": "_dot_", ",": "_comma_"})


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of a scene."""

    id: str
    """Type and position in metres, such as `Mug|-00.24|+01.01|+00.20`."""
    type: str
    location: str
    receptacle: str | None
    """Id of the receptacle it lies in; None for a fixture of the room."""


def escape(name: str) -> str:
    """An ALFRED id as a PDDL symbol."""
    return name.translate(_ESCAPES)


def problem_text(
    name: str, receptacles: Sequence[Receptacle], things: Sequence[Thing], start: str, goal: str, tables: Tables, pickupable: frozenset[str]
) -> str:
    """The problem as PDDL.

    Args:
        name: of the problem, a PDDL symbol.
        receptacles, things: the scene.
        start: the agent's first location.
        goal: the `(:goal ...)` of `alfworld`'s goal library, fields filled in; it also closes the definition.
        tables: affordances.
        pickupable: object types that can be taken.

    Source: the problems in ALFWorld's released games, and `gen/game_states/planned_game_state.py` of the `alfworld` package.
    """
    otypes = sorted({thing.type for thing in things})
    rtypes = sorted({receptacle.type for receptacle in receptacles})
    locations = sorted({start} | {receptacle.location for receptacle in receptacles} | {thing.location for thing in things})
    objects = [
        "agent1 - agent",
        *(f"{kind}Type - otype" for kind in otypes),
        *(f"{kind}Type - rtype" for kind in rtypes),
        *(f"{escape(thing.id)} - object" for thing in things),
        *(f"{escape(receptacle.id)} - receptacle" for receptacle in receptacles),
        *(f"{escape(location)} - location" for location in locations),
    ]
    facts = [f"(receptacleType {escape(receptacle.id)} {receptacle.type}Type)" for receptacle in receptacles]
    facts += [f"(objectType {escape(thing.id)} {thing.type}Type)" for thing in things]
    present = set(otypes)
    facts += [f"(canContain {kind}Type {held}Type)" for kind in rtypes for held in tables.holds[kind] if held in present]
    facts += [f"(openable {escape(receptacle.id)})" for receptacle in receptacles if receptacle.openable]
    facts.append(f"(atLocation agent1 {escape(start)})")
    traits = [
        ("pickupable", pickupable),
        ("isReceptacleObject", tables.vessels),
        *((trait.lower(), tables.actions[trait]) for trait in ("Cleanable", "Heatable", "Coolable", "Toggleable", "Sliceable")),
    ]
    for trait, kinds in traits:
        facts += [f"({trait} {escape(thing.id)})" for thing in things if thing.type in kinds]
    facts += [f"(inReceptacle {escape(thing.id)} {escape(thing.receptacle)})" for thing in things if thing.receptacle is not None]
    facts += [f"(receptacleAtLocation {escape(receptacle.id)} {escape(receptacle.location)})" for receptacle in receptacles]
    facts += [f"(objectAtLocation {escape(thing.id)} {escape(thing.location)})" for thing in things]
    body = "\n        "
    return f"\n(define (problem plan_{name})\n(:domain alfred)\n(:objects\n{body.join(objects)}\n)\n(:init\n{body.join(facts)}\n)\n{goal}"


def display_names(ids: Iterable[str]) -> dict[str, str]:
    """ALFRED id -> the name in commands, such as `mug 2`: within a type, the id that sorts last is number 1.

    Source: `alfworld.agents.utils.misc.Demangler`, which numbers the lower-cased PDDL symbols.
    """
    symbols = sorted((escape(name).lower(), name) for name in ids)
    bases = [symbol.split("_bar_", 1)[0] + ("basin" if "basin" in symbol else "") for symbol, _ in symbols]
    left = Counter(bases)
    names = {}
    for (_, name), base in zip(symbols, bases, strict=True):
        names[name] = f"{base} {left[base]}"
        left[base] -= 1
    return names
