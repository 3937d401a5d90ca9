"""A small Qwen2-architecture model built from a config instead of downloaded.

It is built, and saved, as transformers' Seed-OSS: with these settings the same network as Qwen2 to the bit, with the same names of tensors.
The name matters to others: transformers 5 gives a directory whose `model_type` is `qwen2` Qwen's byte-level tokenizer, whatever
`tokenizer_config.json` says, and so has no way to load a word tokenizer beside it.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedTokenizerBase, SeedOssConfig, SeedOssForCausalLM

from hiper.config import Init, TinyConfig
from hiper.model.init import copying_init


def build_tiny(cfg: TinyConfig, tokenizer: PreTrainedTokenizerBase, seed: int) -> SeedOssForCausalLM:
    """A randomly initialised causal language model over the tokenizer's vocabulary.

    Args:
        cfg: sizes and initialisation.
        tokenizer: gives vocabulary size and special tokens.
        seed: the same seed gives the same weights.
    """
    config = SeedOssConfig(
        vocab_size=len(tokenizer),
        hidden_size=cfg.hidden,
        intermediate_size=cfg.intermediate,
        num_hidden_layers=cfg.layers,
        num_attention_heads=cfg.heads,
        num_key_value_heads=cfg.kv_heads,
        head_dim=cfg.hidden // cfg.heads,
        attention_bias=True,
        attention_out_bias=False,
        attention_dropout=0.0,
        residual_dropout=0.0,
        max_position_embeddings=cfg.max_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": cfg.rope_theta},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SeedOssForCausalLM(config)
    if cfg.init is Init.copying:
        copying_init(model, torch.Generator().manual_seed(seed))
    _compose(model, tokenizer)
    return model


@torch.no_grad()
def _compose(model: SeedOssForCausalLM, tokenizer: PreTrainedTokenizerBase) -> None:
    """Start the embedding of a token of several words as the normalised sum of theirs, so that what is known of a word carries over."""
    embeddings = model.get_input_embeddings().weight
    vocabulary = tokenizer.get_vocab()
    for piece, index in vocabulary.items():
        words = [vocabulary[word] for word in piece.split() if word in vocabulary]
        if len(words) > 1:
            embeddings[index] = (embeddings[index] + embeddings[words].sum(0)) / (len(words) + 1) ** 0.5
