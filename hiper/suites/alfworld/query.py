"""Conjunctive queries over facts: the conditions in a game's wording, and its goal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from hiper.suites.alfworld.facts import Facts

Bindings: TypeAlias = dict[str, int]
"""Variable -> entity."""
Solve: TypeAlias = Callable[[Facts, Bindings], Iterator[Bindings]]

DIFFERENT = "!="
"""The predicate of a literal whose two variables must stand for different entities."""


class Literal(NamedTuple):
    """A predicate applied to variables."""

    predicate: str
    variables: tuple[str, ...]


def compile_query(literals: Sequence[Literal], bound: frozenset[str], *, distinct: bool) -> Solve:
    """A function that yields every extension of its bindings that makes all `literals` true.

    The order is that of `textworld.logic.State.all_assignments`: depth first, literals as written, the facts of each sorted
    by argument.

    Args:
        literals: the conjunction. A `DIFFERENT` literal stands after those that bind its variables.
        bound: variables that the bindings passed in will hold.
        distinct: a new variable never takes an entity that another variable holds (wording; PDDL goals allow it).
    """
    solve: Solve = _once
    known = set(bound)
    plan: list[tuple[Literal, bool]] = []
    for literal in literals:
        plan.append((literal, known.issuperset(literal.variables)))
        known.update(literal.variables)
    for literal, closed in reversed(plan):
        solve = _check(literal, solve) if closed else _extend(literal, solve, distinct)
    return solve


def _once(facts: Facts, env: Bindings) -> Iterator[Bindings]:
    yield env


def _check(literal: Literal, rest: Solve) -> Solve:
    """Go on with `rest` if the literal, all of whose variables are bound, is true."""
    predicate, variables = literal

    def solve(facts: Facts, env: Bindings) -> Iterator[Bindings]:
        values = tuple([env[variable] for variable in variables])
        if values[0] != values[1] if predicate == DIFFERENT else facts.holds(predicate, values):
            yield from rest(facts, env)

    return solve


def _extend(literal: Literal, rest: Solve, distinct: bool) -> Solve:
    """Go on with `rest` for every true fact that agrees with the bindings so far."""
    predicate, variables = literal

    def solve(facts: Facts, env: Bindings) -> Iterator[Bindings]:
        for values in _matches(facts, predicate, variables, env):
            new = dict(zip(variables, values, strict=True))
            if distinct and any(value in env.values() for variable, value in new.items() if variable not in env):
                continue
            yield from rest(facts, env | new)

    return solve


def _matches(facts: Facts, predicate: str, variables: tuple[str, ...], env: Bindings) -> Iterator[tuple[int, ...]]:
    """Argument tuples of the true facts that agree with `env`, ascending."""
    if len(variables) == 1:
        yield from ((value,) for value in sorted(facts.unary[predicate]))
        return
    a, b = (env.get(variable) for variable in variables)
    if a is not None:
        yield from ((a, value) for value in facts.first[predicate].get(a, ()))
    elif b is not None:
        yield from ((value, b) for value in facts.second[predicate].get(b, ()))
    else:
        same = variables[0] == variables[1]
        table = facts.first[predicate]
        yield from ((key, value) for key in sorted(table) for value in table[key] if not same or key == value)
