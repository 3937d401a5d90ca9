"""From JSON to values of a declared type, everything checked: damage is refused where it is read, not where it is first used.

The one such reader, for files and for messages between processes. Nothing but values of the declared type is built: unlike a pickle, JSON
cannot name code to run. A type is `str`, `int`, `float` (which, as for type checkers, includes `int`; an int stays one), `bool`, `None`,
`Path`, an enum (by its value), a dataclass, `list[T]`, `tuple[T, ...]`, `tuple[T, U]`, a mapping with `str` for keys, a union of these or
`Any`; in a message a NamedTuple, too.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from hiper.errors import DataError

T = TypeVar("T")

Kind = Any
"""A type as above. Type checkers have no name for all of them: `int | None` is not a `type`."""

NUMBER, TUPLE = "float", "tuple"
"""Keys of marks: `{"float": "7ff8000000000000"}` is a float that JSON lacks, by its eight bytes, `{"tuple": 0}` a tuple of the message."""


LOCAL = MappingProxyType({"local": True})
"""Metadata of a dataclass's field that stays in its process: it is not written, and read as its default."""


@dataclass(slots=True)
class Marks:
    """What may stand in a message where JSON has no word for a value."""

    tuples: list[Any]
    """The fields of its NamedTuples."""
    count: int
    """How many of them may be referred to: all, or in one of them the earlier ones, so that no message can go round in a circle."""
    built: dict[tuple[int, Kind], Any] = field(default_factory=dict)
    """Index and type -> the tuple."""

    def number(self, value: Any) -> float | None:
        """The float of a mark; None: it is not one of an infinity or NaN."""
        if type(value) is not dict or value.keys() != {NUMBER} or type(value[NUMBER]) is not str:
            return None
        try:
            (number,) = struct.unpack(">d", bytes.fromhex(value[NUMBER]))
        except (ValueError, struct.error):
            return None
        return None if math.isfinite(number) else number

    def index(self, value: Any) -> int | None:
        """The index of a mark; None: it is not one of a tuple."""
        index = value[TUPLE] if type(value) is dict and value.keys() == {TUPLE} else None
        return index if type(index) is int and 0 <= index < self.count else None


Read = Callable[[Any, Marks | None], Any]
"""Turns a JSON value into one of a type; raises `_Odd` where it cannot. Marks: a message's; a file has none."""


class _Odd(Exception):
    """A value of the wrong kind: what was expected, and where in the record, from the inside out."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.place: list[str] = []

    def inside(self, place: str) -> _Odd:
        self.place.append(place)
        return self

    def __str__(self) -> str:
        place = "".join(reversed(self.place)).removeprefix(".")
        return f"{place or 'it'} must be {self.args[0]}"


def read_record(kind: type[T], value: Any, where: str) -> T:
    """A dataclass from the object that JSON makes of it.

    Args:
        kind: the dataclass.
        value: what was parsed.
        where: what errors call the place it is from.

    Raises:
        DataError: a field is missing, unknown or of the wrong type; the message names the place and the field.
    """
    found: T = read_value(kind, value, where)
    return found


def read_value(hint: Kind, value: Any, where: str, marks: Marks | None = None) -> Any:
    """As `read_record`, for any type, such as `list[str]`; `marks` are those of a message.

    Raises:
        DataError: the value is not of that type.
        TypeError: no type of this reader.
    """
    try:
        return _reader(hint)(value, marks)
    except _Odd as error:
        raise DataError(f"{where}: {error}.") from None


@cache
def _reader(hint: Kind) -> Read:
    origin: Any = get_origin(hint)
    arguments = get_args(hint)
    if hint is Any:
        return lambda value, marks: value
    if hint in _SCALARS:
        return _SCALARS[hint]
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin is list:
        return _list(_reader(arguments[0]))
    if origin is tuple:
        return _tuple_of(_reader(arguments[0])) if arguments[1:] == (...,) else _tuple([_reader(one) for one in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping) and arguments[0] is str:
        return _mapping(_reader(arguments[1]))
    if is_dataclass(hint):
        return _dataclass(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum(hint)
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        return _named_tuple(hint)
    raise TypeError(f"nothing of type {hint} can be read from JSON; see hiper.runtime.records for what can.")


def _text(value: Any, marks: Marks | None) -> Any:
    if type(value) is not str:
        raise _Odd("text")
    return value


def _whole(value: Any, marks: Marks | None) -> Any:
    if type(value) is not int:
        raise _Odd("a whole number")
    return value


def _number(value: Any, marks: Marks | None) -> Any:
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return value
    if marks is not None and (number := marks.number(value)) is not None:
        return number
    raise _Odd("a number")


def _truth(value: Any, marks: Marks | None) -> Any:
    if type(value) is not bool:
        raise _Odd("true or false")
    return value


def _none(value: Any, marks: Marks | None) -> Any:
    if value is not None:
        raise _Odd("null")
    return value


def _path(value: Any, marks: Marks | None) -> Any:
    return Path(_text(value, marks))


_SCALARS: dict[Kind, Read] = {str: _text, int: _whole, float: _number, bool: _truth, NoneType: _none, Path: _path}
_EXACT: dict[Read, type] = {_text: str, _whole: int, _truth: bool}
"""Readers that take the values of one type as they are: lists of commands and of tokens are long and many."""


def _union(kinds: tuple[Kind, ...]) -> Read:
    options = [_reader(kind) for kind in kinds]

    def read(value: Any, marks: Marks | None) -> Any:
        if value is None and NoneType in kinds:
            return None
        odd: list[_Odd] = []
        for option in options:
            try:
                return option(value, marks)
            except _Odd as error:
                odd.append(error)
        deepest = max(odd, key=lambda error: len(error.place))
        raise deepest if deepest.place else _Odd(" or ".join(str(error.args[0]) for error in odd))

    return read


def _list(item: Read) -> Read:
    def read(value: Any, marks: Marks | None) -> Any:
        if type(value) is not list:
            raise _Odd("a list")
        if item in _EXACT and set(map(type, value)) <= {_EXACT[item]}:
            return value
        if item is _number and set(map(type, value)) <= {float, int} and all(map(math.isfinite, value)):
            return value
        found: list[Any] = []
        try:
            for one in value:
                found.append(item(one, marks))
        except _Odd as error:
            raise error.inside(f"[{len(found)}]") from None
        return found

    return read


def _tuple_of(item: Read) -> Read:
    each = _list(item)
    return lambda value, marks: tuple(each(value, marks))


def _tuple(items: list[Read]) -> Read:
    def read(value: Any, marks: Marks | None) -> Any:
        if type(value) is not list or len(value) != len(items):
            raise _Odd(f"a list of {len(items)}")
        return tuple(item(one, marks) for item, one in zip(items, value, strict=True))

    return read


def _mapping(item: Read) -> Read:
    def read(value: Any, marks: Marks | None) -> Any:
        if type(value) is not dict:
            raise _Odd("an object")
        found = {}
        for key, one in value.items():
            try:
                found[key] = item(one, marks)
            except _Odd as error:
                raise error.inside(f".{key}"[:80]) from None
        return found

    return read


def _enum(kind: type[Enum]) -> Read:
    def read(value: Any, marks: Marks | None) -> Any:
        try:
            return kind(value)
        except ValueError:
            raise _Odd("one of " + ", ".join(str(member.value) for member in kind)) from None

    return read


def _dataclass(kind: Any) -> Read:
    hints = get_type_hints(kind)
    sent = [entry for entry in fields(kind) if entry.metadata != LOCAL]
    readers = {entry.name: _reader(hints[entry.name]) for entry in sent}
    needed = {entry.name for entry in sent if entry.default is MISSING and entry.default_factory is MISSING}

    def read(value: Any, marks: Marks | None) -> Any:
        if type(value) is not dict:
            raise _Odd("an object")
        if not needed <= value.keys():
            raise _Odd("there").inside(f".{min(needed - value.keys())}")
        found = {}
        for key, one in value.items():
            if key not in readers:
                raise _Odd("nothing this version knows").inside(f".{key}"[:80])
            try:
                found[key] = readers[key](one, marks)
            except _Odd as error:
                raise error.inside(f".{key}") from None
        return kind(**found)

    return read


def _named_tuple(kind: Any) -> Read:
    hints = get_type_hints(kind)
    readers = [_reader(hints[name]) for name in kind._fields]

    def read(value: Any, marks: Marks | None) -> Any:
        index = None if marks is None else marks.index(value)
        if marks is None or index is None:
            raise _Odd(f"the index of an earlier {kind.__name__}")
        known = marks.built.get((index, kind))
        if known is None:
            items = marks.tuples[index]
            if type(items) is not list or len(items) != len(readers):
                raise _Odd(f"the fields of {kind.__name__}")
            earlier = Marks(marks.tuples, index, marks.built)
            known = marks.built[index, kind] = kind(*(reader(item, earlier) for reader, item in zip(readers, items, strict=True)))
        return known

    return read
