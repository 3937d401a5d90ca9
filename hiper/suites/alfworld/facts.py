"""What is true in a game now, indexed the way commands and wording ask."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable


class Facts:
    """Facts of one and of two arguments, entities being whole numbers whose order is the order of their ids.

    Every list is sorted, because the original engine lists facts sorted by the ids of their arguments.
    """

    __slots__ = ("first", "second", "unary")

    def __init__(self) -> None:
        self.unary: dict[str, set[int]] = {}
        """Predicate -> the entities it holds of."""
        self.first: dict[str, dict[int, list[int]]] = {}
        """Predicate -> first argument -> the second arguments, ascending."""
        self.second: dict[str, dict[int, list[int]]] = {}
        """Predicate -> second argument -> the first arguments, ascending."""

    def copy(self, own: Iterable[str]) -> Facts:
        """A copy that owns the predicates `own` and shares the rest, which nobody changes."""
        copy = Facts()
        copy.unary, copy.first, copy.second = dict(self.unary), dict(self.first), dict(self.second)
        for predicate in own:
            if predicate in copy.unary:
                copy.unary[predicate] = set(copy.unary[predicate])
            for table in (copy.first, copy.second):
                if predicate in table:
                    table[predicate] = {key: list(values) for key, values in table[predicate].items()}
        return copy

    def declare(self, predicate: str, arity: int) -> None:
        """Make room for `predicate`, so that asking for it needs no check."""
        if arity == 1:
            self.unary.setdefault(predicate, set())
        else:
            self.first.setdefault(predicate, {})
            self.second.setdefault(predicate, {})

    def set(self, predicate: str, arguments: tuple[int, ...], value: bool) -> None:
        """Make a fact true or false; it may be so already."""
        if len(arguments) == 1:
            if value:
                self.unary[predicate].add(arguments[0])
            else:
                self.unary[predicate].discard(arguments[0])
            return
        a, b = arguments
        forward = self.first[predicate].setdefault(a, [])
        if (b in forward) == value:
            return
        backward = self.second[predicate].setdefault(b, [])
        if value:
            insort(forward, b)
            insort(backward, a)
        else:
            forward.remove(b)
            backward.remove(a)

    def holds(self, predicate: str, arguments: tuple[int, ...]) -> bool:
        """Whether the fact is true."""
        if len(arguments) == 1:
            return arguments[0] in self.unary[predicate]
        return arguments[1] in self.first[predicate].get(arguments[0], ())
