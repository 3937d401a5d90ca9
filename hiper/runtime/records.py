"""From JSON values to dataclasses, every field's type checked: a damaged file is refused where it is read, not where it is first used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from hiper.errors import DataError

T = TypeVar("T")

Read = Callable[[Any], Any]
"""Turns a JSON value into one of a type; raises `_Odd` where it cannot."""


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

    Fields may be text, numbers (finite), truth values, None, enums by their value, lists, tuples, mappings with text for keys,
    dataclasses, and unions of these.

    Args:
        kind: the dataclass.
        value: what was parsed.
        where: what errors call the place it is from.

    Raises:
        DataError: a field is missing, unknown or of the wrong type; the message names the place and the field.
    """
    found: T = read_value(kind, value, where)
    return found


def read_value(hint: Any, value: Any, where: str) -> Any:
    """As `read_record`, for any type its fields may have, such as `list[str]`."""
    try:
        return _reader(hint)(value)
    except _Odd as error:
        raise DataError(f"{where}: {error}.") from None


@cache
def _reader(hint: Any) -> Read:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin in (Union, UnionType):
        return _union([_reader(one) for one in arguments])
    if origin is list:
        return _list(_reader(arguments[0]))
    if origin is tuple:
        return _tuple([_reader(one) for one in arguments])
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_reader(arguments[1]))
    if is_dataclass(hint):
        return _dataclass(hint)
    if issubclass(hint, Enum):
        return _enum(hint)
    return _SCALARS[hint]


def _text(value: Any) -> Any:
    if type(value) is not str:
        raise _Odd("text")
    return value


def _whole(value: Any) -> Any:
    if type(value) is not int:
        raise _Odd("a whole number")
    return value


def _number(value: Any) -> Any:
    if type(value) not in (float, int) or not math.isfinite(value):
        raise _Odd("a number")
    return value


def _truth(value: Any) -> Any:
    if type(value) is not bool:
        raise _Odd("true or false")
    return value


def _none(value: Any) -> Any:
    if value is not None:
        raise _Odd("null")
    return value


_SCALARS: dict[Any, Read] = {str: _text, int: _whole, float: _number, bool: _truth, NoneType: _none}


def _union(options: list[Read]) -> Read:
    def read(value: Any) -> Any:
        odd: list[_Odd] = []
        for option in options:
            try:
                return option(value)
            except _Odd as error:
                odd.append(error)
        deepest = max(odd, key=lambda error: len(error.place))
        raise deepest if deepest.place else _Odd(" or ".join(str(error.args[0]) for error in odd))

    return read


def _list(item: Read) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not list:
            raise _Odd("a list")
        if item is _text and set(map(type, value)) <= {str}:  # lists of commands are long and many
            return value
        found: list[Any] = []
        try:
            for one in value:
                found.append(item(one))
        except _Odd as error:
            raise error.inside(f"[{len(found)}]") from None
        return found

    return read


def _tuple(items: list[Read]) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(items):
            raise _Odd(f"a list of {len(items)}")
        return tuple(item(one) for item, one in zip(items, value, strict=True))

    return read


def _mapping(item: Read) -> Read:
    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _Odd("an object")
        found = {}
        for key, one in value.items():
            try:
                found[key] = item(one)
            except _Odd as error:
                raise error.inside(f".{key}"[:80]) from None
        return found

    return read


def _enum(kind: type[Enum]) -> Read:
    def read(value: Any) -> Any:
        try:
            return kind(value)
        except ValueError:
            raise _Odd("one of " + ", ".join(str(member.value) for member in kind)) from None

    return read


def _dataclass(kind: Any) -> Read:
    hints = get_type_hints(kind)
    readers = {entry.name: _reader(hints[entry.name]) for entry in fields(kind)}
    needed = {entry.name for entry in fields(kind) if entry.default is MISSING and entry.default_factory is MISSING}

    def read(value: Any) -> Any:
        if type(value) is not dict:
            raise _Odd("an object")
        if not needed <= value.keys():
            raise _Odd("there").inside(f".{min(needed - value.keys())}")
        found = {}
        for key, one in value.items():
            if key not in readers:
                raise _Odd("nothing this version knows").inside(f".{key}"[:80])
            try:
                found[key] = readers[key](one)
            except _Odd as error:
                raise error.inside(f".{key}") from None
        return kind(**found)

    return read
