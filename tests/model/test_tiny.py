"""Rules of models built from scratch.

1. The same seed gives the same weights, and building one leaves torch's own generator alone; the default size is about 0.7 M parameters.
2. `copying`: layer 0 attends to the previous token, and an untrained model repeats a random sequence, which `default` does not.
3. A shape the initialisation cannot be written into is refused.
4. It is Qwen2's network under another name: names, fresh weights, loss and gradients are the same to the bit, in training too.
"""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from hiper.config import Init, TinyConfig
from hiper.errors import ConfigError
from hiper.model.tiny import build_tiny


def repeats(words: PreTrainedTokenizerBase, init: Init, length: int = 20) -> float:
    """Share of a random sequence's tokens that a fresh model predicts the second time round."""
    model = build_tiny(TinyConfig(init=init), words, seed=0).eval()
    once = torch.randint(5, len(words), (16, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        predicted = model(input_ids=torch.cat([once, once], 1)).logits.argmax(-1)
    return float((predicted[:, length:-1] == once[:, 1:]).float().mean())


def test_a_seed_is_a_model(words: PreTrainedTokenizerBase) -> None:
    before = torch.get_rng_state()
    models = [build_tiny(TinyConfig(), words, seed).state_dict() for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert not torch.equal(models[0]["model.embed_tokens.weight"], models[2]["model.embed_tokens.weight"])


def test_the_default_size(words: PreTrainedTokenizerBase) -> None:
    model = build_tiny(TinyConfig(), words, seed=0)
    assert model.num_parameters() == pytest.approx(0.7e6, rel=0.1)
    assert model.config.vocab_size == len(words)
    assert model.config.eos_token_id == words.eos_token_id
    assert model.config.rope_parameters["rope_theta"] == TinyConfig().rope_theta


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_it_is_the_network_of_qwen2(words: PreTrainedTokenizerBase, kv_heads: int) -> None:
    cfg = TinyConfig(hidden=64, heads=4, kv_heads=kv_heads, intermediate=96, init=Init.default)
    tiny = build_tiny(cfg, words, seed=3)
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=cfg.hidden,
        intermediate_size=cfg.intermediate,
        num_hidden_layers=cfg.layers,
        num_attention_heads=cfg.heads,
        num_key_value_heads=cfg.kv_heads,
        max_position_embeddings=cfg.max_positions,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": cfg.rope_theta},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        qwen = Qwen2ForCausalLM(config)
    fresh, theirs = tiny.state_dict(), qwen.state_dict()
    assert list(fresh) == list(theirs)
    embedding = {"model.embed_tokens.weight", "lm_head.weight"}  # ours starts words of several words as their sum
    assert all(torch.equal(fresh[name], theirs[name]) for name in set(fresh) - embedding)
    qwen.load_state_dict(fresh)
    ids = torch.randint(5, len(words), (3, 40), generator=torch.Generator().manual_seed(1))
    losses = []
    for model in (tiny.train(), qwen.train()):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == losses[1]
    pairs = zip(tiny.named_parameters(), qwen.named_parameters(), strict=True)
    assert all(name == other and torch.equal(ours.grad, its.grad) for (name, ours), (other, its) in pairs)


def test_an_untrained_model_repeats_what_it_read(words: PreTrainedTokenizerBase) -> None:
    assert repeats(words, Init.copying) > 0.4
    assert repeats(words, Init.copying, length=60) > 0.2
    assert repeats(words, Init.default) < 0.05


def test_the_first_layers_heads_look_one_token_back(words: PreTrainedTokenizerBase) -> None:
    cfg = TinyConfig()
    model = build_tiny(cfg, words, seed=0).eval()
    model.set_attn_implementation("eager")
    ids = torch.randint(5, len(words), (4, 200), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        attention = model(input_ids=ids, output_attentions=True).attentions[0]
    back = attention.diagonal(offset=-1, dim1=2, dim2=3)[:, : cfg.heads // 2]
    assert float(back.mean()) > 0.9
    assert float(back.min()) > 0.5


@pytest.mark.parametrize("shape", [{"layers": 1}, {"kv_heads": 2}], ids=["one layer", "grouped heads"])
def test_shapes_that_cannot_copy_are_refused(words: PreTrainedTokenizerBase, shape: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"model.tiny.init='copying' is out of range: it must be default with .*: copying needs"):
        TinyConfig(**shape)
    assert build_tiny(TinyConfig(init=Init.default, **shape), words, seed=0).num_parameters() > 0


@pytest.mark.parametrize(("shape", "name"), [({"heads": 3}, "heads"), ({"kv_heads": 3}, "kv_heads"), ({"hidden": 12}, "hidden")])
def test_impossible_shapes_are_refused(shape: dict[str, int], name: str) -> None:
    with pytest.raises(ConfigError, match=f"model.tiny.{name}="):
        TinyConfig(**shape)
