"""What the installed `alfworld` package ships about ALFRED's rooms: 120 floor plans, affordance tables, goals, domain, grammar.

Everything is read from the package at generation time; none of it is copied into this tree. Two of its modules hold plain
tables (`gen/constants.py`, `gen/goal_library.py`); they are loaded from their files, because importing the package itself
creates folders and changes the process environment.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import random
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from hiper.errors import DataError, MissingDependencyError
from hiper.runtime.packages import ALFWORLD, INSTALL_ALFWORLD
from hiper.runtime.reading import parse_json, read_text
from hiper.suites.alfworld.settings import TASK_TYPES

HELD_OUT_SCENES = frozenset({9, 10, 29, 215, 219, 226, 308, 315, 325, 404, 424, 425})
"""Rooms ALFRED keeps for its unseen splits (valid: 10, 219, 308, 424; test: the others); no official training game plays in them."""

LAMP = "DeskLamp"
"""The only lamp the official games ask for: the goal wants it in a receptacle, and floor lamps stand in none."""

_AGENT_HEIGHT = 0.9
"""Metres; AI2-THOR's agent. With it 96 % of the camera angles in the official games come out."""

STEP = 0.25
"""Metres to a cell of the location grid (`loc|x|z|rotation|horizon` counts cells and quarter turns)."""


@dataclass(frozen=True, slots=True)
class Receptacle:
    """A piece of furniture of a floor plan."""

    id: str
    """ALFRED's id: type and position in metres, such as `Cabinet|+00.68|+00.50|-02.20`."""
    type: str
    location: str
    """Where the agent stands to use it, such as `loc|0|-5|2|30`; receptacles may share one."""
    openable: bool


@dataclass(frozen=True, slots=True)
class FloorPlan:
    """One room."""

    scene: int
    """ALFRED's number: kitchens 1-30, living rooms 201-230, bedrooms 301-330, bathrooms 401-430."""
    kind: str
    receptacles: tuple[Receptacle, ...]
    contents: tuple[str, ...]
    """Object types that belong here and can lie in some receptacle."""
    fixtures: tuple[str, ...]
    """Object types that belong here and lie in none: chairs, windows, light switches."""
    points: tuple[tuple[float, float], ...]
    """Reachable (x, z) positions in metres."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The package's tables, without the sliced objects that no supported task uses."""

    holds: dict[str, tuple[str, ...]]
    """Receptacle type -> object types it can contain, sorted."""
    objects: frozenset[str]
    """Every object type ALFRED knows."""
    openable: frozenset[str]
    vessels: frozenset[str]
    """Object types that can themselves contain things (mugs, plates)."""
    actions: dict[str, frozenset[str]]
    """`Cleanable`, `Heatable`, `Coolable`, `Sliceable`, `Toggleable` -> object types."""
    kinds: dict[str, range]
    """Kind of room -> scene numbers."""
    rooms: dict[str, frozenset[str]]
    """Task type -> kinds of room it is asked in."""
    goals: dict[str, str]
    """Task type -> goal in PDDL with `{obj}`, `{recep}`, `{toggle}`."""
    sentences: dict[str, tuple[str, ...]]
    """Task type -> wordings of the goal with the same fields."""
    eye_height: float
    """Metres from the floor to the agent's camera."""
    most_instances: int
    """Most objects of a type that ALFRED puts in a scene."""
    domain: str
    grammar: str
    version: str
    """Version of the `alfworld` package."""


@lru_cache(maxsize=1)
def tables() -> Tables:
    """The package's tables.

    Raises:
        MissingDependencyError: `alfworld` is not installed.
        DataError: the installed version lacks a file or table that the generator needs.
    """
    root = _package()
    constants, goals = _module(root / "gen" / "constants.py"), _module(root / "gen" / "goal_library.py")
    try:
        furniture = set(constants.RECEPTACLES) - set(constants.MOVABLE_RECEPTACLES)
        return Tables(
            holds={
                name: tuple(sorted(kind for kind in constants.VAL_RECEPTACLE_OBJECTS.get(name, ()) if not kind.endswith("Sliced")))
                for name in sorted(furniture)
            },
            objects=frozenset(constants.OBJECTS) - furniture,
            openable=frozenset(constants.OPENABLE_CLASS_LIST),
            vessels=frozenset(constants.MOVABLE_RECEPTACLES),
            actions={name: frozenset(kinds) for name, kinds in constants.VAL_ACTION_OBJECTS.items()},
            kinds=dict(constants.SCENE_TYPE),
            rooms={name: frozenset(constants.GOALS_VALID[name]) for name in TASK_TYPES},
            # '#' stands for the '-' of PDDL types, which upstream keeps apart from the '-' of coordinates.
            goals={name: goals.gdict[name]["pddl"].replace("#", "-") for name in TASK_TYPES},
            sentences={name: tuple(goals.gdict[name]["templates"]) for name in TASK_TYPES},
            eye_height=_AGENT_HEIGHT + constants.CAMERA_HEIGHT_OFFSET,
            most_instances=constants.MAX_NUM_OF_OBJ_INSTANCES,
            domain=_text(root / "data" / "alfred.pddl"),
            grammar=_text(root / "data" / "alfred.twl2"),
            version=importlib.metadata.version("alfworld"),
        )
    except (AttributeError, KeyError) as error:
        raise DataError(
            f"the installed alfworld at {root} lacks a table the generator reads ({error}). Install alfworld {ALFWORLD}."
        ) from error


def scenes() -> list[int]:
    """Numbers of all floor plans, ascending."""
    return sorted(scene for numbers in tables().kinds.values() for scene in numbers)


@cache
def floor_plan(scene: int) -> FloorPlan:
    """One room, the same at every call.

    The package gives exact positions for most furniture and names the rest: a type that a plan mentions without a position
    gets one, at a reachable point fixed by the scene. As upstream, only furniture with a vetted position can be opened.

    Raises:
        MissingDependencyError: `alfworld` is not installed.
        DataError: the package has no such floor plan, or it cannot be read.
    """
    table, folder = tables(), _package() / "gen" / "layouts"
    placed: dict[str, list[float]] = _json(folder / f"FloorPlan{scene}-openable.json")
    mentioned = set(_json(folder / f"FloorPlan{scene}-objects.json"))
    points = tuple((float(x), float(z)) for x, z in _array(folder / f"FloorPlan{scene}-layout.npy"))
    receptacles = []
    for name, (x, z, *_) in sorted(placed.items()):
        kind = _type(name)
        if kind in table.holds:
            receptacles.append(Receptacle(name, kind, _facing(name, (x, z), table.eye_height), kind in table.openable))
    for kind in sorted((mentioned & set(table.holds)) - {receptacle.type for receptacle in receptacles}):
        receptacles += _improvised(scene, kind, points, table.eye_height)
    storable = {kind for kinds in table.holds.values() for kind in kinds} | {LAMP}
    return FloorPlan(
        scene=scene,
        kind=next(kind for kind, numbers in table.kinds.items() if scene in numbers),
        receptacles=tuple(receptacles),
        contents=tuple(sorted(mentioned & storable)),
        fixtures=tuple(sorted(mentioned & table.objects - storable)),
        points=points,
    )


def _improvised(scene: int, kind: str, points: tuple[tuple[float, float], ...], eye_height: float) -> list[Receptacle]:
    rng = random.Random(f"{scene}/{kind}")  # a string: the same furniture in every process
    base = kind.removesuffix("Basin")
    found = []
    for _ in range(4 if kind == "StoveBurner" else 1):  # a stove has four burners
        x, z = rng.choice(points)
        angle = rng.uniform(0.0, 2 * math.pi)
        name = f"{base}|{x + 0.6 * math.cos(angle):+06.2f}|{rng.uniform(0.4, 1.0):+06.2f}|{z + 0.6 * math.sin(angle):+06.2f}"
        if base != kind:
            name += f"|{kind}"
        found.append(Receptacle(name, kind, _facing(name, (x, z), eye_height), False))
    return found


def position(name: str) -> tuple[float, float, float]:
    """The (x, y, z) in metres that an ALFRED id states."""
    x, y, z = name.split("|")[1:4]
    return float(x), float(y), float(z)


def _facing(name: str, point: tuple[float, float], eye_height: float) -> str:
    """The location of an agent at a point who looks at a thing: quarter turn and camera angle, as ALFRED derives them."""
    x, y, z = position(name)
    east, north = x - point[0], z - point[1]
    rotation = (1 if east > 0 else 3) if abs(east) > abs(north) else (0 if north > 0 else 2)
    down = math.degrees(math.atan2(eye_height - y, max(abs(east), abs(north))))
    return location(point, rotation, max(-30, min(60, round(down / 15) * 15)))


def _type(name: str) -> str:
    parts = name.split("|")
    # From the first part: plan 420 calls its bathtub's basin `Bathtub|...|SinkBasin`.
    return f"{parts[0]}Basin" if parts[-1].endswith("Basin") else parts[0]


def location(point: tuple[float, float], rotation: int, horizon: int) -> str:
    """A place to stand: a point in metres, quarter turns from north, camera angle in degrees below the horizon."""
    return f"loc|{round(point[0] / STEP)}|{round(point[1] / STEP)}|{rotation}|{horizon}"


@lru_cache(maxsize=1)
def _package() -> Path:
    spec = importlib.util.find_spec("alfworld")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            "games are generated from the floor plans of the alfworld package, which is not installed. "
            f"Run `{INSTALL_ALFWORLD}`, or use existing games with tasks.source=official."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_hiper_alfworld_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise DataError(f"{path} is missing from the installed alfworld package. Install alfworld {ALFWORLD}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except DataError as error:
        raise DataError(f"{error} It belongs to the alfworld package: install alfworld {ALFWORLD}.") from error


def _json(path: Path) -> Any:
    return parse_json(_text(path), str(path))


def _array(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}). It belongs to the alfworld package: install alfworld {ALFWORLD}.") from error
