"""The network: a causal language model with value heads, its tokenizer, and the directory that both are kept in.

A model directory is a public thing. transformers' `AutoTokenizer`, `AutoModelForCausalLM` and `pipeline("text-generation")` load it without
`trust_remote_code`, and greedy `generate` writes the replies of the policy at temperature 0 with `rollout.constrain=free`.

    config.json                   architecture and sizes; its `model_type` decides the class of the model, and has a say in the tokenizer's
    model.safetensors             the language model's weights; several files where they are many
    model.safetensors.index.json  which of these files has which tensor; value heads are not among them
    generation_config.json        greedy; `eos_token_id` is the token that ends a reply, `max_new_tokens` where a reply is cut
    tokenizer.json                the tokenizer's vocabulary and rules
    tokenizer_config.json         its class and special tokens
    chat_template.jinja           how messages become text
    value_heads.safetensors       V_low, V_high and V_switch; read by HiPER alone
    critic.safetensors            with `model.critic=separate`: the critic's trunk; read by HiPER alone

Who keeps a conversation as text sends decoded replies back. Replies in the protocol's form then have the ids that were sampled; others,
with words unknown to the tokenizer or commands amid the text, need not. Constrained decoding is no part of a directory: a policy trained
under `rollout.constrain=admissible` or `grammar` writes freely elsewhere.

vLLM reads config.json, the weights that the index names, the tokenizer's files with the template, and of generation_config.json the end
token and `max_new_tokens`, not `do_sample`: requests must ask for temperature 0. This is what its source says; it was not tried.
"""
