"""From overrides to a checked `RunConfig`: the one door through which settings come in.

`conf/` chooses and changes values, `hiper.config` holds the schema. A key that does not exist, a value of the wrong type and
a number out of range are all refused here, together, before anything is computed. Hydra is imported only where something is
composed; `build` needs OmegaConf alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hiper.config import REFERENCE, SUITE_SETTINGS, RunConfig, collect_problems
from hiper.errors import ConfigError, DataError
from hiper.runtime.reading import check_yaml, read_yaml
from hiper.runtime.records import read_value
from hiper.suites.registry import suite_named

T = TypeVar("T")

_NAME = re.compile(r"[\w.-]+")
_hydra_lock = threading.Lock()  # Hydra keeps its state in a global; composing is not thread-safe

PLACES = ("games.data", "model.path", "paths.run", "paths.base")
"""Settings that may be taken from the environment (`${oc.env:VARIABLE}`): where things are on this machine. A run's config is written with
its values and shared, so that no other setting can carry the contents of a variable into a file."""

_VARIABLE = re.compile(r"\$\{oc\.env:[A-Za-z_][A-Za-z0-9_]*(,[^${}]*)?\}")


def config_dir() -> Path:
    """The directory of YAML files: $HIPER_CONF, the checkout's `conf/`, or the copy inside an installed package.

    Raises:
        ConfigError: none of them exists.
    """
    package = Path(__file__).resolve().parents[1]
    chosen = os.environ.get("HIPER_CONF")
    candidates = [Path(chosen)] if chosen else [package.parent / "conf", package / "conf"]
    for candidate in candidates:
        if (candidate / "config.yaml").is_file():
            return candidate.resolve()
    looked = " and ".join(str(candidate) for candidate in candidates)
    raise ConfigError(
        f"no config.yaml in {looked}. Install with `pip install -e .` from a checkout, or set HIPER_CONF to its conf/ folder."
    )


def register_schemas() -> None:
    """Tell Hydra's store about the dataclasses: `base_config`, and `base_<group>` in each group."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="base_config", node=RunConfig)
    for name, schema in _groups().items():
        store.store(group=name, name=f"base_{name}", node=schema)


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig:
    """Compose `conf/` with overrides, as `hiper run experiment=quickstart algo.lam_high=0.9` does.

    Args:
        overrides: Hydra overrides: `key.path=value`, or `group=file`.
        config_dir: directory of YAML files; unset: see `hiper.config.compose.config_dir`.

    Raises:
        ConfigError: overrides or values that cannot stand; the message lists all of them.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    directory = _default_config_dir() if config_dir is None else Path(config_dir).resolve()
    if not (directory / "config.yaml").is_file():
        raise ConfigError(f"no config.yaml in {directory}. Name a folder laid out like conf/.")
    _check(overrides, directory)
    files = _check_files(directory, overrides)
    register_schemas()
    with _hydra_lock:
        try:
            with initialize_config_dir(str(directory), version_base="1.3"):
                composed = hydra_compose("config", overrides=list(overrides))
        except Exception as error:  # Hydra checks little of what it reads: a list for a mapping is an AssertionError
            raise ConfigError(_odd_file(files) or f"cannot compose {directory}: {_flat(error)}") from error
    return build(composed)


def build(node: DictConfig) -> RunConfig:
    """Turn composed settings into dataclasses, interpolations resolved.

    Raises:
        ConfigError: settings out of range, or interpolations other than of settings, and of environment variables in `PLACES`; the
            message lists all of them.
    """
    _raise(list(_interpolation_problems(OmegaConf.to_container(node, resolve=False))))
    with collect_problems() as problems:
        try:
            config = OmegaConf.to_object(node)
        except (OmegaConfBaseException, RecursionError) as error:  # `name: ${name}` refers to itself
            raise ConfigError(_flat(error)) from error
    _raise(problems)
    if not isinstance(config, RunConfig):
        raise ConfigError(f"the composed config is a {type(config).__name__}, not a RunConfig: config.yaml must start with `base_config`.")
    _raise(list(_unread(config)))
    return config


def _unread(config: RunConfig) -> Iterator[str]:
    """Settings that were changed and that the suite does not read."""
    suite = suite_named(config.env.name)
    values, defaults = (dict(_flat_values(dataclasses.asdict(one))) for one in (config, RunConfig()))
    for key, value in values.items():
        of_some = _within(key, SUITE_SETTINGS)
        if of_some and not _within(key, suite.reads) and value != defaults[key]:
            yield f"{key}={value}: env.name={config.env.name} does not read it. Leave it at {defaults[key]}."


def _within(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _flat_values(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat_values(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def read_settings(schema: type[T], path: Path, changes: Sequence[str] = ()) -> T:
    """A YAML file as the dataclass it fills in.

    Args:
        schema: the dataclass.
        path: the file.
        changes: dotted keys and values that go on top.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or its settings do not fit the schema; the message names the file.
    """
    try:
        value = read_yaml(path)
        if not isinstance(value, dict) or not value:
            raise DataError(f"{path} holds no settings.")
        node = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.create(value), OmegaConf.from_dotlist(list(changes)))
        found = OmegaConf.to_object(node)
    except DataError as error:
        raise ConfigError(str(error)) from error
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: {_flat(error)}") from error
    assert isinstance(found, schema)
    return found


def override(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Change single values of a composed config, say one that was saved with a run; groups cannot be chosen again.

    Raises:
        ConfigError: overrides or values that cannot stand; the message lists all of them.
    """
    if not overrides:
        return config
    pairs = _check(overrides, None)
    node = OmegaConf.structured(config)
    for key, value in pairs:
        OmegaConf.update(node, key, value)
    return build(node)


def _interpolation_problems(node: Any) -> Iterator[str]:
    """Interpolations that could carry something into a saved config that is not a setting."""
    for key, text in _texts(node):
        allowed = key in PLACES
        rest = _VARIABLE.sub("", text) if allowed else text
        for target in REFERENCE.findall(rest):
            if target not in _leaves():
                yield f"{key}={text!r} refers to {target!r}, which is no setting{_suggestion(target, _leaves())}"
            elif target in PLACES and not allowed:
                yield f"{key}={text!r} refers to {target}, which may come from an environment variable; write it out."
        if "${" in REFERENCE.sub("", rest):
            yield (
                f"{key}={text!r} is not allowed: a run's config is saved with its values and shared. Write the value out; "
                f"only {', '.join(PLACES)} may be taken from the environment, as ${{oc.env:VARIABLE}}."
            )


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in settings, with its dotted key; that of a list for its members."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, str):
        yield key, node


def _check_files(directory: Path, overrides: Sequence[str]) -> list[Path]:
    """Read the files that may be composed before Hydra does, which would wait for a pipe and unfold any alias.

    A file can only be chosen where its name stands, in an override or in a file that is chosen.

    Returns:
        Them, and perhaps some that will not be.

    Raises:
        ConfigError: one is damaged; the message names it.
    """
    files: list[Path] = []
    waiting: dict[str, list[Path]] = {}
    for path in directory.rglob("*.yaml"):
        waiting.setdefault(path.stem, []).append(path)
    said = " ".join(["config", *overrides])
    while named := set(_NAME.findall(said)) & waiting.keys():
        new = [path for name in sorted(named) for path in waiting.pop(name)]
        try:
            said = " ".join(map(check_yaml, new))
        except DataError as error:
            raise ConfigError(str(error)) from error
        files += new
    return files


def _odd_file(files: Sequence[Path]) -> str | None:
    """What is wrong with one of the files by itself, which Hydra does not say; None: nothing is."""
    for path in files:
        try:
            value = read_yaml(path)
            if not isinstance(value, dict | None):
                return f"{path} holds no settings: a file of conf/ maps keys to values."
            defaults = (value or {}).get("defaults", [])
            read_value(list[str | dict[str, str | list[str] | None]], defaults, f"{path}: defaults")
        except DataError as error:
            return str(error)
    return None


def _default_config_dir() -> Path:
    return config_dir()


def _groups() -> dict[str, Any]:
    """The config groups: every part of a `RunConfig` that is a dataclass of its own."""
    return {name: kind for name, kind in get_type_hints(RunConfig).items() if dataclasses.is_dataclass(kind)}


@cache
def _leaves() -> Mapping[str, Any]:
    """Every setting's dotted key and its type."""

    def walk(kind: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, hint in get_type_hints(kind).items():
            if dataclasses.is_dataclass(hint):
                yield from walk(hint, f"{prefix}{name}.")
            else:
                yield prefix + name, hint

    return dict(walk(RunConfig, ""))


def _check(overrides: Sequence[str], directory: Path | None) -> list[tuple[str, Any]]:
    """Check each override alone, so that one message can name all that are wrong.

    Args:
        overrides: as typed.
        directory: where group files lie; None: groups are refused.

    Returns:
        Key and value of each override that sets a value.

    Raises:
        ConfigError: at least one cannot stand.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    node = OmegaConf.structured(RunConfig)
    problems: list[str] = []
    pairs: list[tuple[str, Any]] = []
    for text in overrides:
        try:
            parsed = parser.parse_override(text)
        except HydraException as error:
            problems.append(f"{text!r} is not an override ({_flat(error)}). Write key=value, such as algo.lam_high=0.9.")
            continue
        key = parsed.key_or_group
        if parsed.is_delete() or parsed.is_add() or parsed.is_force_add():
            problems.append(f"{text!r}: settings cannot be added or deleted. Write {key}=value.")
        elif parsed.is_sweep_override():
            problems.append(f"{text!r} names several values; a run takes one. Quote a list as '{key}=[a,b]'.")
        elif directory is not None and key and (directory / key).is_dir():
            problems += _group_problem(directory / key, key, parsed.value())
        elif directory is None and key in (*_groups(), "experiment"):
            problems.append(
                f"{text!r} chooses a config file, but this run's config is already composed. Set single values, such as {key}.x=1."
            )
        elif key not in _leaves():
            problems.append(f"there is no setting {key!r}{_suggestion(key, _leaves())}")
        else:
            value = parsed.value()
            problem = _type_problem(node, key, value)
            if problem is None:
                pairs.append((key, value))
            else:
                problems.append(problem)
    _raise(problems)
    return pairs


def _group_problem(folder: Path, group: str, choice: object) -> list[str]:
    options = sorted(path.stem for path in folder.glob("*.yaml"))
    if choice is None or choice in options:
        return []
    return [f"there is no {group}={choice}{_suggestion(str(choice), options)} conf/{group}/ has: {', '.join(options)}."]


def _type_problem(node: DictConfig, key: str, value: Any) -> str | None:
    try:
        OmegaConf.update(node, key, value)
    except OmegaConfBaseException:
        return f"{key}={value} has the wrong type: it must be {_describe(_leaves()[key])}."
    return None


def _describe(hint: Any) -> str:
    """A type in the words of the command line."""
    options = [option for option in get_args(hint) if option is not type(None)]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(member.name for member in hint)
    if getattr(hint, "__origin__", None) is list:
        return f"a list such as [{'a' if options == [str] else '1'}]"
    if options:
        return f"{_describe(options[0])} or null"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))


def _suggestion(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    """The closest of the known keys, as the end of a sentence; a key's last part counts when its path is wrong."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    if not close:
        last = word.rsplit(".", 1)[-1]
        close = [key for key in known if key.rsplit(".", 1)[-1] == last]
    return f"; did you mean {close[0]!r}?" if close else "."


def _flat(error: Exception) -> str:
    """An error's text on one line, with that of its cause where Hydra only says that composing failed."""
    parts = [str(error)] + ([str(error.__cause__)] if error.__cause__ is not None else [])
    return "; ".join(" ".join(part.split()) for part in dict.fromkeys(parts))


def _raise(problems: Sequence[str]) -> None:
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError(f"{len(problems)} settings cannot stand:\n" + "\n".join(f"  - {problem}" for problem in problems))
