"""Rules of the guides: a command that is shown is one that `hiper` takes, and its settings are settings; nothing is neither run nor marked.

What the commands do, `test_running.py` sees by running them, which takes minutes; here a rename that forgot a guide is found at once.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hiper.cli.main import parse
from hiper.composition.compose import compose
from tests.docs.guides import COMMAND, ROOT, Block, blocks, blocks_of, pages, split_comment, steps

FILES = ("compare", "sweep", "reevaluate")
"""Commands whose overrides are changes to a file."""
HISTORY = ("docs/log.md", "docs/official.md", "docs/results.md")
"""Pages that say what was done with an earlier version, in its words."""
LANGUAGES = ("sh", "python", "bibtex", "")


def inline(page: str) -> list[str]:
    """Commands in the text of a page that are whole."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        one for one in re.findall(r"`(hiper [^`\n]+[=-][^`\n]+)`", text) if "..." not in one and "|" not in one and "COMMAND" not in one
    ]


def commands() -> list[str]:
    """All that call `hiper`, with their words for placeholders."""
    shown = [step.command for page in pages() for block in blocks_of(page) if block.language == "sh" for step in steps(block)]
    lines = [one.split("&&")[0] for one in shown if one.startswith("hiper ")]
    return sorted({*lines, *(one for page in pages() if page not in HISTORY for one in inline(page))})


def words(command: str) -> list[str]:
    """What follows `hiper`, with the guides' placeholders filled in."""
    return [re.sub(r"(^|=)N$", r"\g<1>1", word) for word in shlex.split(command)[1:]]


def test_there_are_commands_to_look_at() -> None:
    assert len(commands()) > 30


@pytest.mark.parametrize("command", commands())
def test_it_is_a_command(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "conf/experiment"
    own.mkdir(parents=True)
    (own / "NAME_best.yaml").write_text("# @package _global_\ndefaults: [smoke]\n", encoding="utf-8")  # as a sweep would leave it
    monkeypatch.chdir(tmp_path)
    options = parse(words(command))
    overrides = [word for word in getattr(options, "overrides", []) if "=" in word]
    if options.verb not in FILES and overrides:
        compose(overrides)


@pytest.mark.parametrize("page", pages())
def test_every_block_is_run_or_marked(page: str) -> None:
    assert forgotten(blocks_of(page)) == []


def forgotten(found: list[Block]) -> list[str]:
    """Blocks that hold a command and are neither shell nor Python, or in a language that this test does not know."""
    return [
        f"{block.page}:{block.line} is ```{block.language}"
        for block in found
        if not (block.language in LANGUAGES or block.language.startswith("{"))
        or (block.language not in ("sh", "python") and COMMAND.search(block.text))
    ]


def test_a_block_that_is_neither_would_be_found() -> None:
    hidden = "```\nhiper run experiment=smoke\n```\n```bash\nls\n```\n```\na ──> b\n```\n```sh\nmake run\n```\n"
    assert forgotten(blocks("a.md", hidden)) == ["a.md:1 is ```", "a.md:4 is ```bash"]


def test_marks_are_read() -> None:
    text = (
        "```sh\na 1   # says why\nb '#2'  # of GPUs; not tried by the tests: needs GPUs\n\n# not tried by the tests: downloads\nc\nd\n```\n"
    )
    (block,) = blocks("a.md", text)
    assert [(step.command, step.reason) for step in steps(block)] == [
        ("a 1", None),
        ("b '#2'", "needs GPUs"),
        ("c", "downloads"),
        ("d", "downloads"),
    ]
    assert split_comment("a#b c") == ("a#b c", "", "")
    (snippet,) = blocks("a.md", "```python\n# not tried by the tests: needs GPUs\nimport torch\n```\n")
    assert [step.reason for step in steps(snippet)] == ["needs GPUs"]


def test_inline_commands_are_of_kinds_that_blocks_show() -> None:
    """What a text mentions is run or marked in a block: the same command with the same options."""
    run = [kind(step.command) for page in pages() for block in blocks_of(page) if block.language == "sh" for step in steps(block)]
    for page in pages():
        for command in inline(page) if page not in HISTORY else ():
            verb, options = kind(command)
            assert any(verb == other and options <= more for other, more in run), f"{page}: no block runs a command like `{command}`"


def kind(command: str) -> tuple[str, frozenset[str]]:
    """The command that is called, and its options."""
    split = shlex.split(command)
    verb = " ".join(split[1 : 3 if split[1:2] == ["benchmark"] else 2])
    return verb, frozenset(word for word in split if word.startswith("--"))
