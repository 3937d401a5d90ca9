"""Training games with their things laid out anew: the rooms, tasks and wordings stay, what lies where does not.

A released room comes with a handful of layouts, and playing those again and again teaches a small model to remember them. Moved things are
the variety that the search must be learned from.
"""

from __future__ import annotations

import random
import re
from typing import Any

from hiper.suites.alfworld.prior import INSIDE, TYPE, LocationPrior

_AT = re.compile(r"\(objectAtLocation (\S+) (\S+)\)")
_STANDS = re.compile(r"\(receptacleAtLocation (\S+) (\S+)\)")
_TAKEN = re.compile(r"\(pickupable (\S+)\)")
_FULL = re.compile(r"\(inReceptacleObject \S+ (\S+)\)")
# Things go where their kind lies in training games, the rarer places oftener than there: a search that the first guess ends shows little.
_FLATTEN = 0.5


def scatter(record: dict[str, Any], prior: LocationPrior, rng: random.Random) -> dict[str, Any]:
    """A game file's content with every portable thing in a place drawn anew.

    What is fixed, filled, or of a kind that lies nowhere in the training games stays where it is. The result may be won from the start, and
    its `walkthrough` is dropped, for it leads to where things were.

    Args:
        record: the parsed JSON of a `game.tw-pddl`; left as it is.
        prior: where things usually lie; learn it from training games only.
        rng: advanced.
    """
    problem = str(record["pddl_problem"])
    types = {name: kind.lower() for name, kind in TYPE.findall(problem)}
    stands = dict(_STANDS.findall(problem))
    movable = set(_TAKEN.findall(problem)) - set(_FULL.findall(problem))
    moved: dict[str, str] = {}
    for thing, _ in INSIDE.findall(problem):
        if thing not in movable or thing not in types:
            continue
        worth = {place: prior.score(types[thing], types[place]) for place in stands if place in types}
        places = [place for place in worth if worth[place] > 0]
        if places:
            moved[thing] = rng.choices(places, [worth[place] ** _FLATTEN for place in places])[0]
    problem = INSIDE.sub(lambda fact: f"(inReceptacle {fact[1]} {moved.get(fact[1], fact[2])})", problem)
    problem = _AT.sub(lambda fact: f"(objectAtLocation {fact[1]} {stands[moved[fact[1]]] if fact[1] in moved else fact[2]})", problem)
    return {**{key: value for key, value in record.items() if key != "walkthrough"}, "pddl_problem": problem}
