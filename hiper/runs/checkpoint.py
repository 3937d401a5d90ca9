"""Checkpoints that survive a crash: written aside, synced, checksummed, renamed; read back only when every byte is right.

A checkpoint is a directory of three files: `tensors.safetensors`, `state.json` and `manifest.json`, which lists the size and
SHA-256 of the other two. Loading never unpickles. A directory under its final name is complete, so a process killed anywhere
leaves either the checkpoint or nothing but a hidden directory that the next save removes. One process writes to a directory at a time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hiper.errors import CheckpointError, DataError
from hiper.runtime.files import move, sync
from hiper.runtime.reading import read_json_object

logger = logging.getLogger(__name__)

_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_MANIFEST = "manifest.json"
_FORMAT = 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*?(\d+)")


def save_checkpoint(directory: Path, name: str, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> Path:
    """Write one checkpoint, all or nothing; a checkpoint of the same name is replaced.

    Args:
        directory: where a run keeps its checkpoints; created when missing.
        name: ends in the number that orders checkpoints, such as `iteration-000010`.
        tensors: any shapes and dtypes, on any device; tensors that share memory are written once each.
        state: what JSON can hold, with string keys. Tuples come back as lists.

    Returns:
        The checkpoint's directory.

    Raises:
        ValueError: the name does not end in a number.
        TypeError: `state` holds something JSON would lose or change.
        CheckpointError: the files could not be written; nothing is left behind and earlier checkpoints are untouched.
    """
    _number(name)
    _require_json(state, "state")
    final = directory / name
    temporary = directory / f".{name}.tmp"
    with _writing(final, temporary):
        if not directory.is_dir():
            directory.mkdir(parents=True)
            sync(directory.parent)
        _clear_leftovers(directory)
        temporary.mkdir()
        save_file(_separate(tensors), temporary / _TENSORS)
        _write(temporary / _STATE, json.dumps(dict(state), ensure_ascii=False, indent=1))
        files = {file: _fingerprint(temporary / file) for file in (_TENSORS, _STATE)}
        _write(temporary / _MANIFEST, json.dumps({"format": _FORMAT, "files": files}, indent=1))
        for path in (temporary / _TENSORS, temporary):
            sync(path)
        # A directory cannot be renamed over a full one. Between the two renames the older checkpoints still stand.
        replaced = directory / f".{name}.replaced"
        if final.exists():
            final.rename(replaced)
        move(temporary, final)
        shutil.rmtree(replaced, ignore_errors=True)
    return final


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and state of a checkpoint whose every byte was verified.

    Raises:
        CheckpointError: a file is missing, truncated, altered or of another format; the message names it.
    """
    verify_checkpoint(path)
    try:
        return load_file(path / _TENSORS), read_json_object(path / _STATE)
    except (OSError, DataError, SafetensorError) as error:
        raise CheckpointError(f"Checkpoint {path} cannot be read: {error}.") from error


def load_state(path: Path) -> dict[str, Any]:
    """The state alone of a checkpoint whose every byte was verified; errors as in `load_checkpoint`."""
    verify_checkpoint(path)
    try:
        return read_json_object(path / _STATE)
    except DataError as error:
        raise CheckpointError(f"Checkpoint {path} cannot be read: {error}") from error


def verify_checkpoint(path: Path) -> None:
    """Compare every file of a checkpoint with its manifest.

    Raises:
        CheckpointError: a file is missing, truncated, altered or of another format; the message names it.
    """
    advice = "Use an earlier checkpoint, or train this run again."
    if not path.is_dir():
        raise CheckpointError(f"There is no checkpoint at {path}: it is not a directory.")
    try:
        if not (path / _MANIFEST).exists():
            raise CheckpointError(f"Checkpoint {path} is incomplete: {_MANIFEST} is missing. {advice}")
        manifest = read_json_object(path / _MANIFEST)
        written, expected = manifest["format"], {name: manifest["files"][name] for name in (_TENSORS, _STATE)}
    except (DataError, KeyError, TypeError) as error:
        raise CheckpointError(f"Checkpoint {path} is damaged: {_MANIFEST} cannot be read ({error}). {advice}") from error
    if written != _FORMAT:
        raise CheckpointError(f"Checkpoint {path} has format {written!r}; this version reads format {_FORMAT}. {advice}")
    for name, recorded in expected.items():
        try:
            found = _fingerprint(path / name)
        except FileNotFoundError as error:
            raise CheckpointError(f"Checkpoint {path} is incomplete: {name} is missing. {advice}") from error
        except OSError as error:
            raise CheckpointError(f"Checkpoint {path} is damaged: {name} cannot be read ({error}). {advice}") from error
        if found != recorded:
            size = recorded.get("bytes") if isinstance(recorded, dict) else None
            what = (
                "its SHA-256 differs from the manifest's"
                if found["bytes"] == size
                else f"it has {found['bytes']} bytes, the manifest says {size}"
            )
            raise CheckpointError(f"Checkpoint {path} is damaged: {name} was truncated or altered, {what}. {advice}")


def list_checkpoints(directory: Path) -> list[Path]:
    """Checkpoints of a directory, oldest first, by the number in their name; not verified."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_number(path.name), path.name))


def latest_checkpoint(directory: Path, usable: Callable[[Path], None] = lambda path: None) -> Path | None:
    """The newest checkpoint whose every byte is right; None when there is no checkpoint at all.

    One that cannot be used is reported in the log and passed over.

    Args:
        directory: where a run keeps its checkpoints.
        usable: raises a CheckpointError where a verified checkpoint cannot be used all the same.

    Raises:
        CheckpointError: there are checkpoints and none can be used. (Starting afresh would silently throw a run away.)
    """
    candidates = list_checkpoints(directory)
    problems: list[str] = []
    for path in reversed(candidates):
        try:
            verify_checkpoint(path)
            usable(path)
        except CheckpointError as error:
            logger.warning("Passing over a checkpoint, an earlier one will be used. %s", error)
            problems.append(str(error))
        else:
            return path
    if candidates:
        raise CheckpointError(
            f"No checkpoint in {directory} can be used. The newest of {len(candidates)}: {problems[0]} "
            "To train from the start instead, add --force: what is there is then set aside."
        )
    return None


def prune(directory: Path, newest: str, keep_last: int, keep: set[str]) -> None:
    """Delete all but `newest`, the `keep_last - 1` before it and those named in `keep`, and what killed processes left.

    Later ones than `newest` go too: a run that went back behind them, because they were damaged, makes them again, and if they counted
    as the last ones they would push its new ones out.

    Raises:
        ValueError: `keep_last` is below 1.
    """
    if keep_last < 1:
        raise ValueError(f"keep_last={keep_last} would delete the newest checkpoint; it must be at least 1.")
    _clear_leftovers(directory)
    found = list_checkpoints(directory)
    past = [path.name for path in found if _number(path.name) <= _number(newest)]
    for path in found:
        if path.name not in keep.union(past[-keep_last:]):
            # Renamed first: a process killed half-way through the deletion leaves no half checkpoint under a real name.
            hidden = path.with_name(f".{path.name}.replaced")
            path.rename(hidden)
            shutil.rmtree(hidden, ignore_errors=True)


# Random number generators


def generator_state(generator: torch.Generator) -> torch.Tensor:
    """State of a torch generator, (S,) uint8 on the CPU."""
    return generator.get_state().cpu()


def restore_generator(generator: torch.Generator, state: torch.Tensor) -> None:
    """Put a torch generator back to `generator_state`'s result."""
    generator.set_state(state.cpu())


def python_random_state(source: random.Random) -> list[Any]:
    """State of a `random.Random`, as JSON."""
    version, internal, gauss_next = source.getstate()
    return [version, list(internal), gauss_next]


def restore_python_random(source: random.Random, state: list[Any]) -> None:
    """Put a `random.Random` back to `python_random_state`'s result."""
    version, internal, gauss_next = state
    source.setstate((version, tuple(internal), gauss_next))


def numpy_state(source: np.random.Generator) -> dict[str, Any]:
    """State of a numpy generator of any kind, as JSON."""
    return {key: _from_numpy(value) for key, value in source.bit_generator.state.items()}


def restore_numpy(source: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Put a numpy generator back to `numpy_state`'s result.

    Raises:
        CheckpointError: the state belongs to another kind of generator.
    """
    try:
        source.bit_generator.state = {key: _to_numpy(value) for key, value in state.items()}
    except (ValueError, KeyError, TypeError) as error:
        kind = type(source.bit_generator).__name__
        raise CheckpointError(f"A {kind} generator cannot take the state of {state.get('bit_generator')!r}: {error}.") from error


# Optimisers


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimiser's state as flat tensors and JSON, exact to the bit.

    Returns:
        Tensors named `<parameter index>.<key>`, such as `0.exp_avg`, or `group.<index>.<key>`; and the rest as JSON.
    """
    record = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    rest: dict[str, Any] = {"state": {}, "groups": []}
    for index, entries in record["state"].items():
        plain = rest["state"].setdefault(str(index), {})
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}.{key}"] = value.detach()
            else:
                plain[key] = value
    for number, group in enumerate(record["param_groups"]):
        plain = {}
        for key, value in group.items():
            if isinstance(value, torch.Tensor):
                tensors[f"group.{number}.{key}"] = value.detach()
            else:
                plain[key] = {"tuple": list(value)} if isinstance(value, tuple) else value
        rest["groups"].append(plain)
    return tensors, rest


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], rest: Mapping[str, Any]) -> None:
    """Put an optimiser back to `optimizer_tensors`' result; its parameters must be the same, in the same order.

    Raises:
        CheckpointError: the state belongs to other parameters or groups.
    """
    groups = [
        {key: tuple(value["tuple"]) if isinstance(value, dict) else value for key, value in group.items()} for group in rest["groups"]
    ]
    state: dict[int, dict[str, Any]] = {int(index): dict(plain) for index, plain in rest["state"].items()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sizes, expected = [len(group["params"]) for group in groups], [len(group["params"]) for group in optimizer.param_groups]
    if sizes != expected:
        raise CheckpointError(
            f"The checkpoint's optimiser has parameter groups of {sizes} tensors, this run's has {expected}: it belongs to another model."
        )
    for name, tensor in tensors.items():
        owner, _, key = name.partition(".")
        if owner == "group":
            number, _, key = key.partition(".")
            groups[int(number)][key] = tensor.clone()
            continue
        shape = parameters[int(owner)].shape
        if tensor.dim() and tensor.shape != shape:  # scalars are step counters
            raise CheckpointError(
                f"The checkpoint's optimiser tensor {name} has shape {tuple(tensor.shape)}, this run's parameter {tuple(shape)}: "
                "it belongs to another model."
            )
        state[int(owner)][key] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def add_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors renamed `<prefix>.<name>`, so that several dictionaries share one checkpoint."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def strip_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under a prefix, under their own names: the inverse of `add_prefix`."""
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


# Files


@contextmanager
def _writing(final: Path, temporary: Path) -> Iterator[None]:
    """Whatever stops a save, the temporary directory goes; a failure of the disk becomes a CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _disk_full(error):
            why = f"no space left on the disk of {final.parent}. Free some, or lower trainer.keep_last, then resume the run"
        else:
            why = f"{error}. Mend that, then resume the run"
        raise CheckpointError(f"Checkpoint {final} was not written: {why}. Earlier checkpoints are intact.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already, renamed, when all went well


def _disk_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(f"os error {code})" in str(error) for code in (errno.ENOSPC, errno.EDQUOT))  # safetensors passes on Rust's wording


def _clear_leftovers(directory: Path) -> None:
    """Remove what killed processes left."""
    for path in directory.glob(".*"):
        if path.suffix in (".tmp", ".replaced") and path.is_dir():
            shutil.rmtree(path)


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _fingerprint(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "bytes": os.fstat(file.fileno()).st_size}


def _number(name: str) -> int:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(f"checkpoint name {name!r} does not end in a number; a name such as 'iteration-000010' orders checkpoints.")
    return int(match[1])


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous CPU tensors, no two on one storage: safetensors refuses to write tied weights."""
    seen: set[int] = set()
    separate: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        separate[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    return separate


def _require_json(value: object, where: str) -> None:
    """JSON turns integer keys into strings without a word; that and foreign types are refused by place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}, which JSON would turn into a string; use string keys.")
            _require_json(item, f"{where}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _require_json(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{where} is {value}, which JSON cannot hold.")
    elif not (value is None or isinstance(value, (str, int, float, bool))):
        raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold; tensors go into `tensors`.")


def _from_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"dtype": str(value.dtype), "values": value.tolist()}
    if isinstance(value, dict):
        return {key: _from_numpy(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _to_numpy(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"dtype", "values"}:
            return np.asarray(value["values"], dtype=value["dtype"])
        return {key: _to_numpy(item) for key, item in value.items()}
    return value
