"""Rules of the actor and its directory.

1. Values are three float32 numbers a position, zero before training; `shared` reads them off the actor's trunk, `separate` off a copy that
   the actor's weights do not reach, nor the other way round.
2. What is saved comes back to the bit, heads and critic included, and `from_pretrained` loads the directory.
3. A directory that lacks or garbles something is named with what to do; pickled weights are never read.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from hiper.config import Critic, ModelConfig, TinyConfig
from hiper.errors import ModelError
from hiper.model.actor import CRITIC_FILE, HEADS_FILE, Actor, load_actor, load_lm, save_actor
from hiper.model.tiny import build_tiny
from hiper.rollout.chat import ChatCodec

SHAPE = TinyConfig(hidden=32, layers=2, heads=2, kv_heads=2, intermediate=48)
IDS = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=list(Critic))
def actor(request: pytest.FixtureRequest, words: PreTrainedTokenizerBase) -> Actor:
    made = Actor(build_tiny(SHAPE, words, seed=0), request.param).eval()
    with torch.no_grad():
        made.heads.weight.normal_(generator=torch.Generator().manual_seed(1))
        made.heads.bias.fill_(0.25)
    return made


def config(actor: Actor) -> ModelConfig:
    return ModelConfig(critic=actor.critic_kind)


def test_values_start_at_zero(words: PreTrainedTokenizerBase) -> None:
    values = Actor(build_tiny(SHAPE, words, seed=0), Critic.shared)(IDS).values
    assert values.shape == (2, 9, 3)
    assert values.dtype == torch.float32
    assert not values.any()


@torch.no_grad()
def test_logits_are_the_language_models(actor: Actor) -> None:
    out = actor(IDS, with_values=False)
    torch.testing.assert_close(actor.logits(out.hidden), actor.lm(input_ids=IDS).logits)
    assert out.values.numel() == 0


def test_which_weights_a_value_depends_on(actor: Actor) -> None:
    actor(IDS).values.sum().backward()
    moved = any(parameter.grad is not None for parameter in actor.actor_parameters())
    assert moved == (actor.critic_kind is Critic.shared)
    assert all(parameter.grad is not None for parameter in actor.critic_parameters())
    named = {id(p) for p in actor.parameters()}
    split = [id(p) for p in [*actor.actor_parameters(), *actor.critic_parameters()]]
    assert sorted(split) == sorted(named), "every parameter is trained by exactly one of the two optimiser groups"


@torch.no_grad()
def test_saving_and_loading_is_exact(actor: Actor, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    if actor.critic is not None:
        for parameter in actor.critic.parameters():
            parameter.add_(0.01)
    save_actor(actor, words, tmp_path / "model", ChatCodec(words).generation(40))
    loaded = load_actor(tmp_path / "model", config(actor))
    ours, theirs = actor.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(a, b) for a, b in zip(actor(IDS), loaded(IDS), strict=True))
    assert (tmp_path / "model" / CRITIC_FILE).exists() == (actor.critic is not None)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(plain(input_ids=IDS).logits, actor.lm(input_ids=IDS).logits)


def test_a_plain_model_gets_fresh_heads(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    build_tiny(SHAPE, words, seed=0).save_pretrained(tmp_path)
    loaded = load_actor(tmp_path, ModelConfig(critic=Critic.separate))
    assert not loaded.heads.weight.any()
    assert loaded.critic is not None
    trunk, critic = loaded.trunk.state_dict(), loaded.critic.state_dict()
    assert all(torch.equal(trunk[name], critic[name]) for name in trunk)


def test_missing_and_damaged_parts_are_named(actor: Actor, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_actor(actor, words, folder, ChatCodec(words).generation(40))
    heads = (folder / HEADS_FILE).read_bytes()
    (folder / HEADS_FILE).write_bytes(heads[:-4])
    with pytest.raises(ModelError, match=rf"{HEADS_FILE} does not fit the model.*Remove it to start with fresh value heads"):
        load_actor(folder, config(actor))
    (folder / HEADS_FILE).write_bytes(heads)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot load a causal language model from"):
        load_actor(folder, config(actor))
    weights.unlink()
    with pytest.raises(ModelError, match=r"has no weights \(model.safetensors\)"):
        load_actor(folder, config(actor))


def test_heads_of_another_size_are_refused(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    wide, generation = TinyConfig(hidden=64, layers=2, heads=2, kv_heads=2, intermediate=48), ChatCodec(words).generation(40)
    save_actor(Actor(build_tiny(SHAPE, words, seed=0), Critic.shared), words, tmp_path / "small", generation)
    save_actor(Actor(build_tiny(wide, words, seed=0), Critic.shared), words, tmp_path / "wide", generation)
    (tmp_path / "wide" / HEADS_FILE).write_bytes((tmp_path / "small" / HEADS_FILE).read_bytes())
    with pytest.raises(ModelError, match=HEADS_FILE):
        load_actor(tmp_path / "wide", ModelConfig())


def test_pickled_weights_are_never_read(words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model = build_tiny(SHAPE, words, seed=0)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has its weights in pickles \(pytorch_model.bin\)"):
        load_lm(tmp_path)


def test_the_asked_for_dtype(actor: Actor, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    save_actor(actor, words, tmp_path, ChatCodec(words).generation(40))
    loaded = load_actor(tmp_path, ModelConfig(critic=actor.critic_kind, dtype="bfloat16"))
    assert loaded.lm.dtype == torch.bfloat16
    out = loaded(IDS)
    assert out.values.dtype == torch.float32, "heads stay exact however small the trunk's numbers are"
    assert loaded.logits(out.hidden).dtype == torch.float32
