"""An ALFWorld game that plays as the `alfworld` package does, hundreds of times faster.

What this module must keep to, each pinned by a test or by `hiper benchmark alfworld`:

* A command counts only if it is, once stripped, one of the admissible commands, letter for letter; else "Nothing happens."
* Only what the player holds can be examined, besides receptacles: the official domain means otherwise, but a stray comma in it
  keeps the other case from ever applying.
* `look` before the first move lists "nothing", though the intro, which uses the same rule, lists every receptacle.
* An object can lie in two receptacles at once; taking it from one leaves it in the other.
* Receptacles can share a location; then there is no `go to` from one to the other.
* Once the goal holds at the end of a step, the game is over, and every later step returns that step's result again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from hiper.errors import DataError
from hiper.suites.alfworld.domain import DYNAMIC
from hiper.suites.alfworld.goal import GoalSummary
from hiper.suites.alfworld.wording import NEGATABLE
from hiper.suites.alfworld.world import World
from hiper.suites.base import StepResult

NOTHING_HAPPENS = "Nothing happens."

_CHANGES = {
    "gotolocation": {"atlocation"},
    "openobject": {"opened"},
    "closeobject": {"opened"},
    "pickupobject": {"inreceptacle", "holds", "holdsany", "objectatlocation"},
    "putobject": {"inreceptacle", "holds", "holdsany", "objectatlocation"},
    "cleanobject": {"isclean"},
    "heatobject": {"ishot", "iscool"},
    "coolobject": {"ishot", "iscool"},
    "toggleobject": {"istoggled"},
    "sliceobject": {"issliced"},
}
"""Action -> the predicates it changes; the goal is looked at again only after an action that changes one of its own."""

_ABILITY = {"cleanobject": "cleanable", "heatobject": "heatable", "coolobject": "coolable"}


class _Move(NamedTuple):
    """A ground action: its name, the object (for slicing: what is sliced), the receptacle and the knife, -1 where none."""

    action: str
    object: int = -1
    receptacle: int = -1
    knife: int = -1


class Game:
    """One episode at a time of one game file; a `hiper.suites.base.TextEnv`."""

    def __init__(self, world: World, rng: random.Random | None = None) -> None:
        """Start a game.

        Args:
            world: the game file.
            rng: with it, the numbers in names are dealt anew among entities of one kind ("mug 1" and "mug 2" may swap), for
                data augmentation; without it, names are the original's.
        """
        self.world = world
        self.facts = world.facts.copy(DYNAMIC | {f"not_{predicate}" for predicate in NEGATABLE})
        numbers = list(world.numbers)
        if rng is not None:
            alike: dict[str, list[int]] = {}
            for entity, number in enumerate(numbers):
                if number:
                    alike.setdefault(world.bases[entity], []).append(entity)
            for entities in alike.values():
                for entity, number in zip(entities, rng.sample(range(1, len(entities) + 1), len(entities)), strict=True):
                    numbers[entity] = number
        self._number(numbers)

        known = world.domain.actions
        types = world.facts.second["receptacletype"]
        kinds = {world.ids[kind]: receptacles for kind, receptacles in types.items()}
        self._tool_actions = [
            (action, ability, frozenset(r for kind in world.domain.tools[action] for r in kinds.get(kind, ())))
            for action, ability in _ABILITY.items()
            if action in known
        ]
        self._at: dict[int, list[int]] = {}
        for receptacle, location in world.receptacles.items():
            self._at.setdefault(location, []).append(receptacle)
        self._deciding = frozenset(action for action, changed in _CHANGES.items() if changed & world.goal.predicates)
        self._changed: dict[tuple[str, tuple[int, ...]], bool] = {}
        self._ended: StepResult | None = None
        self._start()

    @classmethod
    def load(cls, path: str | Path, rng: random.Random | None = None) -> Self:
        """A game on the file `path` (`game.tw-pddl`), at its start. For many games on one file, share a `World`.

        Raises:
            TaskError: missing, damaged, or for a domain or grammar this engine does not know; names the file and what to do.
        """
        return cls(World.load(path), rng)

    # The environment's surface.

    @property
    def task(self) -> str:
        """The goal sentence without its lead-in: "put a mug in cabinet."."""
        return self.world.task

    @property
    def won(self) -> bool:
        """Whether the goal holds."""
        return self._won

    @property
    def score(self) -> float:
        """1 once the goal holds; nothing counts before."""
        return float(self.won)

    @property
    def admissible_commands(self) -> list[str]:
        """Commands that do something now, sorted as the original sorts them. The list is the caller's own."""
        return list(self._options()[1])

    def reset(self) -> str:
        """Start the episode again, with the same names; the intro."""
        initial = self.world.facts
        for predicate, arguments in self._changed:
            self.facts.set(predicate, arguments, initial.holds(predicate, arguments))
            if predicate in NEGATABLE:
                self.facts.set(f"not_{predicate}", arguments, False)
        self._changed.clear()
        self._start()
        return self.world.wording.intro(self, {})

    def step(self, command: str) -> StepResult:
        """Play one command. Anything that is not admissible changes nothing and says "Nothing happens."; nothing raises.

        The reward is 1 on the winning step, else 0. Steps after the end return the last result again.
        """
        if self._ended is not None:
            return self._ended
        move = self._options()[0].get(command.strip())
        observation = NOTHING_HAPPENS if move is None else self._play(move)
        result = StepResult(observation, 1.0 if self._won else 0.0, self._won)
        if self._won:
            self._ended = result
        return result

    def state(self) -> dict[str, Any]:
        """The episode so far as JSON-able data: what differs from the start, names that were dealt anew, how it ended."""
        changed = [
            [predicate, *(self.ids[entity] for entity in arguments), value] for (predicate, arguments), value in self._changed.items()
        ]
        return {
            "game": self.world.digest,
            "changed": changed,
            "numbers": None if self._numbers == self.world.numbers else list(self._numbers),
            "ended": None if self._ended is None else self._ended.observation,
        }

    def restore(self, state: Any) -> None:
        """Continue from a `state()` of the same game file; names come back as they were then.

        Raises:
            DataError: the state is of another game, or damaged; the game is left as it was.
        """
        changed, numbers, ended = self._checked(state)
        self.reset()
        self._number(numbers)
        for (predicate, arguments), value in changed.items():
            self._set(predicate, arguments, value)
        self._start()
        if ended is not None:
            self._ended = StepResult(ended, 1.0, True)

    # For experts and generators: what is where, whether or not the player has seen it.

    @property
    def goal(self) -> GoalSummary | None:
        """The goal in words, from its PDDL; None if it is not of an official form."""
        return self.world.goal.summary

    @property
    def receptacles(self) -> list[str]:
        """Names of all receptacles, in the order of the intro."""
        return [self.labels[receptacle] for receptacle in self.world.receptacles]

    @property
    def objects(self) -> list[str]:
        """Names of all objects that have a type, sorted by id."""
        return [self.labels[entity] for entity in sorted(self.facts.first["objecttype"])]

    def type_of(self, name: str) -> str:
        """Type of an object or receptacle, lower case, without the ending `type`: "mug". `KeyError` for an unknown name."""
        entity = self._entities[name]
        for predicate in ("objecttype", "receptacletype"):
            for kind in self.facts.first[predicate].get(entity, ()):
                return self.world.ids[kind].removesuffix("type")
        raise KeyError(name)

    def contents(self, receptacle: str) -> list[str]:
        """Names of the objects in a receptacle, open or not. `KeyError` for an unknown name."""
        return [self.labels[entity] for entity in self.facts.second["inreceptacle"].get(self._entities[receptacle], ())]

    def has(self, name: str, predicate: str) -> bool:
        """Whether a one-place predicate of the domain holds: `openable`, `opened`, `pickupable`, `ishot`, ... `KeyError` if unknown."""
        return self._entities[name] in self.facts.unary[predicate.lower()]

    def command(self, action: str, obj: str | None = None, receptacle: str | None = None) -> str:
        """The words for an action in this file's wording, admissible now or not: `command("PutObject", "mug 1", "shelf 2")`.

        `KeyError` for an unknown name or an action that the file's domain lacks.
        """
        return self._command(_Move(action.lower(), *(-1 if name is None else self._entities[name] for name in (obj, receptacle))))

    @property
    def held(self) -> str | None:
        """Name of the object in the player's hand."""
        return next((self.labels[entity] for entity in self._held()), None)

    @property
    def here(self) -> list[str]:
        """Names of the receptacles the player stands at."""
        return [self.labels[receptacle] for receptacle in self._at.get(self._location, ())]

    @property
    def walkthrough(self) -> tuple[str, ...] | None:
        """The file's own solution, in the file's own names; None where it has none."""
        return self.world.walkthrough

    # What `hiper.suites.alfworld.wording` reads.

    @property
    def ids(self) -> list[str]:
        """Entity -> its id in the file."""
        return self.world.ids

    @property
    def task_line(self) -> str:
        """The goal sentence with its lead-in."""
        return self.world.task_line

    # Inside.

    def _number(self, numbers: Sequence[int]) -> None:
        self._numbers = list(numbers)
        self.labels = self.world.labels(numbers)
        self._entities = {label: entity for entity, label in enumerate(self.labels)}
        self._commands: dict[_Move, str] = {}
        self._goto: dict[str, _Move] = {}

    def _start(self) -> None:
        """Forget what was derived from earlier facts."""
        self._location = self.facts.first["atlocation"][self.world.agent][0]
        self._won = self.world.goal.holds(self.facts)
        self._ended = None
        self._cache: dict[int, tuple[dict[str, _Move], list[str]]] = {}

    def _held(self) -> Sequence[int]:
        return self.facts.first["holds"].get(self.world.agent, ())

    def _options(self) -> tuple[dict[str, _Move], list[str]]:
        """What can be done here and now, by command and as a sorted list; kept per location until something there changes."""
        options = self._cache.get(self._location)
        if options is None:
            if not self._goto:
                moves = (_Move("gotolocation", receptacle=receptacle) for receptacle in self.world.receptacles)
                self._goto = {self._command(move): move for move in moves if "gotolocation" in self.world.domain.actions}
            moves_here = dict(self._goto)
            for receptacle in self._at.get(self._location, ()):
                moves_here.pop(self._command(_Move("gotolocation", receptacle=receptacle)), None)
            known = self.world.domain.actions
            for move in self._moves():
                if move.action in known:
                    moves_here.setdefault(self._command(move), move)
            options = self._cache[self._location] = moves_here, sorted(moves_here)
        return options

    def _moves(self) -> Iterator[_Move]:
        """Every applicable ground action but going elsewhere, including actions that the domain may lack."""
        unary, second = self.facts.unary, self.facts.second
        held = self._held()
        yield from (_Move("look"), _Move("inventory"), _Move("help"))
        yield from (_Move("examineobject", o) for o in held)
        for r in self._at.get(self._location, ()):
            yield _Move("examinereceptacle", receptacle=r)
            inside = second["inreceptacle"].get(r, ())
            openable, opened = r in unary["openable"], r in unary["opened"]
            if openable:
                yield _Move("closeobject" if opened else "openobject", receptacle=r)
            if opened or not openable:
                if self.world.agent not in unary["holdsany"]:
                    yield from (_Move("pickupobject", o, r) for o in inside if o in unary["pickupable"])
                yield from (_Move("putobject", o, r) for o in held if self._fit(o, r))
            yield from (_Move("toggleobject", o, r) for o in inside if o in unary["toggleable"])
            for action, ability, tools in self._tool_actions:
                if r in tools:
                    yield from (_Move(action, o, r) for o in held if o in unary[ability])
        for knife in (o for o in held if self._cuts(o)):
            beside = second["objectatlocation"].get(self._location, ())
            yield from (_Move("sliceobject", o, knife=knife) for o in beside if o in unary["sliceable"])

    def _fit(self, o: int, r: int) -> tuple[int, int] | None:
        """The first type of the object and type of the receptacle for which `canContain` holds."""
        first = self.facts.first
        for kind in first["objecttype"].get(o, ()):
            for place in first["receptacletype"].get(r, ()):
                if kind in first["cancontain"].get(place, ()):
                    return kind, place
        return None

    def _cuts(self, o: int) -> bool:
        knives = self.world.domain.tools.get("sliceobject", frozenset())
        return any(self.ids[kind] in knives for kind in self.facts.first["objecttype"].get(o, ()))

    def _command(self, move: _Move) -> str:
        command = self._commands.get(move)
        if command is None:
            command = self._commands[move] = self.world.wording.commands[move.action](self, self._bindings(move))
        return command

    def _bindings(self, move: _Move) -> dict[str, int]:
        """The action's parameters, under the names the domain gives them."""
        o, r = move.object, move.receptacle
        values = {"a": self.world.agent, "l": self._location, "o": o, "r": r}
        if move.action == "gotolocation":
            values |= {"lstart": self._location, "lend": self.world.receptacles[r]}
        elif move.action == "putobject":
            values["ot"], values["rt"] = self._fit(o, r) or (-1, -1)
        elif move.action == "sliceobject":
            values |= {"co": o, "ko": move.knife}
        return {name: values[name] for name in self.world.domain.actions[move.action]}

    def _play(self, move: _Move) -> str:
        """Apply an applicable action; the feedback."""
        bindings = self._bindings(move)
        action, o, r, _ = move
        a, here = self.world.agent, self._location
        match action:
            case "gotolocation":
                self._set("atlocation", (a, here), False)
                self._location = self.world.receptacles[r]
                self._set("atlocation", (a, self._location), True)
            case "openobject" | "closeobject":
                self._set("opened", (r,), action == "openobject")
                del self._cache[here]
            case "pickupobject" | "putobject":
                taken = action == "pickupobject"
                self._set("inreceptacle", (o, r), not taken)
                self._set("objectatlocation", (o, here), not taken)
                self._set("holds", (a, o), taken)
                self._set("holdsany", (a,), taken)
                self._cache.clear()
            case "cleanobject":
                self._set("isclean", (o,), True)
            case "heatobject" | "coolobject":
                self._set("ishot", (o,), action == "heatobject")
                self._set("iscool", (o,), action == "coolobject")
            case "toggleobject":
                self._set("istoggled", (o,), True)
            case "sliceobject":
                self._set("issliced", (o,), True)
        if action in self._deciding:
            self._won = self.world.goal.holds(self.facts)
        return self.world.wording.feedback[action](self, bindings)

    def _set(self, predicate: str, arguments: tuple[int, ...], value: bool) -> None:
        self._changed[predicate, arguments] = value
        self.facts.set(predicate, arguments, value)
        if predicate in NEGATABLE:
            self.facts.set(f"not_{predicate}", arguments, not value)

    def _checked(self, state: Any) -> tuple[dict[tuple[str, tuple[int, ...]], bool], list[int], str | None]:
        """The parts of a saved state, if it is one of this game."""
        if not isinstance(state, dict) or set(state) != {"game", "changed", "numbers", "ended"}:
            raise DataError(f"not the state of an ALFWorld game: {str(state)[:80]!r}; pass back what Game.state() returned")
        if state["game"] != self.world.digest:
            raise DataError(
                f"the state is of the game {state['game']!r}, but this game ({self.world.path}) is {self.world.digest!r}; "
                "load the game file it was taken from"
            )
        damaged = f"the state for {self.world.path} is damaged: "
        index = {name: entity for entity, name in enumerate(self.ids)}
        changed: dict[tuple[str, tuple[int, ...]], bool] = {}
        try:
            for predicate, *names, value in state["changed"]:
                kinds = self.world.domain.predicates[predicate]
                entities = tuple(index[name] for name in names)
                if predicate not in DYNAMIC or tuple(self.world.types[e] for e in entities) != kinds or not isinstance(value, bool):
                    raise DataError(damaged + f"{[predicate, *names, value]} is no change that a command makes")
                changed[predicate, entities] = value
        except (TypeError, ValueError, KeyError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(damaged + f"{str(state['changed'])[:80]!r} is no list of [predicate, entity, ..., true or false]") from error
        numbers = self.world.numbers if state["numbers"] is None else state["numbers"]
        if not isinstance(numbers, list) or len(numbers) != len(self.ids) or not all(type(number) is int for number in numbers):
            raise DataError(damaged + f"{str(numbers)[:80]!r} is no list of {len(self.ids)} numbers")
        if sorted(zip(self.world.bases, numbers, strict=True)) != sorted(zip(self.world.bases, self.world.numbers, strict=True)):
            raise DataError(damaged + "its numbers of names are not those of this game in another order")
        if state["ended"] is not None and not isinstance(state["ended"], str):
            raise DataError(damaged + f"'ended' is {state['ended']!r}; the last observation or null belongs there")
        start = self.world.facts.first["atlocation"][self.world.agent][0]
        places: dict[tuple[str, tuple[int, ...]], bool] = {("atlocation", (self.world.agent, start)): True}
        places |= {key: value for key, value in changed.items() if key[0] == "atlocation"}
        if sum(places.values()) != 1:
            raise DataError(damaged + f"the player stands at {sum(places.values())} places")
        return changed, numbers, state["ended"]
