"""Rules of foreign model directories.

1. Nothing in a directory is run or asked about: not code it names, not pickles, not a template's attributes; whatever is on standard input.
2. Tensors that are missing, too many, of another size or not finite are refused by name, value heads too; quantised ones are no trouble.
3. Damage of any file is one ModelError that names it: truncated, flipped, of another kind, nested too deeply, a pipe.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from hiper.config import Critic, ModelConfig, TinyConfig
from hiper.errors import ModelError
from hiper.model.actor import CRITIC_FILE, HEADS_FILE, Actor, load_actor, load_lm, load_tokenizer, save_actor
from hiper.model.folder import not_finite
from hiper.model.tiny import build_tiny
from hiper.rollout.chat import ChatCodec

SHAPE = TinyConfig(hidden=32, layers=2, heads=2, kv_heads=2, intermediate=48)
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(words: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    """A model directory with everything in it."""
    folder = tmp_path / "model"
    save_actor(Actor(build_tiny(SHAPE, words, seed=0), Critic.separate), words, folder, ChatCodec(words).generation(40))
    return folder


def load(folder: Path) -> None:
    load_tokenizer(folder)
    load_actor(folder, ModelConfig(critic=Critic.separate))


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def with_code(folder: Path, marker: Path) -> None:
    """Every place from which transformers can be made to run a model's own code."""
    for name in ("evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n", encoding="utf-8")


def code_in_config(folder: Path, marker: Path) -> None:
    with_code(folder, marker)
    edit(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"})


def code_in_config_of_a_known_model(folder: Path, marker: Path) -> None:
    with_code(folder, marker)
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "evil.Evil"})


def code_in_tokenizer(folder: Path, marker: Path) -> None:
    with_code(folder, marker)
    edit(folder / "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})


def kernel_from_a_hub(folder: Path, marker: Path) -> None:
    edit(folder / "config.json", attn_implementation="someone/kernel")


def pickles(folder: Path, marker: Path) -> None:
    """Instead of weights; the value heads beside them stay, and are no model."""
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Evil(marker)))
    (folder / WEIGHTS).unlink()


def index_of_pickles(folder: Path, marker: Path) -> None:
    pickles(folder, marker)
    names = load_file_names(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, "pytorch_model.bin")}))


def load_file_names(folder: Path) -> list[str]:
    return list(load_file(folder / CRITIC_FILE))


def template_that_reaches_out(folder: Path, marker: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{{ messages.__class__.__base__.__subclasses__() }}{{ cycler.__init__.__globals__.os.system('touch " + str(marker) + "') }}"
    )


HOSTILE = [
    (code_in_config, "names code of the model's own"),
    (code_in_config_of_a_known_model, "names code of the model's own"),
    (code_in_tokenizer, "names code of the model's own"),
    (kernel_from_a_hub, "asks for a kernel from a hub"),
    (pickles, "convert them to safetensors"),
    (index_of_pickles, "must map tensors to .safetensors files"),
    (template_that_reaches_out, "chat_template.jinja does not write a conversation"),
]


def test_a_model_directory_runs_nothing(model: Path, tmp_path: Path) -> None:
    """In a process of its own, with "y" on standard input for whoever asks."""
    marker = tmp_path / "ran"
    folders = []
    for damage, _ in HOSTILE:
        folder = tmp_path / damage.__name__
        subprocess.run(["cp", "-r", str(model), str(folder)], check=True)
        damage(folder, marker)
        folders.append(str(folder))
    code = """
import sys
from hiper.config import ModelConfig
from hiper.errors import ModelError
from hiper.model.actor import load_actor, load_tokenizer
for folder in sys.argv[1:]:
    said = []
    for load in (load_tokenizer, lambda path: load_actor(path, ModelConfig())):
        try:
            load(folder)
        except ModelError as error:
            said.append(str(error))
    print(repr(said))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, *folders], input="y\n" * 20, capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == len(HOSTILE), ran.stdout
    for line, (damage, said) in zip(lines, HOSTILE, strict=True):
        assert said in line, (damage.__name__, line)
    assert not marker.exists()


def test_the_hostile_files_would_run(model: Path, tmp_path: Path) -> None:
    """What the test above relies on."""
    pickles(model, tmp_path / "ran")
    pickle.loads((model / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "ran").exists()


def test_pickles_beside_safetensors_are_not_read(model: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (model / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    load(model)
    assert not (tmp_path / "ran").exists()


def test_missing_and_unexpected_tensors_are_refused(model: Path) -> None:
    tensors = load_file(model / WEIGHTS)
    assert "lm_head.weight" not in tensors, "tied to the embedding, so it is no missing tensor"
    load(model)
    half = dict(list(tensors.items())[: len(tensors) // 2])
    save_file(half, model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit its config: missing tensors \(model\..* and \d+ more\)"):
        load(model)
    save_file(tensors | {"model.layers.7.mlp.up_proj.weight": torch.zeros(2, 2)}, model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"do not fit its config: unexpected tensors \(model\.layers\.7\.mlp\.up_proj\.weight\)"):
        load(model)
    save_file(tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}, model / WEIGHTS, metadata={"format": "pt"})
    load(model)
    save_file(tensors | {"model.norm.weight": torch.zeros(7)}, model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="cannot load a causal language model from"):
        load(model)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("file", "name"), [(WEIGHTS, "model.layers.1.mlp.up_proj.weight"), (HEADS_FILE, "bias"), (CRITIC_FILE, "layers.0.mlp.up_proj.weight")]
)
def test_weights_that_are_not_finite_are_refused(model: Path, file: str, name: str, bad: float) -> None:
    tensors = load_file(model / file)
    tensors[name].view(-1)[-1] = bad
    save_file(tensors, model / file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"NaN or infinity, in {name}"):
        load(model)


def test_a_missing_tensor_of_the_critic_is_refused(model: Path) -> None:
    tensors = load_file(model / CRITIC_FILE)
    del tensors["norm.weight"]
    save_file(tensors, model / CRITIC_FILE)
    with pytest.raises(ModelError, match=rf"{CRITIC_FILE} does not fit the model"):
        load(model)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_quantised_tensors_are_looked_at_too(kind: torch.dtype) -> None:
    assert not_finite({"whole": torch.ones(8).to(kind)}) is None
    if kind.is_floating_point:
        assert not_finite({"fine": torch.ones(8).to(kind), "bad": torch.full((8,), float("nan")).to(kind)}) == "bad"


def test_four_bits_are_never_infinite() -> None:
    assert not_finite({"a": torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}) is None


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["[]", "{", "", "7", DEEP, '{"a": 1e999}', '{"model_type": ["x"]}', "\udcff\udcfe"])
def test_damaged_json_is_one_error(model: Path, file: str, content: str) -> None:
    (model / file).write_text(content, encoding="utf-8", errors="surrogateescape")
    try:
        load(model)
    except ModelError as error:
        assert str(model) in str(error)
    else:  # transformers makes a generation_config.json of its own where there is none that it can read, and reads on past odd entries
        assert file == "generation_config.json" or content.startswith('{"')


def test_a_tokenizer_config_that_is_a_list_is_named(model: Path) -> None:
    """A fixed bug: AttributeError."""
    (model / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelError, match=r"a part of the model is damaged: .*tokenizer_config.json holds a list"):
        load_tokenizer(model)


@pytest.mark.parametrize(
    "template", ["{% for message in %}", "{{ raise_exception('no') }}", "{{ messages[9].content.x }}", "{{ 1 / 0 }}", "{{ nothing() }}"]
)
def test_a_broken_template_is_named(model: Path, template: str) -> None:
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises(ModelError, match=r"chat_template.jinja does not write a conversation: "):
        load_tokenizer(model)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json", "pipe"])
def test_a_pipe_is_not_waited_for(model: Path, name: str) -> None:
    (model / name).unlink(missing_ok=True)
    os.mkfifo(model / name)
    for one in (load_tokenizer, load_lm):
        with pytest.raises(ModelError, match=f"{name} is not a file"):
            one(model)


@pytest.mark.parametrize("file", [WEIGHTS, HEADS_FILE, CRITIC_FILE])
def test_truncated_and_flipped_weights_are_one_error(model: Path, file: str) -> None:
    whole = (model / file).read_bytes()
    for damaged in (b"", whole[:4], whole[:100], whole[:-1], b"\xff" * 8 + whole[8:], whole[:9] + b"\x00" + whole[10:], DEEP.encode()):
        (model / file).write_bytes(damaged)
        with pytest.raises(ModelError, match="model"):
            load(model)
