"""The goal of a game: clauses that must all hold, each an existential conjunction."""

from __future__ import annotations

from typing import NamedTuple

from hiper.errors import TaskError
from hiper.suites.alfworld import pddl
from hiper.suites.alfworld.domain import DYNAMIC, INSTEAD, UNTRACKED, Domain
from hiper.suites.alfworld.facts import Facts
from hiper.suites.alfworld.pddl import SExpr
from hiper.suites.alfworld.query import DIFFERENT, Bindings, Literal, Solve, compile_query

CONDITIONS = {"isclean": "clean", "ishot": "hot", "iscool": "cool", "issliced": "sliced"}


class GoalSummary(NamedTuple):
    """What the official goals say, in words; types are the entity types of the file without their `type` ending, lower case."""

    object_type: str
    """What to fetch: "mug"."""
    receptacle_type: str | None
    """Where to put it: "cabinet"; None where it is to be held by the light."""
    conditions: tuple[str, ...]
    """"clean", "hot", "cool", "sliced": what it must be by then."""
    copies: int
    """How many of it: two for `pick_two_obj_and_place`."""
    light_type: str | None
    """What must be switched on where the player stands: "desklamp"."""


class Goal(NamedTuple):
    """A goal ready to be tested."""

    clauses: tuple[Solve, ...]
    constants: Bindings
    predicates: frozenset[str]
    """The changing predicates it depends on: while none of them changes, neither does its truth."""
    summary: GoalSummary | None
    """None if the goal is not of an official form."""

    def holds(self, facts: Facts) -> bool:
        """Whether every clause has a solution now."""
        return all(any(True for _ in clause(facts, self.constants)) for clause in self.clauses)


def read_goal(expr: SExpr, entities: dict[str, int], domain: Domain) -> Goal:
    """Compile the expression after `(:goal`.

    Args:
        expr: conjunctions and existential quantifiers over positive literals and `(not (= ?a ?b))`.
        entities: id -> number; an id that no fact mentions satisfies no literal.
        domain: for the predicates and their types.

    Raises:
        TaskError: another connective, an unknown predicate or variable, named.
    """
    reader = _Reader(domain)
    reader.read(expr, {}, None)
    constants = {f"={name}": entities.get(name, -1) for name in reader.constants}
    used = {literal.predicate for clause in reader.clauses for literal in clause}
    return Goal(
        clauses=tuple(compile_query(_ordered(clause, set(constants)), frozenset(constants), distinct=False) for clause in reader.clauses),
        constants=constants,
        predicates=frozenset(used & DYNAMIC),
        summary=_summarise(reader.clauses),
    )


class _Reader:
    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.clauses: list[list[Literal]] = []
        self.constants: set[str] = set()
        self.variables = 0

    def read(self, expr: SExpr, scope: dict[str, str], clause: list[Literal] | None) -> None:
        """Add `expr` to `clause`, or to a clause of its own if it stands outside every quantifier."""
        match expr:
            case ["and", *parts]:
                for part in parts:
                    self.read(part, scope, clause)
            case ["exists", list(declared), body]:
                if clause is None:
                    clause = []
                    self.clauses.append(clause)
                inner = dict(scope)
                for variable, _ in pddl.typed(declared, "a quantifier of the goal"):
                    self.variables += 1
                    inner[variable] = f"{variable}{self.variables}"  # a name of its own: an inner variable may hide an outer one
                self.read(body, inner, clause)
            case ["not", ["=", str(a), str(b)]]:
                self.add(Literal(DIFFERENT, (self.term(a, scope), self.term(b, scope))), clause)
            case [str(predicate), *arguments] if predicate in self.domain.predicates and predicate not in UNTRACKED:
                if len(arguments) != len(self.domain.predicates[predicate]):
                    raise TaskError(f"the goal applies {predicate!r} to {len(arguments)} arguments")
                self.add(Literal(predicate, tuple(self.term(argument, scope) for argument in arguments)), clause)
            case _:
                raise TaskError(f"the goal holds {pddl.write(expr)[:80]!r}, which this engine does not know; {INSTEAD}")

    def add(self, literal: Literal, clause: list[Literal] | None) -> None:
        if clause is None:
            self.clauses.append([literal])
        else:
            clause.append(literal)

    def term(self, word: SExpr, scope: dict[str, str]) -> str:
        if not isinstance(word, str):
            raise TaskError(f"the goal holds {pddl.write(word)[:80]!r} where a name belongs")
        if not word.startswith("?"):
            self.constants.add(word)
            return f"={word}"
        if word not in scope:
            raise TaskError(f"the goal uses the variable {word!r} outside its quantifier")
        return scope[word]


def _ordered(clause: list[Literal], bound: set[str]) -> list[Literal]:
    """`clause` with the cheapest literal first at each point: fewest new variables, then those that change, inequalities last."""
    waiting, ordered, known = list(clause), [], set(bound)

    def cost(literal: Literal) -> tuple[int, bool]:
        new = sum(variable not in known for variable in set(literal.variables))
        return (new if literal.predicate != DIFFERENT or not new else 99), literal.predicate not in DYNAMIC

    while waiting:
        best = min(waiting, key=cost)
        waiting.remove(best)
        ordered.append(best)
        known.update(best.variables)
    return ordered


def _summarise(clauses: list[list[Literal]]) -> GoalSummary | None:
    literals = [literal for clause in clauses for literal in clause]
    types = {
        literal.variables[0]: literal.variables[1].removeprefix("=").removesuffix("type")
        for literal in literals
        if literal.predicate in ("objecttype", "receptacletype")
    }
    lights = {literal.variables[0] for literal in literals if literal.predicate == "istoggled"}
    placed = {literal.variables for literal in literals if literal.predicate == "inreceptacle" and literal.variables[0] not in lights}
    held = {literal.variables[1] for literal in literals if literal.predicate == "holds"}
    wanted = held | {variables[0] for variables in placed}
    targets = {types.get(variables[1]) for variables in placed}
    kinds = {types.get(variable) for variable in wanted}
    if len(kinds) != 1 or None in kinds | targets or len(targets) > 1 or (held and placed) or len(lights) > 1:
        return None
    return GoalSummary(
        object_type=kinds.pop() or "",
        receptacle_type=targets.pop() if targets else None,
        conditions=tuple(sorted({CONDITIONS[literal.predicate] for literal in literals if literal.predicate in CONDITIONS})),
        copies=len(wanted),
        light_type=types.get(lights.pop()) if lights else None,
    )
