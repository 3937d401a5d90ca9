"""From overrides to a checked `RunConfig`: the one door through which settings come in.

`conf/` chooses and changes values, `hiper.config` holds the schema. A key that does not exist, a value of the wrong type and
a number out of range are all refused here, together, before anything is computed. Hydra is imported only where something is
composed; `build` needs OmegaConf alone.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hiper.algos.registry import algorithms, settings_of
from hiper.composition.keys import describe, groups, known_keys, leaves, suggestion, unread
from hiper.composition.sections import as_config, as_node, default_node, schema, suite_sections
from hiper.config import DEFAULT_ALGO, RunConfig, SharedConfig
from hiper.config.algo import AlgoConfig, broken_promise
from hiper.config.checks import REFERENCE, collect_problems
from hiper.config.dotted import flat
from hiper.config.places import config_dirs
from hiper.errors import ConfigError, DataError
from hiper.runtime.reading import check_yaml, read_yaml
from hiper.runtime.records import read_value

T = TypeVar("T")

_NAME = re.compile(r"[\w.-]+")
_hydra_lock = threading.Lock()  # Hydra keeps its state in a global; composing is not thread-safe

PLACES = ("tasks.data", "model.path", "paths.run", "paths.base")
"""Settings that may be taken from the environment, as ${oc.env:VARIABLE}: where things are on this machine. A run's config is written with
its values and shared, so that no other setting can carry the contents of a variable into a file."""

_VARIABLE = re.compile(r"\$\{oc\.env:[A-Za-z_][A-Za-z0-9_]*(,[^${}]*)?\}")


def register_schemas(directories: Sequence[Path] = ()) -> None:
    """Tell Hydra's store about the dataclasses: `hiper_config`, `hiper_<group>` in each group, and `hiper_<name>` of each estimator.

    The store is one for all of a process, and Hydra's plugins are read by every Hydra program of an environment: hence the prefix.

    Args:
        directories: of YAML files; an estimator without a file in their algo/ can be chosen by its name all the same.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="hiper_config", node=default_node(AlgoConfig()))  # a part that any estimator's can be merged into
    for name, section in groups().items():
        if name != "algo":
            store.store(group=name, name=f"hiper_{name}", node=section)
    for name, algorithm in algorithms().items():
        store.store(group="algo", name=f"hiper_{name}", node=algorithm.settings)
        if directories:
            store.repo["algo"].pop(f"{name}.yaml", None)  # of directories that had no such file
            if not any((directory / "algo" / f"{name}.yaml").is_file() for directory in directories):
                store.store(group="algo", name=name, node=algorithm.settings)


def compose(overrides: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig:
    """Compose `conf/` with overrides, as `hiper run experiment=quickstart algo.lam_high=0.9` does.

    Args:
        overrides: Hydra overrides: `key.path=value`, or `group=file`.
        config_dir: the only directory of YAML files; unset: see `hiper.config.places.config_dirs`.

    Raises:
        ConfigError: overrides or values that cannot stand; the message lists all of them.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    directories = config_dirs() if config_dir is None else (Path(config_dir).resolve(),)
    directory = directories[0]
    if not (directory / "config.yaml").is_file():
        raise ConfigError(f"no config.yaml in {directory}. Name a folder laid out like conf/.")
    values = _check(overrides, directories)
    files = _check_files(directories, overrides)
    register_schemas(directories)
    beside = ",".join(f"'file://{path}'" for path in directories[1:])
    search = [f"hydra.searchpath=[{beside}]"] if beside else []
    # Which settings `algo` has is known once the estimator is: until then, values in it wait.
    late = [value for value in values if value.key.startswith("algo.")]
    waiting = {value.text for value in late}
    with _hydra_lock:
        try:
            with initialize_config_dir(str(directory), version_base="1.3"):
                composed = hydra_compose("config", overrides=[*search, *(text for text in overrides if text not in waiting)])
        except Exception as error:  # Hydra checks little of what it reads: a list for a mapping is an AssertionError
            raise ConfigError(_odd_file(files) or f"cannot compose {directory}: {_flat(error)}{_who_reads(error)}") from error
    if OmegaConf.get_type(composed) is not schema():
        raise ConfigError(f"{directory / 'config.yaml'} does not compose an experiment: its defaults must start with `hiper_config`.")
    _set(composed, late, "choose it by its file or name instead: write algo={}.")
    return build(composed)


def schema_of(settings: object) -> DictConfig:
    """Every setting's default, as a node that saved settings can be merged into; the estimator is the one that they name.

    Raises:
        ConfigError: there is no such estimator, or it has no such setting.
    """
    algo = settings.get("algo") if isinstance(settings, Mapping) else None
    name = algo.get("name", DEFAULT_ALGO) if isinstance(algo, Mapping) else DEFAULT_ALGO
    node = default_node(settings_of(name)())
    keys = leaves(settings_of(name))
    for key in _other_algo_settings(algo, keys):
        raise ConfigError(unread(key, name, keys))
    return node


def _other_algo_settings(algo: object, keys: Mapping[str, Any]) -> Iterator[str]:
    """Settings in `algo` that are another estimator's."""
    if isinstance(algo, Mapping):
        every = known_keys()
        yield from (f"algo.{name}" for name in algo if f"algo.{name}" in every and f"algo.{name}" not in keys)


def build(node: DictConfig) -> RunConfig:
    """Turn composed settings into dataclasses, interpolations resolved.

    Published values (`algo.published`) are applied here, last of all: whatever composed the node, they hold.

    Raises:
        ConfigError: settings out of range, or interpolations other than of settings, and of environment variables in `PLACES`; the
            message lists all of them.
    """
    _raise(list(_interpolation_problems(OmegaConf.to_container(node, resolve=False))))
    for key, value in _published(node).items():
        try:
            OmegaConf.update(node, key, value)
        except OmegaConfBaseException as error:
            raise ConfigError(f"algo={OmegaConf.select(node, 'algo.preset')} publishes {key}={value}: {_flat(error)}") from error
    with collect_problems() as problems:
        try:
            composed = OmegaConf.to_object(node)
        except (OmegaConfBaseException, RecursionError) as error:  # `name: ${name}` refers to itself
            raise ConfigError(_flat(error)) from error
    _raise(problems)
    if not isinstance(composed, SharedConfig):
        raise ConfigError(f"the composed config is a {type(composed).__name__}: config.yaml must start with `hiper_config`.")
    config = as_config(composed)
    _raise(list(_unread(composed)))
    return config


def _unread(composed: SharedConfig) -> Iterator[str]:
    """Settings that were changed and that the suite does not read."""
    for name, kind in suite_sections().items():
        if name == composed.env.name:
            continue
        values, defaults = (flat(dataclasses.asdict(one), f"{name}.") for one in (getattr(composed, name), kind()))
        for key, value in values.items():
            if value != defaults[key]:
                yield f"{key}={value}: env.name={composed.env.name} does not read it. Leave it at {defaults[key]}."


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
    values = _check(overrides, ())
    node = as_node(config)
    _set(node, values, "this config is composed for another. Compose one with algo={}.")
    return build(node)


class _Value(NamedTuple):
    """An override that sets a value."""

    text: str
    key: str
    value: Any


def _set(node: DictConfig, values: Sequence[_Value], how_to_choose: str) -> None:
    """Set values in a composed node.

    Raises:
        ConfigError: the chosen estimator has no such setting, it is of another type, or another value is published; the message lists all.
    """
    name = str(OmegaConf.select(node, "algo.name"))
    keys, published = leaves(settings_of(name)), _published(node)
    problems: list[str] = []
    for _, key, value in values:
        if key == "algo.name":
            if value != name:
                problems.append(f"algo.name={value}: an estimator comes with settings of its own; " + how_to_choose.format(value))
        elif key not in keys:
            problems.append(unread(key, name, keys))
        elif (problem := _type_problem(node, key, value, keys[key])) is not None:
            problems.append(problem)
        elif key in published:
            asked = OmegaConf.select(node, key)
            OmegaConf.update(node, key, published[key])
            if asked != OmegaConf.select(node, key):
                preset = OmegaConf.select(node, "algo.preset")
                problems.append(broken_promise(preset, key.removeprefix("algo."), value, published[key]))
    _raise(problems)


def _published(node: DictConfig) -> dict[str, Any]:
    """The values that a preset promises, by dotted key."""
    published = OmegaConf.select(node, "algo.published")
    return {} if published is None else flat(OmegaConf.to_container(published), "algo.")  # type: ignore[arg-type]  # a mapping's container


def _type_problem(node: DictConfig, key: str, value: Any, hint: Any) -> str | None:
    try:
        OmegaConf.update(node, key, value)
    except OmegaConfBaseException:
        return f"{key}={value} has the wrong type: it must be {describe(hint)}."
    return None


def _interpolation_problems(node: Any) -> Iterator[str]:
    """Interpolations that could carry something into a saved config that is not a setting."""
    for key, text in _texts(node):
        allowed = key in PLACES
        rest = _VARIABLE.sub("", text) if allowed else text
        for target in REFERENCE.findall(rest):
            if target not in known_keys():
                yield f"{key}={text!r} refers to {target!r}, which is no setting{suggestion(target, known_keys())}"
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


def _check_files(directories: Sequence[Path], overrides: Sequence[str]) -> list[Path]:
    """Read the files that may be composed before Hydra does, which would wait for a pipe and unfold any alias.

    A file can only be chosen where its name stands, in an override or in a file that is chosen.

    Returns:
        Them, and perhaps some that will not be.

    Raises:
        ConfigError: one is damaged; the message names it.
    """
    files: list[Path] = []
    waiting: dict[str, list[Path]] = {}
    for path in chain.from_iterable(directory.rglob("*.yaml") for directory in directories):
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


def _who_reads(error: Exception) -> str:
    """What to do where a file sets what the chosen estimator does not read, as the end of a message."""
    key = getattr(error.__context__, "full_key", None)
    readers = [name for name, algorithm in algorithms().items() if key in leaves(algorithm.settings)]
    if not readers or not str(key).startswith("algo."):
        return ""
    return (
        f". {key} is read by {', '.join(readers)}. An experiment's algo block holds what every estimator reads; what some alone read "
        "stands in a file of algo/ that the experiment chooses."
    )


def _check(overrides: Sequence[str], directories: Sequence[Path]) -> list[_Value]:
    """Check each override alone, so that one message can name all that are wrong.

    Args:
        overrides: as typed.
        directories: where group files lie; none: groups are refused.

    Returns:
        Each override that sets a value. Those in `algo` depend on the estimator and are only known to be of one that there is.

    Raises:
        ConfigError: at least one cannot stand.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    node, keys = OmegaConf.structured(schema()), known_keys()
    problems: list[str] = []
    values: list[_Value] = []
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
        elif directories and key and (key == "algo" or any((directory / key).is_dir() for directory in directories)):
            problems += _group_problem(directories, key, parsed.value())
        elif not directories and key in (*groups(), "experiment"):
            problems.append(
                f"{text!r} chooses a config file, but this run's config is already composed. Set single values, such as {key}.x=1."
            )
        elif key not in keys:
            problems.append(f"there is no setting {key!r}{suggestion(key, keys)}")
        else:
            value = parsed.value()
            problem = None if key.startswith("algo.") else _type_problem(node, key, value, keys[key])
            if problem is None:
                values.append(_Value(text, key, value))
            else:
                problems.append(problem)
    _raise(problems)
    return values


def _group_problem(directories: Sequence[Path], group: str, choice: object) -> list[str]:
    names = algorithms() if group == "algo" else ()
    options = sorted({*names, *(path.stem for directory in directories for path in (directory / group).glob("*.yaml"))})
    if choice is None or choice in options:
        return []
    looked = " and ".join(str(directory / group) for directory in directories)
    return [f"there is no {group}={choice}{suggestion(str(choice), options)} {looked} has: {', '.join(options)}."]


def _flat(error: Exception) -> str:
    """An error's text on one line, with that of its cause where Hydra only says that composing failed."""
    parts = [str(error)] + ([str(error.__cause__)] if error.__cause__ is not None else [])
    return "; ".join(" ".join(part.split()) for part in dict.fromkeys(parts))


def _raise(problems: Sequence[str]) -> None:
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError(f"{len(problems)} settings cannot stand:\n" + "\n".join(f"  - {problem}" for problem in problems))
