"""Every setting by its dotted key, as overrides name it, and how a key or a type is put in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, get_args, get_type_hints

from hiper.algos.registry import algorithms
from hiper.composition.sections import schema
from hiper.config.algo import PROMISE, AlgoConfig
from hiper.runtime.text import nearest


def groups() -> dict[str, Any]:
    """The config groups: every part of a config that is a dataclass of its own, those of all suites among them."""
    return {name: kind for name, kind in get_type_hints(schema()).items() if dataclasses.is_dataclass(kind)}


def leaves(algo: type[AlgoConfig]) -> dict[str, Any]:
    """Every setting's dotted key and its type, with that class's settings of the estimator."""

    def walk(kind: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, hint in get_type_hints(kind).items():
            key = prefix + name
            if dataclasses.is_dataclass(hint):
                yield from walk(algo if hint is AlgoConfig else hint, f"{key}.")
            elif key not in PROMISE:
                yield key, hint

    return dict(walk(schema(), ""))


def known_keys() -> dict[str, Any]:
    """The same, with the settings of every estimator there is."""
    return {key: hint for one in algorithms().values() for key, hint in leaves(one.settings).items()}


def unread(key: str, algo: str, keys: Mapping[str, Any]) -> str:
    """Why a setting of another estimator is refused."""
    reads = ", ".join(name for name in keys if name.startswith("algo.") and name != "algo.name")
    return f"{key} is not a setting of {algo}; it reads {reads}."


def suggestion(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The closest of the known keys, as the end of a sentence; a key's last part counts when its path is wrong."""
    last = word.rsplit(".", 1)[-1]
    close = nearest(word, known) or next((key for key in known if key.rsplit(".", 1)[-1] == last), None)
    return f"; did you mean {close!r}?" if close else "."


def describe(hint: Any) -> str:
    """A type in the words of the command line."""
    options = [option for option in get_args(hint) if option is not type(None)]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(member.name for member in hint)
    if getattr(hint, "__origin__", None) is list:
        return f"a list such as [{'a' if options == [str] else '1'}]"
    if options:
        return f"{describe(options[0])} or null"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))
