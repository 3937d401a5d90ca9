"""Which domain a game file states, and whether this engine knows it.

The rules of the game are written in Python (`game.py`) and not interpreted, which is where the speed comes from. So an
action of the file is accepted only if its definition is, word for word, one of those the Python was written for; spaces,
comments, letter case and costs aside. What two releases state differently (which receptacles clean an object) is read
from the file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from hiper.errors import TaskError
from hiper.suites.alfworld import pddl
from hiper.suites.alfworld.pddl import SExpr

INSTEAD = "play it with alfworld.engine=textworld"
"""What to do with a game that is sound but beyond this engine."""

KNOWN_ACTIONS = {
    "look": "678f0592708d91b3",
    "inventory": "b20bb29e2d11feb2",
    "help": "582a6a149bf42e95",
    "examinereceptacle": "2cd33017ad279e66",
    "examineobject": "1288eba8b4fbc5ed",
    "gotolocation": "71a4f37467984f50",
    "openobject": "7093353c574daa65",
    "closeobject": "14138c6016420d59",
    "pickupobject": "6a0aacadfdd8c668",
    "putobject": "824390e590b66093",
    "cleanobject": "e54d6bb2e772aba3",
    "heatobject": "4f605001c42e03e9",
    "coolobject": "db8b54d23519e939",
    "toggleobject": "c64bb868338156ef",
    "sliceobject": "f6dddd0e3380834d",
}
"""Action -> fingerprint of the definition that `game.py` implements; see `_fingerprint`."""

KNOWN_TYPES = frozenset({"agent", "location", "receptacle", "object", "rtype", "otype"})

DYNAMIC = frozenset(
    {"atlocation", "objectatlocation", "inreceptacle", "holds", "holdsany", "opened"}
    | {"isclean", "ishot", "iscool", "istoggled", "issliced"}
)
"""Predicates that actions change and that this engine keeps up to date."""

UNTRACKED = frozenset({"checked", "ison"})
"""Predicates that actions change and that neither the official wording nor a goal reads."""


@dataclass(frozen=True)
class Domain:
    """What a game's PDDL domain states."""

    actions: dict[str, dict[str, str]]
    """Action -> its parameters: name -> type."""
    predicates: dict[str, tuple[str, ...]]
    """Predicate -> the types of its arguments."""
    tools: dict[str, frozenset[str]]
    """Action -> the types its tool may have (`cleanobject`: `sinkbasintype`); empty for an action without one."""


def _lift_types(expr: SExpr, found: set[str]) -> SExpr:
    """`expr` with each `(or (receptacletype ?r X) ...)` reduced to `(or types ?r)`, the X collected in `found`; costs dropped."""
    if isinstance(expr, str):
        return expr
    if expr and expr[0] == "or":
        kinds = [part for part in expr[1:] if isinstance(part, list) and len(part) == 3 and part[0] in ("receptacletype", "objecttype")]
        heads = {pddl.write(part[:2]) for part in kinds}
        if kinds and len(kinds) == len(expr) - 1 and len(heads) == 1:
            found.update(pddl.write(part[2]) for part in kinds)
            return ["or", "types", *kinds[0][:2]]
    return [_lift_types(part, found) for part in expr if not (isinstance(part, list) and part and part[0] == "increase")]


def _fingerprint(body: list[SExpr]) -> tuple[str, frozenset[str]]:
    """Sixteen hex digits of an action's definition, and the tool types it names."""
    found: set[str] = set()
    text = pddl.write(_lift_types(body, found))
    return hashlib.sha256(text.encode()).hexdigest()[:16], frozenset(found)


@lru_cache(maxsize=16)
def read_domain(text: str) -> Domain:
    """The domain stated in `text`, checked against what this engine implements. Cached by content.

    Raises:
        TaskError: damaged text, or an action, type or section this engine does not know, named.
    """
    what = "the PDDL domain"
    parts = pddl.sections(pddl.read(text, what), what)
    unknown = set(parts) - {":requirements", ":types", ":predicates", ":functions", ":action"}
    if unknown:
        raise TaskError(f"{what} has sections this engine does not know: {', '.join(sorted(unknown))}; {INSTEAD}")
    types = dict(pair for part in parts.get(":types", []) for pair in pddl.typed(part, ":types"))
    strange = {name for name, parent in types.items() if name not in KNOWN_TYPES or parent != "object"}
    if strange:
        raise TaskError(f"{what} has types this engine does not know: {', '.join(sorted(strange))}; {INSTEAD}")

    predicates: dict[str, tuple[str, ...]] = {}
    for part in parts.get(":predicates", []):
        for declared in part:
            if not isinstance(declared, list) or not declared or not isinstance(declared[0], str):
                raise TaskError(f"{what} declares {pddl.write(declared)!r}, which is no predicate")
            predicates[declared[0]] = tuple(kind for _, kind in pddl.typed(declared[1:], f"predicate {declared[0]}"))

    actions: dict[str, dict[str, str]] = {}
    tools: dict[str, frozenset[str]] = {}
    for body in parts.get(":action", []):
        name = body[0] if body and isinstance(body[0], str) else "without a name"
        digest, kinds = _fingerprint(body)
        if name not in KNOWN_ACTIONS:
            raise TaskError(f"{what} has the action {name!r}, which this engine does not know; {INSTEAD}")
        if KNOWN_ACTIONS[name] != digest:
            raise TaskError(f"{what} defines the action {name!r} in a way this engine does not know (fingerprint {digest}); {INSTEAD}")
        parameters = body[body.index(":parameters") + 1]
        assert isinstance(parameters, list)  # part of the fingerprint
        actions[name] = {variable[1:]: kind for variable, kind in pddl.typed(parameters, f"action {name}")}
        tools[name] = kinds
    if not actions:
        raise TaskError(f"{what} has no actions")
    return Domain(actions, predicates, tools)
