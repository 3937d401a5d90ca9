"""Messages between processes: JSON whose form is a declared type, exact to the bit.

Decoding builds values of the declared type and nothing else: unlike a pickle, a message cannot name code to run. A type is `int`, `float`
(which, as for type checkers, includes `int`), `bool`, `str`, `Path`, an enum, a dataclass or NamedTuple of such types, or one of
`T | None`, `list[T]`, `tuple[T, ...]` and `dict[str, T]`. A member of an enum arrives as a plain number or text where the type is `int` or
`str`, and so equal.

A message is `[tuples, value]`. NamedTuples are immutable, so one that a value refers to in several places (`AllowedTokens`, of which
thousands of tokens share a few) is written once, in `tuples`, and referred to by its index; once decoded it is shared again. Infinities and
NaNs, which JSON lacks, are their eight bytes in hexadecimal.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import types
from collections.abc import Callable
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self, Union, get_args, get_origin, get_type_hints

from hiper.errors import DataError

Kind = Any
"""A type as above. Type checkers have no name for all of them: `int | None` is not a `type`."""


def encode(value: object, kind: Kind) -> bytes:
    """A value as a message; `decode` with the same type gives it back.

    Raises:
        TypeError: the value is not of that type.
    """
    memo = _Memo()
    try:
        body = _codec(kind).write(value, memo)
    except _Unfit as error:
        raise TypeError(f"a message of {kind}: {error}") from error
    # Not ASCII: two lone surrogates in a row, escaped, would be read as one character.
    return json.dumps([memo.tuples, body], ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def decode(data: bytes, kind: Kind, where: str) -> Any:
    """The value of a message.

    Args:
        data: the message.
        kind: the type it was encoded as.
        where: what errors call the place it is from.

    Raises:
        DataError: it is not a message of that type.
    """
    try:
        whole = json.loads(data.decode("utf-8", "surrogatepass"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not a message: {error}.") from error
    if type(whole) is not list or len(whole) != 2 or type(whole[0]) is not list:
        raise DataError(f"{where} is not a message: it must be a list of two, the first of them a list.")
    tuples, body = whole
    try:
        return _codec(kind).read(body, _Memo(tuples, len(tuples)))
    except _Unfit as error:
        raise DataError(f"{where} is not a message of the type expected there: {error}.") from error


class _Unfit(Exception):
    """A value that is not of the declared type."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.place = ""

    def within(self, place: str) -> Self:
        """The same, seen from the value around it."""
        self.place = place + self.place
        return self

    def __str__(self) -> str:
        return f"{self.reason} at {self.place}" if self.place else self.reason


@dataclasses.dataclass(slots=True)
class _Memo:
    """The NamedTuples of a message."""

    tuples: list[Any] = dataclasses.field(default_factory=list)
    """As JSON."""
    below: int = 0
    """Decoding: indices must be below it. One tuple refers to earlier ones only, so that no message can go round in a circle."""
    indices: dict[int, int] = dataclasses.field(default_factory=dict)
    """Encoding: `id` of a tuple -> its index."""
    built: dict[tuple[int, Kind], Any] = dataclasses.field(default_factory=dict)
    """Decoding: index and type -> the tuple."""


class _Codec(NamedTuple):
    """Both directions of a type."""

    write: Callable[[Any, _Memo], Any]
    """Value -> JSON."""
    read: Callable[[Any, _Memo], Any]
    """JSON -> value."""


@cache
def _codec(kind: Kind) -> _Codec:
    if kind in _PLAIN:
        return _PLAIN[kind]
    origin: Any = get_origin(kind)
    arguments = get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not types.NoneType]
        if len(inner) == 1 and len(arguments) == 2:
            return _optional(_codec(inner[0]))
    elif origin is list:
        return _sequence(list, _codec(arguments[0]))
    elif origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _sequence(tuple, _codec(arguments[0]))
    elif origin is dict and arguments[0] is str:
        return _mapping(_codec(arguments[1]))
    elif isinstance(kind, type):
        if issubclass(kind, Enum):
            return _enum(kind)
        if dataclasses.is_dataclass(kind):
            return _record(kind)
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return _named_tuple(kind)
    raise TypeError(f"messages cannot hold {kind}; see hiper.runtime.message for what they can.")


def _expect(kind: str, value: object) -> NoReturn:
    raise _Unfit(f"{type(value).__name__} where {kind} is expected")


def _write_integer(value: Any, memo: _Memo) -> Any:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else _expect("int", value)


def _read_integer(value: Any, memo: _Memo) -> Any:
    return value if type(value) is int else _expect("int", value)


def _write_float(value: Any, memo: _Memo) -> Any:
    if not isinstance(value, (float, int)) or isinstance(value, bool):
        _expect("float", value)
    return struct.pack(">d", value).hex() if isinstance(value, float) and not math.isfinite(value) else value


def _read_float(value: Any, memo: _Memo) -> Any:
    if type(value) is str:
        try:
            (number,) = struct.unpack(">d", bytes.fromhex(value))
        except (ValueError, struct.error):
            _expect("float", value)
    elif type(value) in (float, int):
        number = value
    else:
        _expect("float", value)
    if (type(value) is str) == (type(number) is float and not math.isfinite(number)):
        return number
    raise _Unfit("a number in the wrong notation, or too large,")


def _write_bool(value: Any, memo: _Memo) -> Any:
    return value if type(value) is bool else _expect("bool", value)


def _write_text(value: Any, memo: _Memo) -> Any:
    return str(value) if isinstance(value, str) else _expect("str", value)


def _read_text(value: Any, memo: _Memo) -> Any:
    return value if type(value) is str else _expect("str", value)


def _write_path(value: Any, memo: _Memo) -> Any:
    return str(value) if isinstance(value, Path) else _expect("Path", value)


def _read_path(value: Any, memo: _Memo) -> Any:
    return Path(_read_text(value, memo))


_PLAIN = {
    int: _Codec(_write_integer, _read_integer),
    float: _Codec(_write_float, _read_float),
    bool: _Codec(_write_bool, _write_bool),
    str: _Codec(_write_text, _read_text),
    Path: _Codec(_write_path, _read_path),
}


def _optional(inner: _Codec) -> _Codec:
    def write(value: Any, memo: _Memo) -> Any:
        return None if value is None else inner.write(value, memo)

    def read(value: Any, memo: _Memo) -> Any:
        return None if value is None else inner.read(value, memo)

    return _Codec(write, read)


def _each(convert: Callable[[Any, _Memo], Any], values: Any, memo: _Memo) -> list[Any]:
    done: list[Any] = []
    try:
        for value in values:
            done.append(convert(value, memo))
    except _Unfit as error:
        raise error.within(f"[{len(done)}]") from None
    return done


def _sequence(kind: type[list[Any]] | type[tuple[Any, ...]], inner: _Codec) -> _Codec:
    def write(value: Any, memo: _Memo) -> Any:
        return _each(inner.write, value, memo) if type(value) is kind else _expect(kind.__name__, value)

    def read(value: Any, memo: _Memo) -> Any:
        return kind(_each(inner.read, value, memo)) if type(value) is list else _expect("list", value)

    return _Codec(write, read)


def _mapping(inner: _Codec) -> _Codec:
    def each(convert: Callable[[Any, _Memo], Any], value: Any, memo: _Memo) -> Any:
        if type(value) is not dict:
            _expect("dict", value)
        done: dict[str, Any] = {}
        for key, item in value.items():
            if type(key) is not str:
                _expect("str as a key", key)
            try:
                done[key] = convert(item, memo)
            except _Unfit as error:
                raise error.within(f"[{key!r}]") from None
        return done

    return _Codec(lambda value, memo: each(inner.write, value, memo), lambda value, memo: each(inner.read, value, memo))


def _enum(kind: type[Enum]) -> _Codec:
    def write(value: Any, memo: _Memo) -> Any:
        return value.name if isinstance(value, kind) else _expect(kind.__name__, value)

    def read(value: Any, memo: _Memo) -> Any:
        if type(value) is not str or value not in kind.__members__:
            _expect(f"a {kind.__name__}", value)
        return kind[value]

    return _Codec(write, read)


def _fields(kind: Any, names: tuple[str, ...]) -> dict[str, _Codec]:
    hints = get_type_hints(kind)
    return {name: _codec(hints[name]) for name in names}


def _record(kind: Any) -> _Codec:
    fields = _fields(kind, tuple(field.name for field in dataclasses.fields(kind)))

    def write(value: Any, memo: _Memo) -> Any:
        if type(value) is not kind:
            _expect(kind.__name__, value)
        done: dict[str, Any] = {}
        for name, codec in fields.items():
            try:
                done[name] = codec.write(getattr(value, name), memo)
            except _Unfit as error:
                raise error.within(f".{name}") from None
        return done

    def read(value: Any, memo: _Memo) -> Any:
        if type(value) is not dict or value.keys() != fields.keys():
            _expect(f"the fields of {kind.__name__}", value)
        done: dict[str, Any] = {}
        for name, codec in fields.items():
            try:
                done[name] = codec.read(value[name], memo)
            except _Unfit as error:
                raise error.within(f".{name}") from None
        return kind(**done)

    return _Codec(write, read)


def _named_tuple(kind: Any) -> _Codec:
    codecs = tuple(_fields(kind, kind._fields).values())

    def write(value: Any, memo: _Memo) -> Any:
        if type(value) is not kind:
            _expect(kind.__name__, value)
        index = memo.indices.get(id(value))
        if index is None:
            written = [codec.write(item, memo) for codec, item in zip(codecs, value, strict=True)]
            index = memo.indices[id(value)] = len(memo.tuples)
            memo.tuples.append(written)
        return index

    def read(value: Any, memo: _Memo) -> Any:
        if type(value) is not int or not 0 <= value < memo.below:
            _expect(f"the index of an earlier {kind.__name__}", value)
        if (value, kind) not in memo.built:
            items = memo.tuples[value]
            if type(items) is not list or len(items) != len(codecs):
                _expect(f"the fields of {kind.__name__}", items)
            below, memo.below = memo.below, value
            memo.built[value, kind] = kind(*(codec.read(item, memo) for codec, item in zip(codecs, items, strict=True)))
            memo.below = below
        return memo.built[value, kind]

    return _Codec(write, read)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
