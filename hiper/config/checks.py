"""What a setting may be: ranges, and what holds for every setting of its type."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from hiper.errors import ConfigError

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


@contextmanager
def collect_problems() -> Iterator[list[str]]:
    """Inside, a setting out of range is noted in the list instead of raised, so that all can be shown at once."""
    problems: list[str] = []
    token = _collected.set(problems)
    try:
        yield problems
    finally:
        _collected.reset(token)


def require(ok: bool, name: str, value: object, rule: str) -> None:
    """Refuse a value that is out of range.

    Raises:
        ConfigError: it is not `ok`, outside `collect_problems`.
    """
    if not ok:
        shown = repr(value)
        refuse(name, f"{name}={shown if len(shown) <= 200 else shown[:200] + '...'} is out of range: it must be {rule}.")


def refuse(name: str, problem: str) -> None:
    """Raise a setting's problem, or note it inside `collect_problems`; one problem a setting will do."""
    collected = _collected.get()
    if collected is None:
        raise ConfigError(problem)
    if not any(other.startswith(f"{name}=") for other in collected):
        collected.append(problem)


WHOLE = 2**31
"""Whole numbers lie between -2**31 and 2**31: torch, numpy and every file format take these without a thought."""

TEMPERATURES = (1e-3, 1e3)
"""Logits divided by less overflow; by more, all tokens are equally likely."""

TEXT = 4096
"""Most characters of a text."""

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_.]*)\}")
"""The one kind of interpolation that may be left in a text: of another setting. See `hiper.composition.compose.PLACES`."""


def require_sane(settings: Any, prefix: str = "", but: tuple[str, ...] = ()) -> None:
    """What holds for every setting of its type, so that no class has to say it: floats are finite, whole numbers and seeds have bounds,
    text can be printed in a line."""
    for item in fields(settings):
        if item.name in but:
            continue
        key, value = prefix + item.name, getattr(settings, item.name)
        if is_dataclass(value):
            require_sane(value, f"{key}.")
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float):
                require(math.isfinite(one), key, one, "a finite number")
            elif isinstance(one, int) and item.name.endswith("seed"):
                require(0 <= one < WHOLE, key, one, "at least 0 and below 2**31")
            elif isinstance(one, int):
                require(-WHOLE < one < WHOLE, key, one, "between -2**31 and 2**31")
            elif isinstance(one, str) and not isinstance(one, Enum):
                require(one.isprintable() and len(one) <= TEXT, key, one, f"printable text of at most {TEXT} characters")
                require("${" not in REFERENCE.sub("", one), key, one, "text without ${...}, other than the name of another setting")


def require_folder(name: str, value: str) -> None:
    """A run has a folder of its own, so the root of the file system is none."""
    require(bool(value.strip()) and os.path.normpath(value).strip("/") != "", name, value, "a directory other than /")
