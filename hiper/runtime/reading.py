"""The one reader of JSON, JSON lines and YAML: whatever a person, a disk or another program may have damaged is read here.

A file is read only if it is a regular one (a pipe would be waited for, a device never ends) and not larger than its kind can be; it is
refused where it is nested too deeply, holds a number that is not finite, or, in YAML, an alias (a few of which can stand for gigabytes).
Every refusal is a `DataError` that names the file and, where there are lines, the line.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import yaml

from hiper.errors import DataError

DEPTH = 64
"""Most lists and objects within one another. The deepest file of ours has eight."""
JSON_BYTES = 2**30
"""Most of a JSON file, and of a line of JSON lines."""
YAML_BYTES = 2**22
"""Most of a YAML file."""
INTEGER_BITS = 256
"""Most of a whole number: the states of random generators have 128."""

_YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)
"""What PyYAML raises: its constructors do not check what they are given (`!!bool x` is a KeyError)."""


def open_file(path: Path) -> BufferedReader:
    """A regular file, open for reading bytes; for what is too large to be read at once.

    Raises:
        DataError: it is missing, unreadable or not a regular file.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {_reason(error)}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{path} is not a regular file.")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, most: int = JSON_BYTES) -> bytes:
    """The contents of a regular file.

    Args:
        path: the file.
        most: bytes it may have.

    Raises:
        DataError: it is missing, unreadable, not a regular file, or larger.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise DataError(f"{path} has {size:,} bytes; a file of its kind has at most {most:,}.")
        try:
            return file.read()
        except OSError as error:
            raise DataError(f"cannot read {path}: {_reason(error)}.") from error


def read_text(path: Path, most: int = JSON_BYTES) -> str:
    """The contents of a regular file as text.

    Raises:
        DataError: as `read_bytes`, or it is not UTF-8.
    """
    return _decoded(read_bytes(path, most), str(path))


def read_json(path: Path, most: int = JSON_BYTES) -> Any:
    """The value in a JSON file.

    Raises:
        DataError: as `read_text`, or the text is not JSON within the limits of this module.
    """
    return parse_json(read_bytes(path, most), str(path))


def read_json_object(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: as `read_json`, or it is another kind of value.
    """
    value = read_json(path, most)
    if not isinstance(value, dict):
        raise DataError(f"{path} holds {_kind(value)} where an object is expected.")
    return value


def read_json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The lines of a file of JSON lines, one at a time, empty ones left out: where each stands ("FILE:LINE"), and its value.

    Raises:
        DataError: the file cannot be read, or a line is not JSON within the limits of this module.
    """
    for where, line in read_lines(path):
        yield where, parse_json(line, where)


def read_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of a regular file, one at a time and without their ends, empty ones left out; each with where it stands ("FILE:LINE").

    Raises:
        DataError: the file cannot be read, or a line is too long.
    """
    with open_file(path) as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(JSON_BYTES + 1)
            except OSError as error:
                raise DataError(f"cannot read {path}: {_reason(error)}.") from error
            if not line:
                return
            if len(line) > JSON_BYTES:
                raise DataError(f"{path}:{number} is longer than {JSON_BYTES:,} bytes.")
            if line := line.rstrip(b"\r\n"):
                yield f"{path}:{number}", line


def parse_json(text: str | bytes, where: str) -> Any:
    """The value of a JSON text.

    Args:
        text: the JSON.
        where: what errors call the place it is from.

    Raises:
        DataError: it is not UTF-8, not JSON, nested too deeply, or holds a number that is not finite or has too many digits.
    """
    decoded = _decoded(text, where) if isinstance(text, bytes) else text
    try:
        value = _DECODER.decode(decoded)
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply.") from error
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}.") from error
    _check_depth(value, where)
    return value


def read_yaml(path: Path) -> Any:
    """The value in a YAML file: lists, dictionaries, text, numbers, truth values, nothing.

    Raises:
        DataError: as `read_text`, or the text is not YAML within the limits of this module.
    """
    return parse_yaml(read_text(path, YAML_BYTES), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text, by the rules of OmegaConf's own loader (as `1e-5`, which YAML 1.1 takes for text).

    Args:
        text: the YAML.
        where: what errors call the place it is from.

    Raises:
        DataError: it is not YAML, nested too deeply, holds an alias or a number that is not finite.
    """
    from omegaconf._utils import get_yaml_loader  # Hydra composes with it, and numbers must mean the same here

    _examine(text, where)
    try:
        value = yaml.load(text, Loader=get_yaml_loader())  # a SafeLoader
    except _YAML_ERRORS as error:
        raise DataError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
    _check_integers(value, where)  # `.inf` is a setting's affair: the schema says where it is out of range
    return value


def check_yaml(path: Path) -> str:
    """See that a YAML file can be given to a reader that is not ours, such as Hydra's; its text.

    Raises:
        DataError: as `read_yaml`, numbers aside.
    """
    text = read_text(path, YAML_BYTES)
    _examine(text, str(path))
    return text


def _examine(text: str, where: str) -> None:
    """Refuse text that is not YAML, is nested too deeply or holds an alias."""
    if len(text) > YAML_BYTES:
        raise DataError(f"{where} has {len(text):,} characters; a file of its kind has at most {YAML_BYTES:,}.")
    depth = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                raise DataError(f"{where}, line {event.start_mark.line + 1}: YAML aliases (*{event.anchor}) are not read; write it out.")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > DEPTH:
                    raise DataError(f"{where}, line {event.start_mark.line + 1}: nested too deeply.")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError as error:
        raise DataError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def _check_depth(value: Any, where: str) -> None:
    """Refuse what nests too deeply; level by level, because a recursion could be made to overflow."""
    level, depth = [value] if type(value) in (dict, list) else [], 0
    while level:
        depth += 1
        if depth > DEPTH:
            raise DataError(f"{where} is nested too deeply.")
        level = [one for item in level for one in (item.values() if type(item) is dict else item) if type(one) in (dict, list)]


def _check_integers(value: Any, where: str) -> None:
    """Refuse whole numbers that are too large, in what is not nested deeply."""
    if isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            _check_integers(one, where)
    elif isinstance(value, int) and value.bit_length() > INTEGER_BITS:
        raise DataError(f"{where} holds a whole number of {value.bit_length()} bits; at most {INTEGER_BITS} are read.")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _integer(text: str) -> int:
    value = int(text)
    if value.bit_length() > INTEGER_BITS:
        raise ValueError(f"it holds a whole number of {value.bit_length()} bits; at most {INTEGER_BITS} are read")
    return value


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


_DECODER = json.JSONDecoder(parse_float=_number, parse_int=_integer, parse_constant=_not_finite)


def _decoded(text: bytes, where: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not text in UTF-8: byte {error.start} is {text[error.start]:#04x}.") from error


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "a truth value"}.get(type(value), "a number")


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
