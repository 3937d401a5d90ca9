"""Remembering what has been computed, within a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

MOST = 32 << 20
"""Bytes a memory may take, if nothing else is said."""


class Remember(Generic[K, V]):
    """Values of a function that are kept; those not asked for longest are forgotten when all together have become too large.

    The function is handed in with each call: stored, a method of the object that has this would make a circle of references, which lives on
    after its last use.
    """

    def __init__(self, size: Callable[[K, V], int], most: int = MOST) -> None:
        """Begin with nothing.

        Args:
            size: of a key with its value, in bytes, roughly.
            most: bytes that are kept. A value that is larger by itself is not.
        """
        self._size, self._most = size, most
        self._known: OrderedDict[K, V] = OrderedDict()
        self.bytes = 0
        """What is kept now."""

    def __call__(self, key: K, make: Callable[[K], V]) -> V:
        """The value of a key: what is kept, or what the function makes of it; the same key always has to give an equal value."""
        known = self._known
        if key in known:
            known.move_to_end(key)
            return known[key]
        value = make(key)
        size = self._size(key, value)
        if size <= self._most:
            known[key] = value
            self.bytes += size
            while self.bytes > self._most:
                self.bytes -= self._size(*known.popitem(last=False))
        return value

    def __len__(self) -> int:
        return len(self._known)


def size_of(text: str | None = None, numbers: int = 0, objects: int = 1) -> int:
    """Bytes of a text, of numbers in a tuple or list, and of the objects around them, roughly."""
    return 100 * objects + (4 * len(text) if text is not None else 0) + 36 * numbers
