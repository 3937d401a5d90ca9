"""One random scene for a task: which furniture stays, what lies where, and a plan that solves it with full knowledge."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hiper.suites.alfworld.floorplans import LAMP, FloorPlan, Receptacle, Tables, floor_plan, location, position, tables
from hiper.suites.alfworld.problem import Thing, display_names

LOOK, TWO = "look_at_obj_in_light", "pick_two_obj_and_place"
TREATMENTS = {
    "pick_clean_then_place_in_recep": ("clean", "SinkBasin", "Cleanable"),
    "pick_heat_then_place_in_recep": ("heat", "Microwave", "Heatable"),
    "pick_cool_then_place_in_recep": ("cool", "Fridge", "Coolable"),
}
"""Task type -> verb, the appliance it needs, the table of objects it works on."""

FEWEST_OBJECTS = 20
"""A scene gets at least this many objects where the cap allows: the official games have 32 on average."""

SEARCH_TURNS = 38
"""Turns that visiting and opening every receptacle of a scene may take, so that a systematic player always wins within 50:
taking, treating and placing what was found takes at most 8 turns more."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, and where."""

    type: str
    scene: int
    object: str
    target: str
    """Receptacle type to put it in; for `look_at_obj_in_light` the lamp."""

    @property
    def in_light(self) -> bool:
        """Whether the object is to be looked at, not put away."""
        return self.type == LOOK


@dataclass(frozen=True, slots=True)
class Layout:
    """A furnished scene."""

    receptacles: tuple[Receptacle, ...]
    things: tuple[Thing, ...]
    start: str
    """The agent's first location; no receptacle is there."""

    @property
    def objects(self) -> int:
        """Things that lie in a receptacle; fixtures do not count."""
        return sum(thing.receptacle is not None for thing in self.things)


@cache
def tasks_in(scene: int, task_type: str) -> tuple[Task, ...]:
    """All well-posed tasks of a type in a room, by `alfworld`'s own affordances; empty where the room suits none."""
    plan, table = floor_plan(scene), tables()
    if plan.kind not in table.rooms[task_type]:
        return ()
    kinds = sorted({receptacle.type for receptacle in plan.receptacles})
    homes = {thing: [kind for kind in kinds if thing in table.holds[kind]] for thing in plan.contents if thing != LAMP}
    if task_type == LOOK:
        if LAMP not in plan.contents or not lamp_stands(plan.receptacles, table):
            return ()
        return tuple(Task(task_type, scene, thing, LAMP) for thing, places in homes.items() if places)
    appliance, fit = None, frozenset(homes)
    if task_type in TREATMENTS:
        _, appliance, trait = TREATMENTS[task_type]
        fit &= table.actions[trait]
        if appliance not in kinds:
            return ()
    return tuple(
        Task(task_type, scene, thing, target)
        for thing, places in homes.items()
        for target in places
        if thing in fit and target != appliance and len(places) > 1
    )


def lamp_stands(receptacles: Sequence[Receptacle], table: Tables) -> list[Receptacle]:
    """Where a desk lamp may stand: the tables name no place for lamps, so wherever an alarm clock may."""
    return [receptacle for receptacle in receptacles if "AlarmClock" in table.holds[receptacle.type] and not receptacle.openable]


@cache
def affinity(thing: str, kind: str) -> float:
    """How strongly a type of object is drawn to a type of receptacle; only ratios matter.

    The shipped tables say what may lie where, not how often. Two rules make that a habit worth learning: furniture that
    admits few kinds of object attracts them (a towel holder, a coffee machine, a stove burner), by the inverse square root
    of how many it admits; and each pair has a fixed whim between a quarter and four, the same in every scene and split.
    """
    return float(len(tables().holds[kind]) ** -0.5 * 4.0 ** random.Random(f"{thing}/{kind}").uniform(-1.0, 1.0))


def furnish(task: Task, rng: random.Random, *, max_receptacles: int, max_objects: int) -> Layout:
    """A scene in which `task` is open and can be solved.

    Args:
        task: from `tasks_in`.
        rng: advanced.
        max_receptacles: furniture beyond this, or beyond `SEARCH_TURNS`, is left out; what the task needs stays first, then one of
            each type, then the rest.
        max_objects: most objects; fixtures of the room do not count.
    """
    plan, table = floor_plan(task.scene), tables()
    receptacles = _furniture(plan, task, rng, max_receptacles)
    things: list[Thing] = []
    taken: set[str] = set()

    def place(kind: str, receptacle: Receptacle) -> None:
        x, y, z = position(receptacle.id)
        while True:
            name = f"{kind}|{x + rng.uniform(-0.4, 0.4):+06.2f}|{y + rng.uniform(0.0, 0.3):+06.2f}|{z + rng.uniform(-0.4, 0.4):+06.2f}"
            if name not in taken:
                break
        taken.add(name)
        things.append(Thing(name, kind, receptacle.location, receptacle.id))

    by_kind: dict[str, list[Receptacle]] = {}
    for receptacle in receptacles:
        by_kind.setdefault(receptacle.type, []).append(receptacle)
    for kind in _contents(plan, task, rng, by_kind, max_objects):
        if kind == LAMP:
            place(kind, rng.choice(lamp_stands(receptacles, table)))
        else:
            homes = _homes(task, kind, by_kind)
            (home,) = rng.choices(homes, [affinity(kind, home) for home in homes])
            place(kind, rng.choice(by_kind[home]))
    for kind in plan.fixtures:
        beside = rng.choice(receptacles)
        x, y, z = position(beside.id)
        things.append(Thing(f"{kind}|{x + 0.5:+06.2f}|{y:+06.2f}|{z + 0.5:+06.2f}", kind, beside.location, None))
    return Layout(tuple(receptacles), tuple(things), _start(plan, receptacles, rng))


def _furniture(plan: FloorPlan, task: Task, rng: random.Random, most: int) -> list[Receptacle]:
    table = tables()
    order = list(plan.receptacles)
    rng.shuffle(order)
    kept: list[Receptacle] = []

    def keep(choices: list[Receptacle]) -> None:
        if choices and choices[0] not in kept:
            kept.append(choices[0])

    if task.in_light:
        keep(lamp_stands(order, table))
    else:
        keep([receptacle for receptacle in order if receptacle.type == task.target])
        if task.type in TREATMENTS:
            keep([receptacle for receptacle in order if receptacle.type == TREATMENTS[task.type][1]])
    keep([receptacle for receptacle in order if receptacle.type != task.target and task.object in table.holds[receptacle.type]])
    needed = len(kept)
    seen = {receptacle.type for receptacle in kept}
    first: list[Receptacle] = []
    rest: list[Receptacle] = []
    for receptacle in order:
        if receptacle not in kept:
            (rest if receptacle.type in seen else first).append(receptacle)
            seen.add(receptacle.type)
    chosen: set[Receptacle] = set()
    turns = 0
    for number, receptacle in enumerate(kept + first + rest):
        cost = 2 if receptacle.openable else 1
        if number < needed or (len(chosen) < most and turns + cost <= SEARCH_TURNS):
            chosen.add(receptacle)
            turns += cost
    return [receptacle for receptacle in plan.receptacles if receptacle in chosen]


def _homes(task: Task, kind: str, by_kind: dict[str, list[Receptacle]]) -> list[str]:
    homes = [home for home in by_kind if kind in tables().holds[home]]
    if kind == task.object and task.type not in TREATMENTS and not task.in_light:
        homes.remove(task.target)  # else the goal could hold, or half hold, at the start
    return homes


def _contents(plan: FloorPlan, task: Task, rng: random.Random, by_kind: dict[str, list[Receptacle]], most: int) -> list[str]:
    needed = [task.object] * (2 if task.type == TWO else 1) + ([LAMP] if task.in_light else [])
    able = [kind for kind in plan.contents if kind != LAMP and _homes(task, kind, by_kind)]
    others = [kind for kind in able if kind != task.object]
    rng.shuffle(others)
    limit = tables().most_instances
    more = [kind for kind in able for _ in range(limit - max(needed.count(kind), 1))]
    rng.shuffle(more)
    enough = min(most, max(FEWEST_OBJECTS, len(needed) + len(others) + rng.randint(0, len(more) // 2)))
    return (needed + others + more)[:enough]


def _start(plan: FloorPlan, receptacles: list[Receptacle], rng: random.Random) -> str:
    taken = {receptacle.location for receptacle in receptacles}
    while True:
        start = location(rng.choice(plan.points), rng.randrange(4), 30)
        if start not in taken:
            return start


def solve(task: Task, layout: Layout, put: str) -> list[str]:
    """Commands that win the game, by someone who sees everything.

    Args:
        task, layout: the game.
        put: the grammar's command for putting down, with `{o}` and `{r}`, such as `move {o} to {r}`.
    """
    names = display_names([thing.id for thing in layout.things] + [receptacle.id for receptacle in layout.receptacles])
    furniture = {receptacle.id: receptacle for receptacle in layout.receptacles}
    commands: list[str] = []
    place, opened = layout.start, set()

    def visit(receptacle: Receptacle, inside: bool) -> str:
        nonlocal place
        name = names[receptacle.id]
        if place != receptacle.location:
            commands.append(f"go to {name}")
            place = receptacle.location
        if inside and receptacle.openable and receptacle.id not in opened:
            commands.append(f"open {name}")
            opened.add(receptacle.id)
        return name

    wanted = [thing for thing in layout.things if thing.type == task.object and thing.receptacle is not None]
    target = next((receptacle for receptacle in layout.receptacles if receptacle.type == task.target), None)
    for thing in wanted[: 2 if task.type == TWO else 1]:
        name = names[thing.id]
        commands.append(f"take {name} from {visit(furniture[thing.receptacle or ''], inside=True)}")
        if task.type in TREATMENTS:
            verb, appliance, _ = TREATMENTS[task.type]
            tool = next(receptacle for receptacle in layout.receptacles if receptacle.type == appliance)
            commands.append(f"{verb} {name} with {visit(tool, inside=False)}")
        if target is not None:
            commands.append(put.format(o=name, r=visit(target, inside=True)))
    if task.in_light:
        lamp = next(thing for thing in layout.things if thing.type == LAMP)
        visit(furniture[lamp.receptacle or ""], inside=False)
        commands.append(f"use {names[lamp.id]}")
    return commands
