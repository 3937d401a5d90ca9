"""Tiny game files with every oddity of the official ones, on the domain and grammar that the `alfworld` package ships."""

from __future__ import annotations

import importlib.util
import json
import random
from pathlib import Path

import pytest

from hiper.suites.alfworld.world import World

OBJECTS = {
    # name: (type, abilities)
    "Mug_bar_1": ("Mug", "pickupable cleanable heatable coolable isReceptacleObject"),
    "Mug_bar_2": ("Mug", "pickupable cleanable heatable coolable isReceptacleObject"),
    "Apple_bar_1": ("Apple", "pickupable cleanable heatable coolable sliceable"),
    "Knife_bar_1": ("Knife", "pickupable cleanable"),
    "Knife_bar_2": ("Knife", "pickupable cleanable"),
    "ButterKnife_bar_1": ("ButterKnife", "pickupable cleanable"),
    "DeskLamp_bar_1": ("DeskLamp", "toggleable"),
    "Book_bar_1": ("Book", "pickupable"),
    "Painting_bar_1": ("Painting", ""),
}
RECEPTACLES = {
    # name: (type, openable, location); shelf 2 and shelf 1 share a location, and so do sinkbasin and counter
    "Cabinet_bar_1": ("Cabinet", True, "loc_bar_1"),
    "Cabinet_bar_2": ("Cabinet", True, "loc_bar_2"),
    "Shelf_bar_1": ("Shelf", False, "loc_bar_3"),
    "Shelf_bar_2": ("Shelf", False, "loc_bar_3"),
    "Fridge_bar_1": ("Fridge", True, "loc_bar_4"),
    "Microwave_bar_1": ("Microwave", True, "loc_bar_5"),
    "Sink_bar_1_bar_SinkBasin": ("SinkBasin", False, "loc_bar_6"),
    "CounterTop_bar_1": ("CounterTop", False, "loc_bar_6"),
}
START = "loc_bar_9"

PLACE = (
    "(exists (?r - receptacle) (exists (?o - object) (and (inReceptacle ?o ?r) (objectType ?o {obj}Type) (receptacleType ?r {rec}Type))))"
)
TREAT = (
    "(exists (?r - receptacle) (exists (?o - object) (and ({can} ?o) (objectType ?o {obj}Type) (receptacleType ?r {rec}Type)"
    " ({state} ?o) (inReceptacle ?o ?r))))"
)
TWO = (
    "(exists (?r - receptacle) (exists (?o1 - object) (and (objectType ?o1 {obj}Type) (receptacleType ?r {rec}Type) (inReceptacle ?o1 ?r)"
    " (exists (?o2 - object) (and (not (= ?o1 ?o2)) (objectType ?o2 {obj}Type) (receptacleType ?r {rec}Type) (inReceptacle ?o2 ?r))))))"
)
LIGHT = (
    "(exists (?ot - object ?r - receptacle ?a - agent ?l - location) (and (objectType ?ot DeskLampType) (toggleable ?ot) (isToggled ?ot)"
    " (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?ot ?r)))"
    " (exists (?o - object ?a - agent) (and (objectType ?o {obj}Type) (holds ?a ?o)))"
)
GOALS = {
    "place": PLACE.format(obj="Mug", rec="Cabinet"),
    "clean": TREAT.format(can="cleanable", state="isClean", obj="Apple", rec="Shelf"),
    "heat": TREAT.format(can="heatable", state="isHot", obj="Mug", rec="Fridge"),
    "cool": TREAT.format(can="coolable", state="isCool", obj="Apple", rec="CounterTop"),
    "two": TWO.format(obj="Knife", rec="CounterTop"),
    "light": LIGHT.format(obj="Book"),
}


def shipped(name: str) -> str:
    """`alfred.pddl` or `alfred.twl2` of the installed `alfworld` package, which is not imported for it."""
    spec = importlib.util.find_spec("alfworld")
    assert spec is not None and spec.submodule_search_locations
    return (Path(spec.submodule_search_locations[0]) / "data" / name).read_text()


def problem(goal: str, lying: list[tuple[str, str]]) -> str:
    """A PDDL problem with all OBJECTS and RECEPTACLES; `lying` are (object, receptacle) pairs."""
    types = sorted({kind for kind, *_ in [*OBJECTS.values()]})
    places = sorted({kind for kind, *_ in RECEPTACLES.values()})
    locations = sorted({location for *_, location in RECEPTACLES.values()} | {START})
    declared = [f"{name} - object" for name in OBJECTS] + [f"{name} - receptacle" for name in RECEPTACLES]
    declared += [f"{kind}Type - otype" for kind in types] + [f"{kind}Type - rtype" for kind in places]
    declared += [f"{location} - location" for location in locations] + ["agent1 - agent"]
    facts = [f"(atLocation agent1 {START})"]
    for name, (kind, abilities) in OBJECTS.items():
        facts += [f"(objectType {name} {kind}Type)", *(f"({ability} {name})" for ability in abilities.split())]
    for name, (kind, openable, location) in RECEPTACLES.items():
        facts += [f"(receptacleType {name} {kind}Type)", f"(receptacleAtLocation {name} {location})"]
        facts += [f"(openable {name})"] * openable
    # a painting fits nowhere, a book not into the microwave
    facts += [
        f"(canContain {place}Type {kind}Type)"
        for place in places
        for kind in types
        if kind != "Painting" and (place, kind) != ("Microwave", "Book")
    ]
    for name, receptacle in lying:
        facts += [f"(inReceptacle {name} {receptacle})", f"(objectAtLocation {name} {RECEPTACLES[receptacle][2]})"]
    objects = "\n".join(declared)
    init = "\n".join(facts)
    return f"(define (problem tiny)\n(:domain alfred)\n(:objects\n{objects}\n)\n(:init\n{init}\n)\n(:goal (and {goal}))\n)\n"


class TinyWorlds:
    """Builds game files in a room of eight receptacles and nine objects."""

    goals = GOALS

    def game_data(
        self,
        goal: str = "place",
        lying: list[tuple[str, str]] | None = None,
        task: str = "put a mug in cabinet.",
    ) -> dict[str, object]:
        """The JSON of a game file."""
        if lying is None:
            lying = [
                ("Mug_bar_1", "Shelf_bar_1"),
                ("Mug_bar_2", "Fridge_bar_1"),
                ("Apple_bar_1", "CounterTop_bar_1"),
                ("Knife_bar_1", "CounterTop_bar_1"),
                ("Knife_bar_2", "Cabinet_bar_2"),
                ("ButterKnife_bar_1", "Shelf_bar_2"),
                ("DeskLamp_bar_1", "Shelf_bar_1"),
                ("Book_bar_1", "Shelf_bar_2"),
                ("Book_bar_1", "Cabinet_bar_1"),
                ("Painting_bar_1", "Cabinet_bar_1"),
            ]
        return {
            "pddl_domain": shipped("alfred.pddl"),
            "grammar": shipped("alfred.twl2").replace("UNKNOWN GOAL.", task),
            "pddl_problem": problem(GOALS[goal], lying),
            "solvable": True,
        }

    def scattered(self, rng: random.Random) -> list[tuple[str, str]]:
        """Every object in one receptacle, now and then in two."""
        lying = []
        for name in OBJECTS:
            lying += [(name, receptacle) for receptacle in rng.sample(sorted(RECEPTACLES), 1 + (rng.random() < 0.25))]
        return lying

    def write(self, path: Path, data: dict[str, object]) -> Path:
        """`data` as a game file."""
        path.write_text(json.dumps(data))
        return path

    def world(self, goal: str = "place") -> World:
        """A world as the engine reads it."""
        return World.from_data(self.game_data(goal), Path("tiny"))


@pytest.fixture(scope="session")
def tiny() -> TinyWorlds:
    """Builder of tiny game files."""
    return TinyWorlds()
