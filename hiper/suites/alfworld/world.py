"""What a game file states. Read once, never changed, shared by every game played on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hiper.errors import DataError, TaskError
from hiper.runtime.reading import read_bytes
from hiper.suites.alfworld import pddl
from hiper.suites.alfworld.domain import Domain, read_domain
from hiper.suites.alfworld.facts import Facts
from hiper.suites.alfworld.goal import Goal, read_goal
from hiper.suites.alfworld.grammar import split_task
from hiper.suites.alfworld.wording import NEGATABLE, Wording, compile_wording

TASK_LEAD_IN = "Your task is to: "
GAME_BYTES = 2**25
"""Most of a game file; official ones have less than a hundredth of it."""
REQUIRED_KEYS = ("pddl_domain", "grammar", "pddl_problem")
_UNMANGLE = (("_bar_", "|"), ("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ","))


@dataclass(frozen=True, slots=True)
class World:
    """One game file.

    Entities (objects, receptacles, locations, types, the agent) are whole numbers: positions in the sorted list of the
    ids that the file's facts mention.
    """

    path: Path
    digest: str
    """Of domain, grammar and problem: tells whether a saved state belongs to this game."""
    domain: Domain
    wording: Wording
    task_line: str
    """The rule `task`: "Your task is to: put a mug in cabinet." """
    ids: list[str]
    types: list[str]
    """Entity -> its PDDL type: "object", "receptacle", "location", "otype", "rtype" or "agent"."""
    bases: list[str]
    """Entity -> the name it shares with its like: "mug", "sinkbasin", "loc"."""
    numbers: list[int]
    """Entity -> the number that tells it from its like, as the original counts; 0 where there is none."""
    facts: Facts
    """The facts at the start."""
    goal: Goal
    agent: int
    receptacles: dict[int, int]
    """Receptacle -> location; receptacles that stand nowhere are left out."""
    walkthrough: tuple[str, ...] | None
    """A solution, where the file carries one (release 2.1.2)."""

    @property
    def task(self) -> str:
        """The goal sentence without its lead-in."""
        return self.task_line.removeprefix(TASK_LEAD_IN).strip()

    @classmethod
    def load(cls, path: str | Path, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> World:
        """Read a `game.tw-pddl`.

        Args:
            path: the file.
            change: makes another game of its parsed JSON before that is read.

        Raises:
            TaskError: missing, damaged, or for a domain or grammar this engine does not know; names the file and what to do.
        """
        path = Path(path)
        data = read_game_file(path)
        try:
            return cls.from_data(data if change is None else change(data), path)
        except TaskError as error:
            raise TaskError(f"{path}: {error}") from error
        except RecursionError as error:
            raise TaskError(f"{path}: its rules are nested too deeply; the file is damaged, fetch or generate it again") from error

    @classmethod
    def from_data(cls, data: Any, path: Path) -> World:
        """A world from the parsed JSON of a game file; `path` only names it.

        Raises:
            TaskError: as `load`, without the file's name.
        """
        _check_keys(data)
        walkthrough = data.get("walkthrough")
        if walkthrough is not None and not (isinstance(walkthrough, list) and all(isinstance(step, str) for step in walkthrough)):
            raise TaskError(f"has a walkthrough that is not a list of commands: {str(walkthrough)[:60]!r}")
        domain = read_domain(data["pddl_domain"])
        grammar, task_line = split_task(data["grammar"])
        wording = compile_wording(grammar, data["pddl_domain"])

        problem = _Problem(data["pddl_problem"], domain)
        index = {name: number for number, name in enumerate(problem.ids)}
        facts = Facts()
        for predicate, kinds in domain.predicates.items():
            facts.declare(predicate, len(kinds))
        for predicate in NEGATABLE:
            facts.declare(f"not_{predicate}", len(domain.predicates[predicate]))
        for predicate, arguments in problem.facts:
            facts.set(predicate, tuple([index[name] for name in arguments]), True)

        agents = [(agent, places) for agent, places in facts.first["atlocation"].items()]
        if len(agents) != 1 or len(agents[0][1]) != 1:
            times = sum(len(places) for _, places in agents)
            raise TaskError(f"the problem places the agent {times} times (atLocation); once belongs there")
        receptacles = {}
        for receptacle, places in facts.first["receptacleatlocation"].items():
            if len(places) > 1:
                name = problem.ids[receptacle]
                raise TaskError(f"the problem places {name!r} {len(places)} times (receptacleAtLocation); once belongs there")
            receptacles[receptacle] = places[0]
        bases, numbers = _names(problem.ids)
        return cls(
            path=path,
            digest=hashlib.sha256("\0".join(data[key] for key in REQUIRED_KEYS).encode("utf-8", "surrogatepass")).hexdigest()[:32],
            domain=domain,
            wording=wording,
            task_line=task_line,
            ids=problem.ids,
            types=[problem.types[name] for name in problem.ids],
            bases=bases,
            numbers=numbers,
            facts=facts,
            goal=read_goal(problem.goal, index, domain),
            agent=agents[0][0],
            receptacles=dict(sorted(receptacles.items())),
            walkthrough=None if walkthrough is None else tuple(walkthrough),
        )

    def labels(self, numbers: Sequence[int]) -> list[str]:
        """Entity -> the name the player reads. Entities without a number keep the original's trailing space."""
        return [f"{base} {number or ''}" for base, number in zip(self.bases, numbers, strict=True)]


def read_game_file(path: Path) -> dict[str, Any]:
    """The JSON of a game file, its required keys present.

    Raises:
        TaskError: missing, unreadable, not JSON, or without a key; names the file and what to do.
    """
    try:
        raw = read_bytes(path, GAME_BYTES)
    except DataError as error:
        raise TaskError(f"{path}: cannot be read ({error}) Check the data directory and the split.") from error
    try:
        data = orjson.loads(raw)  # several times as fast as `parse_json`; refuses deep nesting and numbers that are none by itself
    except orjson.JSONDecodeError as error:
        raise TaskError(f"{path}: is not JSON ({error}); the file is damaged, fetch or generate it again") from error
    try:
        return _check_keys(data)
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error


def _check_keys(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise TaskError(f"holds a JSON {type(data).__name__} where an object belongs; this is no game file")
    missing = [key for key in REQUIRED_KEYS if not isinstance(data.get(key), str)]
    if missing:
        raise TaskError(f"lacks {', '.join(missing)}; a game file has the keys {', '.join(REQUIRED_KEYS)}; fetch or generate it again")
    return data


class _Problem:
    """The PDDL problem: facts over declared entities, the sorted ids that occur in them, and the goal expression."""

    def __init__(self, text: str, domain: Domain) -> None:
        what = "the PDDL problem"
        parts = pddl.sections(pddl.read(text, what), what)
        for name in (":objects", ":init", ":goal"):
            if (found := len(parts.get(name, []))) != 1:
                raise TaskError(f"{what} has {found} sections {name}; one belongs there; fetch or generate the file again")
        types = self.types = dict(pddl.typed(parts[":objects"][0], ":objects"))
        self.facts: list[tuple[str, list[str]]] = []
        mentioned: set[str] = set()
        for fact in parts[":init"][0]:
            if not isinstance(fact, list) or not fact:
                raise TaskError(f"{what} states {pddl.write(fact)[:60]!r}, which is no fact")
            predicate, *arguments = fact
            if predicate == "=":  # costs and distances, which the game does not show
                continue
            if not isinstance(predicate, str) or predicate not in domain.predicates:
                raise TaskError(f"{what} states {pddl.write(fact)[:80]!r}: the domain has no such predicate")
            kinds = domain.predicates[predicate]
            try:
                given = tuple([types[argument] for argument in arguments])  # type: ignore[index]  # a list is no key: TypeError
            except (KeyError, TypeError):
                raise TaskError(f"{what} states {pddl.write(fact)[:160]!r}, naming what is not among its :objects") from None
            if given != kinds:
                raise TaskError(f"{what} states {pddl.write(fact)[:160]!r}, of types {given}; the domain wants {kinds}")
            self.facts.append((predicate, arguments))  # type: ignore[arg-type]  # all are keys of `types`
            mentioned.update(arguments)  # type: ignore[arg-type]
        self.ids = sorted(mentioned)
        if len(parts[":goal"][0]) != 1:
            raise TaskError(f"{what} has a :goal of {len(parts[':goal'][0])} expressions; one belongs there")
        self.goal = parts[":goal"][0][0]


def _names(ids: Sequence[str]) -> tuple[list[str], list[int]]:
    """Base name and number of each id, as the `alfworld` package gives them: the first id in sorted order gets the highest number."""
    bases: list[str] = []
    counted: list[bool] = []
    for name in ids:
        text = name
        for code, character in _UNMANGLE:
            text = text.replace(code, character)
        base, bar, _ = text.partition("|")
        counted.append(bool(bar))
        bases.append(base + "basin" if bar and "basin" in name else base)
    left = Counter(base for base, has_number in zip(bases, counted, strict=True) if has_number)
    numbers = []
    for base, has_number in zip(bases, counted, strict=True):
        numbers.append(left[base] if has_number else 0)
        left[base] -= has_number
    return bases, numbers
