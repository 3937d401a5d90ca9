"""A page of every setting, written from the schema: its type, default and docstring."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_type_hints

from hiper.algos.registry import algorithms
from hiper.composition.keys import describe
from hiper.composition.sections import suite_sections
from hiper.config import AlgoConfig, SharedConfig


@dataclasses.dataclass(frozen=True)
class Setting:
    """One line of the page."""

    key: str
    kind: str
    default: str
    text: str
    """Its docstring; empty where its name says it all."""


def settings_of_schema(schema: type[Any], prefix: str = "") -> Iterator[Setting]:
    """Every setting of a dataclass, with those of the sections in it; an estimator's own are not in the schema's `algo`."""
    hints, texts = get_type_hints(schema), documented(schema)
    for item in dataclasses.fields(schema):
        hint = hints[item.name]
        if dataclasses.is_dataclass(hint):
            yield from settings_of_schema(hint, f"{prefix}{item.name}.")  # type: ignore[arg-type]  # a class, as hints are
        else:
            yield Setting(prefix + item.name, describe(hint), _shown(_default(item)), texts.get(item.name, ""))


def documented(schema: type[Any]) -> dict[str, str]:
    """Field -> the docstring below it, of a class and those above it."""
    found: dict[str, str] = {}
    for kind in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(kind):
            continue
        (tree,) = ast.parse(inspect.getsource(kind).strip()).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]  # as looked at above
    return found


def settings_page() -> str:
    """The page, in Markdown."""
    lines = [
        "# Settings",
        "",
        "Every setting, its type, default and range, from the schema in `hiper/config`, `hiper/algos` and `hiper/suites`.",
        "",
    ]
    top: list[str] = []
    sections: list[tuple[str, type[Any], str]] = []
    for name, hint in get_type_hints(SharedConfig).items():
        if hint is AlgoConfig:
            sections += [(f"algo={one}", found.settings, "algo.") for one, found in algorithms().items()]
        elif dataclasses.is_dataclass(hint):
            sections.append((name, hint, f"{name}."))  # type: ignore[arg-type]  # a class, as hints are
        else:
            top.append(name)
    sections += [(name, kind, f"{name}.") for name, kind in suite_sections().items()]
    lines += _table([one for one in settings_of_schema(SharedConfig) if one.key in top])
    for name, schema, prefix in sections:
        text = " ".join((schema.__doc__ or "").split())
        lines += ["", f"## `{name}`", "", text, "", *_table(settings_of_schema(schema, prefix))]
    return "\n".join(lines) + "\n"


def _table(settings: Any) -> list[str]:
    rows = ["| setting | is | default | |", "|---|---|---|---|"]
    for one in settings:
        cells = (f"`{one.key}`", one.kind, f"`{one.default}`" if one.default else "", one.text)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def _default(item: dataclasses.Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default


def _shown(value: Any) -> str:
    if value is dataclasses.MISSING:
        return ""
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, Enum):
        return str(value.value)
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if value is None or isinstance(value, bool) else str(value)
