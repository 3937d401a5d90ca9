"""The agent's network: a causal language model with three value heads, and the directory it lives in."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from hiper.config import ComputeDtype, Critic, ModelConfig
from hiper.config.algo import Level
from hiper.errors import ModelError
from hiper.model.compute import autocast, use_attention
from hiper.model.folder import TEMPLATE, TOKENIZER_CONFIG, check_tokenizer, check_weights, not_finite, refuse_code, write_index

HEADS_FILE = "value_heads.safetensors"
CRITIC_FILE = "critic.safetensors"


class Forward(NamedTuple):
    """What one pass over token sequences gives."""

    hidden: Tensor
    """(B, L, D) last hidden states; `Actor.logits` turns chosen ones into logits."""
    values: Tensor
    """(B, L, 3) float32: V_low, V_high, V_switch at every position."""
    states: Tensor
    """(B, L, D) what the value heads read: the hidden states of the critic's trunk."""


class Actor(nn.Module):
    """Policy and critic.

    The value heads are one linear map from a trunk's last hidden state to (V_low, V_high, V_switch). `shared`: that trunk is the
    actor's. `separate`: it is a copy of the actor's, trained on its own. With fewer than three `value_heads` levels share an output,
    read where each level is read: HiPER's text has two heads, its code one to three. Trunks run in `compute`; logits and values are
    float32.
    """

    def __init__(self, lm: PreTrainedModel, critic: Critic, value_heads: int = 3, compute: ComputeDtype = ComputeDtype.float32) -> None:
        super().__init__()
        self.lm = lm
        self.compute = compute
        use_attention(lm, compute)
        self.critic_kind = critic
        self.output_of = [min(level, value_heads - 1) for level in range(len(Level))]
        """Output of `heads` that each level reads; outputs that no level reads stay as they are."""
        self.heads = nn.Linear(lm.config.hidden_size, len(Level))
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        self.critic: nn.Module | None = copy.deepcopy(self.trunk) if critic is Critic.separate else None

    @property
    def trunk(self) -> nn.Module:
        """The transformer under the language-model head."""
        return cast(nn.Module, self.lm.get_decoder())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.heads.weight.device

    def forward(
        self, ids: Tensor, mask: Tensor | None = None, positions: Tensor | None = None, cache: Any = None, with_values: bool = True
    ) -> Forward:
        """Hidden states and values of token sequences.

        Args:
            ids: (B, L) long.
            mask: None for plain causal attention over right-padded rows, or (B, 1, L, K) bool, True where attention is allowed.
            positions: (B, L) long; None: 0 .. L-1.
            cache: key-value cache of the actor's trunk, extended in place.
            with_values: False skips the critic; `values` is then empty.
        """
        kwargs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        with autocast(self.compute, self.device):
            hidden = self.trunk(**kwargs, past_key_values=cache, use_cache=cache is not None).last_hidden_state
            if not with_values:
                return Forward(hidden, hidden.new_empty(0), hidden.new_empty(0))
            seen = hidden if self.critic is None else self.critic(**kwargs, use_cache=False).last_hidden_state
        return Forward(hidden, self._values(seen), seen)

    def of_hidden(self, hidden: Tensor) -> Forward:
        """What `forward` gives, from (B, L, D) last hidden states of the policy that were kept; of a shared trunk."""
        assert self.critic is None, "a critic of its own reads other states"
        return Forward(hidden, self._values(hidden), hidden)

    def _values(self, states: Tensor) -> Tensor:
        values: Tensor = self.heads(states.to(self.heads.weight.dtype))
        return values[..., self.output_of]

    def logits(self, hidden: Tensor) -> Tensor:
        """(N, V) float32 logits of (N, D) hidden states."""
        return cast(Tensor, self.lm.get_output_embeddings()(hidden)).float()

    def load_lm(self, weights: Mapping[str, Tensor]) -> None:
        """Take these weights of the language model, named as in its `state_dict`; those that are its own tensors stay as they are.

        Raises:
            ModelError: names or shapes are not the model's. Nothing was changed then.
        """
        own = self.lm.state_dict()
        if own.keys() != weights.keys():
            odd = sorted(own.keys() ^ weights.keys())
            raise ModelError(f"these weights are of another model: {', '.join(odd[:3])} is in one of the two alone.")
        for name, tensor in own.items():
            if tensor.shape != weights[name].shape:
                raise ModelError(f"the weight {name} has shape {list(weights[name].shape)}; the model's has {list(tensor.shape)}.")
        with torch.no_grad():
            for name, tensor in own.items():
                if tensor.data_ptr() != weights[name].data_ptr():
                    tensor.copy_(weights[name])

    def actor_parameters(self) -> list[nn.Parameter]:
        """What the policy loss trains."""
        return list(self.lm.parameters())

    def critic_parameters(self) -> list[nn.Parameter]:
        """What only the value loss trains."""
        return [*self.heads.parameters(), *(self.critic.parameters() if self.critic is not None else ())]


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model directory or hub id. Code that comes with it is never run.

    Raises:
        ModelError: there is none, it wants code of its own, or it has no chat template that works.
    """
    folder, kind = Path(path), AutoTokenizer
    if folder.is_dir():
        if not any((folder / name).exists() for name in ("tokenizer.json", TOKENIZER_CONFIG, "vocab.json")):
            raise ModelError(
                f"{path} has no tokenizer (tokenizer.json or vocab.json): a model directory needs one. "
                "Copy it beside the weights, e.g. with tokenizer.save_pretrained."
            )
        # A tokenizer that names no model's class is ours. Beside a config of Qwen2's, as older directories have it, AutoTokenizer would
        # rebuild it as Qwen2's.
        if check_tokenizer(folder).get("tokenizer_class") == "TokenizersBackend":
            kind = PreTrainedTokenizerFast
    try:
        tokenizer = kind.from_pretrained(str(path), trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise many types for a broken directory; all mean the same to the user
        raise ModelError(f"cannot load a tokenizer from {path}: {_first_line(error)}") from error
    if not tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {path} has no chat template, so a conversation cannot be written. Use an instruct model.")
    _try_template(tokenizer, path)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return cast(PreTrainedTokenizerBase, tokenizer)


def _try_template(tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Write a conversation, so that a broken template is named here and not amid a task."""
    talk = [{"role": role, "content": "text"} for role in ("user", "assistant", "user")]
    try:
        for messages in (talk[:1], talk):
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever a template raises: Jinja's errors of syntax and safety, and those of the expressions in it
        file = Path(path) / TEMPLATE
        where = file if file.exists() else Path(path) / TOKENIZER_CONFIG
        raise ModelError(f"the chat template in {where} does not write a conversation: {_first_line(error)}") from error


def check_lm(path: str | Path) -> None:
    """See that a directory or hub id holds a causal language model, as far as that can be told without reading weights.

    Raises:
        ModelError: it does not, or it wants code of its own.
    """
    if Path(path).is_dir():
        check_weights(Path(path))
    try:
        if not Path(path).is_dir():
            refuse_code(PreTrainedConfig.get_config_dict(str(path))[0], f"the config of {path}")
        kind = type(AutoConfig.from_pretrained(str(path), trust_remote_code=False))
    except ModelError:
        raise
    except Exception as error:  # transformers raises many types for a broken directory; all mean the same to the user
        raise ModelError(f"cannot load a causal language model from {path}: {_first_line(error)}") from error
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{path} is no causal language model: its config is a {kind.__name__}.")


def load_lm(path: str | Path, dtype: str = "float32") -> PreTrainedModel:
    """The causal language model of a directory or hub id: weights from safetensors only, all of them, and all finite.

    Code that comes with a model is never run.

    Raises:
        ModelError: the path holds no such model.
    """
    check_lm(path)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            str(path), dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except Exception as error:  # transformers raises many types for a broken directory; all mean the same to the user
        raise ModelError(f"cannot load a causal language model from {path}: {_first_line(error)}") from error
    for what in ("missing", "unexpected", "mismatched"):
        names = sorted(str(key) for key in found[f"{what}_keys"])
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"the weights of {path} do not fit its config: {what} tensors ({', '.join(names[:3])}{more}). Copy or convert it anew."
            )
    if (name := not_finite(model.state_dict())) is not None:
        raise ModelError(f"the weights of {path} hold NaN or infinity, in {name}. Train or copy the model anew.")
    return cast(PreTrainedModel, model)


def load_actor(path: str | Path, cfg: ModelConfig) -> Actor:
    """An actor from a model directory; value heads start at zero where the directory has none.

    Raises:
        ModelError: weights or heads do not load.
    """
    actor = Actor(load_lm(path, cfg.dtype), cfg.critic, cfg.value_heads, cfg.compute_dtype)
    heads = Path(path) / HEADS_FILE
    if heads.exists():
        _load_into(actor.heads, heads)
    if actor.critic is not None and (Path(path) / CRITIC_FILE).exists():
        _load_into(actor.critic, Path(path) / CRITIC_FILE)
    if cfg.gradient_checkpointing:
        actor.lm.gradient_checkpointing_enable()
    return actor


def save_actor(actor: Actor, tokenizer: PreTrainedTokenizerBase, path: Path, generation: GenerationConfig) -> None:
    """Write a directory that `from_pretrained` and `pipeline` load, with the value heads beside the weights.

    Args:
        actor: what is saved.
        tokenizer: its tokenizer, with a chat template.
        path: the directory; made where it does not exist.
        generation: how `generate` writes a reply. It takes the place of what the language model came with: a base model's sampling
            settings and penalties are not those that the policy was trained under.
    """
    path.mkdir(parents=True, exist_ok=True)
    actor.lm.save_pretrained(path)
    generation.save_pretrained(path)
    write_index(path)
    tokenizer.save_pretrained(path)
    save_file({name: value.contiguous() for name, value in actor.heads.state_dict().items()}, path / HEADS_FILE)
    if actor.critic is not None:
        save_file({name: value.contiguous().clone() for name, value in actor.critic.state_dict().items()}, path / CRITIC_FILE)


def _load_into(module: nn.Module, file: Path) -> None:
    try:
        tensors = load_file(file)
        module.load_state_dict(tensors)
    except Exception as error:  # safetensors and torch raise their own kinds for a damaged or foreign file
        raise ModelError(f"{file} does not fit the model: {_first_line(error)}. Remove it to start with fresh value heads.") from error
    if (name := not_finite(tensors)) is not None:
        raise ModelError(f"{file} holds NaN or infinity, in {name}. Remove it to start with fresh value heads.")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
