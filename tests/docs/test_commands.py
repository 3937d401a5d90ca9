"""Rules of the guides: a command that is shown is one that `hiper` takes, and its settings are settings.

What the commands do is tested elsewhere; here a rename that forgot a guide is found.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hiper.cli.main import parse
from hiper.composition.compose import compose

ROOT = Path(__file__).parents[2]
GUIDES = ("install", "commands", "runs", "webshop", "figures", "orchestration")
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in GUIDES))
FILES = ("compare", "sweep", "reevaluate")
"""Commands whose overrides are changes to a file."""


def commands() -> list[str]:
    """Lines of the guides' shell blocks that call `hiper`, and inline commands that are whole."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            found += [line for line in block.splitlines() if line.startswith("hiper ")]
        found += [one for one in re.findall(r"`(hiper [^`\n]+=[^`\n]+)`", text) if "..." not in one and "|" not in one]
    return sorted(set(found))


def words(command: str) -> list[str]:
    """What follows `hiper`, with the guides' placeholders filled in."""
    bare = re.split(r"\s#|&&", command)[0]
    return [re.sub(r"(^|=)N$", r"\g<1>1", word) for word in shlex.split(bare)[1:]]


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
