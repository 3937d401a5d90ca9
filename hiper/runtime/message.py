"""Messages between processes: JSON that gives values back exact to the bit.

`hiper.runtime.records` reads them and says what types they hold. A member of an enum is sent as its value, and arrives as plain text or a
plain number where the type is `str` or `int`, and so equal.

A message is `[tuples, value]`. NamedTuples are immutable, so one that a value refers to in several places (`AllowedTokens`, of which
thousands of tokens share a few) is written once, in `tuples`, and referred to by a mark; once read it is shared again. Infinities and NaNs,
which JSON lacks, are marks with their eight bytes: see `hiper.runtime.records.Marks`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn

from hiper.errors import DataError
from hiper.runtime.records import LOCAL, NUMBER, TUPLE, Kind, Marks, read_value

_PLAIN = frozenset({str, int, bool, NoneType})
"""Types whose values JSON has."""


def encode(value: object) -> bytes:
    """A value as a message; `decode` with its type gives it back.

    Raises:
        TypeError: it holds something that messages cannot.
    """
    writer = _Writer()
    body = writer.write(value)
    # Not ASCII: two lone surrogates in a row, escaped, would be read as one character.
    return json.dumps([writer.tuples, body], ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def decode(data: bytes, kind: Kind, where: str) -> Any:
    """The value of a message.

    Args:
        data: the message.
        kind: the type of the value.
        where: what errors call the place it is from.

    Raises:
        DataError: it is not a message of that type.
        TypeError: no type of `hiper.runtime.records`.
    """
    try:
        whole = json.loads(data.decode("utf-8", "surrogatepass"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not a message: {error}.") from error
    if type(whole) is not list or len(whole) != 2 or type(whole[0]) is not list:
        raise DataError(f"{where} is not a message: it must be a list of two, the first of them a list.")
    tuples, body = whole
    return read_value(kind, body, f"{where} is not a message of the type expected there", Marks(tuples, len(tuples)))


class _Writer:
    """Turns values into JSON."""

    def __init__(self) -> None:
        self.tuples: list[Any] = []
        self._indices: dict[int, int] = {}
        """`id` of a NamedTuple -> its index."""

    def write(self, value: Any) -> Any:
        """The JSON of a value."""
        if type(value) in _PLAIN:
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else {NUMBER: struct.pack(">d", value).hex()}
        if isinstance(value, Enum):
            return self.write(value.value)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {TUPLE: self._index(value)}
        if isinstance(value, (list, tuple)):
            kinds = set(map(type, value))
            plain = kinds <= _PLAIN or (kinds == {float} and all(map(math.isfinite, value)))
            return list(value) if plain else [self.write(item) for item in value]
        if isinstance(value, dict) and set(map(type, value)) <= {str}:
            return {key: self.write(item) for key, item in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            sent = (field.name for field in dataclasses.fields(value) if field.metadata != LOCAL)
            return {name: self.write(getattr(value, name)) for name in sent}
        if isinstance(value, Path):
            return str(value)
        raise TypeError(f"messages cannot hold {value!r:.80} of type {type(value).__name__}; see hiper.runtime.message for what they can.")

    def _index(self, value: tuple[Any, ...]) -> int:
        if id(value) not in self._indices:
            written = [self.write(item) for item in value]
            self._indices[id(value)] = len(self.tuples)
            self.tuples.append(written)
        return self._indices[id(value)]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
