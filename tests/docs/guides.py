"""The guides' blocks: what a user may copy from README, CONTRIBUTING and docs/*.md.

A shell block is run line by line and a Python block whole, unless a comment says `not tried by the tests: REASON`: at a line's end it
concerns that line, on a line of its own all lines of the block that follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
SETTINGS_PAGE = "docs/settings.md"
"""Written from the schema by `make docs`, and not there before."""

_BLOCK = re.compile(r"^(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
_NOT_TRIED = re.compile(r"#.*\bnot tried by the tests: (?P<reason>\S.*)")
COMMAND = re.compile(r"^\s*(\$ |hiper |make |python |pip |dvc |git |prefect |optuna-dashboard )", re.MULTILINE)
"""What a line of a block that is not marked as shell looks like when it is a command all the same."""


class Block(NamedTuple):
    """What stands between two fences."""

    page: str
    line: int
    """Of the opening fence, from 1."""
    language: str
    text: str


class Step(NamedTuple):
    """One line of a shell block, or a whole Python block."""

    block: Block
    command: str
    """Without its comment."""
    reason: str | None
    """Why it is not tried; None where it is."""


def pages() -> list[str]:
    """Those with text of our own."""
    return [page for page in PAGES if page != SETTINGS_PAGE]


def blocks(page: str, text: str) -> list[Block]:
    """All fenced blocks of a page."""
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["language"].strip(), found["text"]) for found in _BLOCK.finditer(text)
    ]


def blocks_of(page: str) -> list[Block]:
    """Those of a page of this checkout."""
    return blocks(page, (ROOT / page).read_text(encoding="utf-8"))


def steps(block: Block) -> Iterator[Step]:
    """What of a block is run or marked, in order; none for a block that is neither shell nor Python."""
    if block.language == "python":
        marked = _NOT_TRIED.match(block.text)
        yield Step(block, block.text, marked["reason"] if marked else None)
    if block.language != "sh":
        return
    reason: str | None = None
    for line in block.text.splitlines():
        command, _, comment = split_comment(line)
        marked = _NOT_TRIED.match(comment)
        if not command:
            reason = marked["reason"] if marked else reason
        else:
            yield Step(block, command, marked["reason"] if marked else reason)


def split_comment(line: str) -> tuple[str, str, str]:
    """A shell line as command, space and comment; a `#` inside quotes or a word begins none."""
    for found in re.finditer(r"(?:(?<=\s)|^)#", line):
        before = line[: found.start()]
        if before.count("'") % 2 == 0 and before.count('"') % 2 == 0:
            return before.rstrip(), before[len(before.rstrip()) :], line[found.start() :]
    return line.strip(), "", ""
