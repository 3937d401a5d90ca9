"""The game's words: commands and feedback, made from the grammar that stands in the game file.

The grammar is a list of actions (a command template and a feedback rule each) and of rewriting rules. A rule has
alternatives; the first whose condition holds is taken. A right-hand side mixes plain text with

    #rule#                 another rule
    {o.name}               an attribute of an entity, or a sum of such
    {... | condition}      the same once for every solution of the condition
    [{... | condition}]    the same as a list: "a mug 2, a mug 1, and a pan 1"

Everything is turned into Python closures once; a step only calls them. Source of the notation: `textworld.envs.pddl`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeAlias

from hiper.errors import TaskError
from hiper.suites.alfworld.domain import DYNAMIC, INSTEAD, UNTRACKED, Domain, read_domain
from hiper.suites.alfworld.facts import Facts
from hiper.suites.alfworld.grammar import Grammar, Symbol, read_grammar, read_symbols
from hiper.suites.alfworld.query import Bindings, Literal, Solve, compile_query

NEGATABLE = frozenset({"inreceptacle"})
"""Predicates of which a condition may ask `not_...`: true once an action has made the fact false, not by mere absence."""
PLAYER_PLACE = frozenset({"l", "lstart"})
"""Parameters that say where the player is. Command templates do not see them: a command is worded once and kept."""
TEMPLATE = "the template of action"
NEVER_NEGATED = frozenset({"istoggled"})
"""`not_...` of these may be asked too and is never true, since no action makes them false."""


class Scene(Protocol):
    """What a text is made from."""

    facts: Facts
    labels: list[str]
    """Entity -> the name the player reads."""

    @property
    def ids(self) -> list[str]:
        """Entity -> its id in the file."""

    @property
    def task_line(self) -> str:
        """The text of the rule `task`, which is the one thing that differs between the grammars of two games."""


Text: TypeAlias = Callable[[Scene, Bindings], str]


_LITERAL = re.compile(r"\s*([\w/]+)\s*\(([^()]*)\)\s*")


class Wording(NamedTuple):
    """The texts of one grammar."""

    intro: Text
    commands: dict[str, Text]
    """Action -> its command."""
    feedback: dict[str, Text]
    """Action -> what the player reads after it."""


@lru_cache(maxsize=16)
def compile_wording(grammar: str, domain_text: str) -> Wording:
    """The texts of `grammar` (goal sentence blanked) for the actions of a domain. Cached by content.

    Args:
        grammar: the grammar, as `split_task` returns it.
        domain_text: the domain's source.

    Raises:
        TaskError: damaged text, or an action, rule, attribute or predicate this engine does not know, named.
    """
    domain = read_domain(domain_text)
    compiler = _Compiler(read_grammar(grammar), domain)
    missing = [name for name in domain.actions if name not in compiler.grammar.actions]
    if missing:
        raise TaskError(f"the grammar has no words for the actions {', '.join(missing)}")
    commands, feedback = {}, {}
    for name, parameters in domain.actions.items():
        template, rule = compiler.grammar.actions[name]
        constant = {variable: kind for variable, kind in parameters.items() if variable not in PLAYER_PLACE}
        commands[name] = compiler.text(read_symbols(template), constant, (f"{TEMPLATE} {name!r}",))
        feedback[name] = compiler.text(read_symbols(rule), parameters, (f"the feedback of action {name!r}",))
    return Wording(compiler.text(read_symbols("#intro#"), {}, ("the intro",)), commands, feedback)


class _Compiler:
    """Turns symbols into closures. `scope` maps the variables known at a place to their types; `path` is how we got there."""

    def __init__(self, grammar: Grammar, domain: Domain) -> None:
        self.grammar = grammar
        self.domain = domain

    def text(self, symbols: list[Symbol], scope: dict[str, str], path: tuple[str, ...]) -> Text:
        parts = [self.symbol(symbol, scope, path) for symbol in symbols]
        if len(parts) == 1:
            return parts[0]
        return lambda scene, env: "".join([part(scene, env) for part in parts])

    def symbol(self, symbol: Symbol, scope: dict[str, str], path: tuple[str, ...]) -> Text:
        kind, value = symbol
        if kind == "text":
            return lambda scene, env: value
        if kind == "rule":
            return self.rule(value, scope, path)
        rule, expression, given = value
        solve, inner = self.condition(given, scope, path) if given else (_as_it_is, scope)
        item = self.rule(rule, inner, path) if rule else self.expression(expression, inner, path)
        if kind == "each":
            if not given:
                return item
            return lambda scene, env: "".join([item(scene, found) for found in solve(scene.facts, env)])
        empty, comma, last = (self.rule(name, scope, path) for name in ("list_empty", "list_separator", "list_last_separator"))

        def listing(scene: Scene, env: Bindings) -> str:
            items = [item(scene, found) for found in solve(scene.facts, env)]
            if not items:
                return empty(scene, env)
            if len(items) == 1:
                return items[0]
            return comma(scene, env).join(items[:-1]) + last(scene, env) + items[-1]

        return listing

    def rule(self, name: str, scope: dict[str, str], path: tuple[str, ...]) -> Text:
        if name == "task":
            return lambda scene, env: scene.task_line
        if name in path:
            raise TaskError(f"the grammar rule {name!r} refers to itself ({' -> '.join(path)})")
        path = (*path, name)
        alternatives: list[tuple[Solve | None, Text]] = []
        for alternative in self.grammar.rules.get(name, []):
            condition = alternative.get("condition", "")
            solve = self.condition(condition, scope, path)[0] if condition else None
            alternatives.append((solve, self.text(read_symbols(alternative["rhs"]), scope, path)))
            if solve is None:
                break
        if not alternatives:
            raise TaskError(f"the grammar has no rule {name!r}, which {path[-2]} needs")
        if alternatives[-1][0] is not None:
            raise TaskError(f"the grammar rule {name!r} has no alternative without a condition, so some moment may find no text; {INSTEAD}")
        if len(alternatives) == 1:
            return alternatives[0][1]

        def choose(scene: Scene, env: Bindings) -> str:
            for solve, text in alternatives:
                if solve is None or any(True for _ in solve(scene.facts, env)):
                    return text(scene, env)
            raise AssertionError("the last alternative has no condition")

        return choose

    def condition(self, text: str, scope: dict[str, str], path: tuple[str, ...]) -> tuple[Solve, dict[str, str]]:
        """The query `text`, and the scope inside its solutions."""
        where = f"the condition {text!r} of {path[-1]}"
        inner = dict(scope)
        literals: list[Literal] = []
        never = False
        for part in text.split("&"):
            match = _LITERAL.fullmatch(part)
            if match is None:
                raise TaskError(f"{where} is not a list of predicates joined by &; {INSTEAD}")
            predicate = match.group(1)
            positive = predicate.removeprefix("not_")
            if positive not in self.domain.predicates or positive in UNTRACKED:
                raise TaskError(f"{where} asks for {predicate!r}, which this engine does not follow; {INSTEAD}")
            if path[0].startswith(TEMPLATE) and positive in DYNAMIC:
                raise TaskError(f"{where} asks for {predicate!r}; commands whose words change during the game are not supported; {INSTEAD}")
            if positive != predicate and positive not in NEGATABLE | NEVER_NEGATED:
                raise TaskError(f"{where} asks for {predicate!r}; this engine follows that only for {sorted(NEGATABLE)}; {INSTEAD}")
            variables: list[str] = []
            for argument in match.group(2).split(","):
                variable, _, kind = (word.strip() for word in argument.partition(":"))
                if inner.setdefault(variable, kind) != kind or not kind:
                    raise TaskError(f"{where} gives {variable!r} the type {kind!r} where it is {inner[variable]!r}; {INSTEAD}")
                variables.append(variable)
            kinds = tuple(inner[variable] for variable in variables)
            if kinds != self.domain.predicates[positive]:
                raise TaskError(f"{where} applies {positive!r} to {kinds}, the domain to {self.domain.predicates[positive]}; {INSTEAD}")
            never |= predicate.startswith("not_") and positive in NEVER_NEGATED
            literals.append(Literal(predicate, tuple(variables)))
        return (_never if never else compile_query(literals, frozenset(scope), distinct=True)), inner

    def expression(self, source: str, scope: dict[str, str], path: tuple[str, ...]) -> Text:
        where = f"the expression {source.strip()!r} of {path[-1]}"
        try:
            tree = ast.parse(source.strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise TaskError(f"{where} is damaged: {error}") from error
        return self._expression(tree, scope, where)

    def _expression(self, tree: ast.expr, scope: dict[str, str], where: str) -> Text:
        match tree:
            case ast.Constant(value=str(text)):
                return lambda scene, env: text
            case ast.Name(id=variable) | ast.Attribute(value=ast.Name(id=variable), attr="name") if variable in scope:
                return lambda scene, env: scene.labels[env[variable]]
            case ast.Attribute(value=ast.Name(id=variable), attr="id") if variable in scope:
                return lambda scene, env: scene.ids[env[variable]]
            case ast.Attribute(value=ast.Name(id=variable), attr="indefinite") if variable in scope:
                return lambda scene, env: "a"
            case ast.Attribute(value=ast.Name(id=variable), attr="definite") if variable in scope:
                return lambda scene, env: "the"
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                a, b = self._expression(left, scope, where), self._expression(right, scope, where)
                return lambda scene, env: a(scene, env) + b(scene, env)
            case ast.BoolOp(op=ast.Or(), values=values):
                choices = [self._expression(value, scope, where) for value in values]
                return lambda scene, env: next((text for choice in choices if (text := choice(scene, env))), "")
        raise TaskError(f"{where} uses {ast.unparse(tree)!r}, which this engine does not know; {INSTEAD}")


def _as_it_is(facts: Facts, env: Bindings) -> Iterator[Bindings]:
    yield env


def _never(facts: Facts, env: Bindings) -> Iterator[Bindings]:
    yield from ()
