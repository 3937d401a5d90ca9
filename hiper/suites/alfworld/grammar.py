"""Reading the grammar that stands in a game file: rules and actions, and the symbols of a right-hand side.

What the symbols mean is said in `hiper.suites.alfworld.wording`. Source of the notation: `textworld.envs.pddl`, whose reader is
followed in what it makes of odd text, too.
"""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any, NamedTuple, TypeAlias

from hiper.errors import DataError, TaskError
from hiper.runtime.reading import parse_json
from hiper.suites.alfworld.domain import INSTEAD

Symbol: TypeAlias = tuple[str, Any]
"""("text", text), ("rule", name), and ("each" or "list", (rule, expression, condition)) where either rule or expression is None."""

_TASK = re.compile(r'"task"\s*:\s*\[\s*\{\s*"rhs"\s*:\s*("(?:[^"\\]|\\.)*")\s*\}\s*\]')
_DOCUMENT_PART = re.compile(r'grammar\s*::\s*"""(?P<block>.*?)"""\s*;?|action\s+(?P<action>[\w/-]+)\s*\{', re.DOTALL)
_FIELD = re.compile(r'(template|feedback)\s*::\s*"([^"]*)"\s*;|(grammar|pddl)\s*::\s*"""(.*?)"""\s*;|(\})', re.DOTALL)
_SKIPPED = re.compile(r"(?:\s|#[^\n]*)*")
_LINE_START = re.compile(r"(//[^\n]*|\s*)\n?")
_NONTERMINAL = re.compile(r"#([\w()/!<>\-\s,.]+)#")
_CONDITIONAL = re.compile(r"\{(?:#([\w()/!<>\-\s,.]+)#|([^|\[\]{}\n<>]+))(?:\s*\|\s*([^;|{}\n\[\]#]+))?\}")
_QUOTED = re.compile(r'"([^;|"<>\[\]#{}]*)"')
_TERMINAL = re.compile(r'[^;|"<>\[\]#{}]+')


def split_task(grammar: str) -> tuple[str, str]:
    """`grammar` with its goal sentence blanked, so that the grammars of all games of a release are equal; and the sentence.

    Raises:
        TaskError: there is no rule `task` with one unconditional alternative.
    """
    match = _TASK.search(grammar)
    if match is None:
        raise TaskError('the grammar has no rule "task" with a single "rhs", so the game has no goal sentence')
    try:
        sentence = json.loads(match.group(1), strict=False)
    except json.JSONDecodeError as error:
        raise TaskError(f"the goal sentence {match.group(1)[:60]} is not a JSON string: {error}") from error
    symbols = read_symbols(sentence)
    if any(kind != "text" for kind, _ in symbols):
        raise TaskError(f"the goal sentence {sentence!r} refers to other rules; this engine knows plain sentences only; {INSTEAD}")
    return grammar[: match.start(1)] + '""' + grammar[match.end(1) :], "".join(text for _, text in symbols)


def read_symbols(text: str) -> list[Symbol]:
    """The right-hand side `text` as symbols. Like the original, reading stops without a word at what it cannot read."""
    symbols: list[Symbol] = []
    position = 0
    while True:
        while text.startswith("\t", position):
            position += 1
        if (position == 0 or text[position - 1] == "\n") and (skipped := _LINE_START.match(text, position)):
            position = skipped.end()
        listed = text.startswith("[{", position)
        if match := _CONDITIONAL.match(text, position + listed):
            rule, expression, given = match.groups()
            if not listed or text.startswith("]", match.end()):
                symbols.append(("list" if listed else "each", (rule, expression, given)))
                position = match.end() + listed
                continue
        if match := _NONTERMINAL.match(text, position):
            symbols.append(("rule", match.group(1)))
        elif match := _QUOTED.match(text, position) or _TERMINAL.match(text, position):
            symbols.append(("text", match.group(1) if match.re is _QUOTED else match.group()))
        else:
            return symbols
        position = match.end()


class Grammar(NamedTuple):
    """The texts of a game file: rules of what is said, and templates of the commands."""

    rules: dict[str, list[dict[str, str]]]
    actions: dict[str, tuple[str, str]]


def _read_rules(block: str, where: str) -> dict[str, list[dict[str, str]]]:
    lines = (line for line in textwrap.dedent(block).split("\n") if not line.lstrip().startswith("#"))
    try:
        rules = parse_json("\n".join(lines), f"the grammar block of {where}")
    except DataError as error:
        raise TaskError(str(error)) from error
    if not isinstance(rules, dict) or not all(
        isinstance(alternatives, list) and all(isinstance(a, dict) and isinstance(a.get("rhs"), str) for a in alternatives)
        for alternatives in rules.values()
    ):
        raise TaskError(f'the grammar block of {where} is not of the form {{"rule": [{{"condition": ..., "rhs": ...}}, ...]}}')
    return rules


def read_grammar(text: str) -> Grammar:
    """Parse the grammar of a game file.

    Raises:
        TaskError: it is damaged, or not of the form that ALFWorld writes.
    """
    rules: dict[str, list[dict[str, str]]] = {}
    actions: dict[str, tuple[str, str]] = {}
    position = 0
    while True:
        position = _end(_SKIPPED, text, position)
        if position == len(text):
            return Grammar(rules, actions)
        part = _DOCUMENT_PART.match(text, position)
        if part is None:
            raise TaskError(f"the grammar is damaged: expected `grammar ::` or `action NAME {{` at {text[position : position + 40]!r}")
        position = part.end()
        if part["block"] is not None:
            rules.update(_read_rules(part["block"], "the document"))
            continue
        name, fields = part["action"], {"template": "", "feedback": ""}
        while True:
            position = _end(_SKIPPED, text, position)
            field = _FIELD.match(text, position)
            if field is None:
                raise TaskError(f"the grammar of action {name!r} is damaged or cut short at {text[position : position + 40]!r}")
            position = field.end()
            if field[5]:
                break
            if field[1]:
                fields[field[1]] = field[2]
            elif field[3] == "grammar":
                rules.update(_read_rules(field[4], f"action {name!r}"))
        actions[name.lower()] = fields["template"], fields["feedback"]


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position
