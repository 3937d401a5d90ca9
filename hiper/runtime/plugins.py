"""What other packages add under a name: how it may be named, and how it is found."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from hiper.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_name(kind: str, name: str) -> None:
    """See that a thing can be chosen by its name in a config.

    Args:
        kind: what it is, with its article: "a suite".
        name: lower-case letters, digits and `_`.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{kind} cannot be named {name!r}: use lower-case letters, digits and _.")


def call_entry_points(group: str) -> None:
    """Call the function of every entry point of a group, without arguments: each registers what its package adds.

    Raises:
        ConfigError: one cannot be imported, or fails; the message names it.
    """
    for entry in entry_points(group=group):
        try:
            entry.load()()
        except Exception as error:  # another package's code
            raise ConfigError(f"the entry point {entry.name!r} of {group} ({entry.value}) fails: {error}") from error
