"""The network: a causal language model with value heads, its tokenizer, and the directory that both are kept in.

A model directory holds `config.json`, `generation_config.json`, `model.safetensors`, the tokenizer's files with a chat template, and,
beside what transformers reads, `value_heads.safetensors` (and `critic.safetensors` of a critic with a trunk of its own).
"""
