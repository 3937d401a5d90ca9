"""What a model directory may hold. It is looked at here before transformers reads it: code and pickles are refused, damage is named.

A model comes from somewhere, and nobody reads it line by line. Weights are numbers in safetensors, a tokenizer is JSON, a chat template
runs in transformers' sandbox. Nothing else in a directory is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hiper.errors import DataError, ModelError
from hiper.runtime.files import write_json
from hiper.runtime.reading import read_json_object

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_NO_MODEL = ("value_heads.safetensors", "critic.safetensors")
_HARMLESS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")  # what a trainer leaves beside the weights; never read


def check_weights(path: Path) -> None:
    """See that a directory's weights and config can be read without running anything of theirs.

    Raises:
        ModelError: code of its own, weights in pickles or of an adapter, something that is no file, a damaged config or index.
    """
    _check_files(path)
    refuse_code(read_object(path / CONFIG), str(path / CONFIG))
    if (path / "adapter_config.json").exists():
        raise ModelError(f"{path} holds an adapter, whose base model would be fetched from elsewhere. Merge it into its base model first.")
    if (path / _INDEX).exists():
        parts = read_object(path / _INDEX).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(name, str) and _is_part(name) for name in parts.values()):
            raise ModelError(f"{path / _INDEX} must map tensors to .safetensors files beside it (weight_map).")
    if next((file for file in path.glob("*.safetensors") if file.name not in _NO_MODEL), None) is not None:
        return
    pickles = sorted(file.name for file in path.iterdir() if file.suffix in _PICKLES and file.name not in _HARMLESS)
    if pickles:
        raise ModelError(
            f"{path} has its weights in pickles ({', '.join(pickles[:3])}), which can run code when they are read; they are not read. "
            "If you trust them, convert them to safetensors with transformers: from_pretrained, then save_pretrained."
        )
    raise ModelError(f"{path} has no weights (model.safetensors). Copy the model anew.")


def write_index(path: Path) -> None:
    """Say in an index that the language model's tensors are in `model.safetensors`; transformers writes one only for several files.

    Without an index vLLM reads every safetensors file of a directory, and would take the value heads for weights of its model.
    """
    if not (path / _WEIGHTS).exists():  # several files, whose index is written
        return
    with safe_open(path / _WEIGHTS, "pt") as file:
        names = sorted(file.keys())
    write_json(path / _INDEX, {"metadata": {"total_size": (path / _WEIGHTS).stat().st_size}, "weight_map": dict.fromkeys(names, _WEIGHTS)})


def check_tokenizer(path: Path) -> dict[str, Any]:
    """`tokenizer_config.json` of a directory whose tokenizer can be read without running anything of its own; empty where there is none.

    Raises:
        ModelError: code of its own, something that is no file, a damaged config.
    """
    _check_files(path)
    if (path / CONFIG).exists():  # transformers looks there for the kind of model, and for code
        refuse_code(read_object(path / CONFIG), str(path / CONFIG))
    config = read_object(path / TOKENIZER_CONFIG) if (path / TOKENIZER_CONFIG).exists() else {}
    refuse_code(config, str(path / TOKENIZER_CONFIG))
    return config


def refuse_code(config: Mapping[str, Any], where: str) -> None:
    """See that a config names no code that comes with the model or from a hub.

    Raises:
        ModelError: it does.
    """
    if config.get("auto_map"):
        raise ModelError(
            f"{where} names code of the model's own (auto_map), which is never run. Use a model that transformers has the code of; "
            "where it does, take auto_map out of a copy."
        )
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"):
        if "/" in str(config.get(key, "")):
            raise ModelError(f"{where} asks for a kernel from a hub ({key}={config[key]!r}), which is code and never fetched. Take it out.")


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a model.

    Raises:
        ModelError: the file is missing or damaged.
    """
    try:
        return read_json_object(file)
    except DataError as error:
        raise ModelError(f"a part of the model is damaged: {error}") from error


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinity; None: all are finite. Whole numbers are, quantised ones too."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or "float4" in str(tensor.dtype):  # four bits have no infinity
            continue
        if not torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor).all():
            return name
    return None


def _check_files(path: Path) -> None:
    """A pipe or a device in place of a file would be waited for."""
    for entry in path.iterdir():
        if not entry.is_file() and not entry.is_dir():
            raise ModelError(f"{entry} is not a file, nor a link to one. Remove it, or copy the model anew.")


def _is_part(name: str) -> bool:
    return name.endswith(".safetensors") and Path(name).name == name
