"""The little of PDDL's notation that the game files need: nested lists of lower-case words, and typed lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from hiper.errors import TaskError

SExpr: TypeAlias = "str | list[SExpr]"

MAX_DEPTH = 100
"""Official files nest nine deep; the limit keeps damaged text from exhausting the stack."""

_TOKEN = re.compile(r"[()]|[^\s()]+")
_COMMENT = re.compile(r";[^\n]*")


def read(text: str, what: str) -> list[SExpr]:
    """The one bracketed expression in `text`, as nested lists of lower-case words; comments are dropped.

    Args:
        text: PDDL source.
        what: what it is, for the message ("the PDDL problem").

    Raises:
        TaskError: unbalanced brackets, or more or less than one expression.
    """
    if ";" in text:
        text = _COMMENT.sub("", text)
    top: list[SExpr] = []
    stack: list[list[SExpr]] = [top]
    for token in _TOKEN.findall(text.lower()):
        if token == "(":
            inner: list[SExpr] = []
            stack[-1].append(inner)
            stack.append(inner)
            if len(stack) > MAX_DEPTH:
                raise TaskError(f"{what} nests brackets more than {MAX_DEPTH} deep")
        elif token == ")":
            stack.pop()
            if not stack:
                raise TaskError(f"{what} closes a bracket that was never opened")
        else:
            stack[-1].append(token)
    if len(stack) > 1:
        raise TaskError(f"{what} is cut short: {len(stack) - 1} brackets are still open at its end")
    if len(top) != 1 or not isinstance(top[0], list):
        raise TaskError(f"{what} holds {len(top)} expressions where one bracketed (define ...) belongs")
    return top[0]


def write(expr: SExpr) -> str:
    """`expr` as text with single spaces: equal expressions, equal text."""
    return expr if isinstance(expr, str) else "(" + " ".join(write(part) for part in expr) + ")"


def sections(expr: Sequence[SExpr], what: str) -> dict[str, list[list[SExpr]]]:
    """The parts of a `(define (...) (:name ...) ...)`, by name, in their order.

    Raises:
        TaskError: not a `define`, or a part that is not a named list.
    """
    if len(expr) < 2 or expr[0] != "define":
        raise TaskError(f"{what} does not start with (define ...)")
    found: dict[str, list[list[SExpr]]] = {}
    for part in expr[2:]:
        if not isinstance(part, list) or not part or not isinstance(part[0], str):
            raise TaskError(f"{what} holds {write(part)[:60]!r} where a (:section ...) belongs")
        found.setdefault(part[0], []).append(part[1:])
    return found


def typed(words: Sequence[SExpr], what: str) -> list[tuple[str, str]]:
    """`a b - t c - u` as [(a, t), (b, t), (c, u)]; a name without a type gets the type `object`, as PDDL has it.

    Raises:
        TaskError: a nested list, or a dash without a type.
    """
    pairs: list[tuple[str, str]] = []
    waiting: list[str] = []
    parts = iter(words)
    for word in parts:
        if not isinstance(word, str):
            raise TaskError(f"{what} holds {write(word)[:60]!r} where a name belongs")
        if word != "-":
            waiting.append(word)
            continue
        kind = next(parts, None)
        if not isinstance(kind, str):
            raise TaskError(f"{what} ends with a dash and no type")
        pairs.extend((name, kind) for name in waiting)
        waiting.clear()
    pairs.extend((name, "object") for name in waiting)
    return pairs
