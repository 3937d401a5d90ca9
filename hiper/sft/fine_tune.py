"""The warm start: supervised fine-tuning on demonstrations, with TRL's SFTTrainer and the loss on the agent's words only.

With `rollout.constrain=grammar` the likelihood is that of the policy that will play: renormalised over what the protocol and the
admissible commands allow at each token. "Take the mug" then has to be likelier than what else could be done here, and not likely in
general: a small model learns in a fraction of the demonstrations.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hiper.config import ComputeDtype, Constrain, RunConfig
from hiper.errors import CollapseError, ConfigError
from hiper.model.actor import Actor, save_actor
from hiper.model.compute import autocast, use_attention
from hiper.model.folder import not_finite
from hiper.rollout.chat import ChatCodec
from hiper.rollout.episode import AllowedTokens
from hiper.rollout.samplers.transformers import mask_logits
from hiper.runs.fingerprint import stage_settings
from hiper.runs.stage_folder import CHECKPOINTS
from hiper.runtime.device import pick_device
from hiper.runtime.distributed import ALONE, World
from hiper.runtime.files import sync_tree
from hiper.runtime.packages import missing
from hiper.runtime.progress import Progress
from hiper.sft.base_model import base_model
from hiper.sft.checkpoint import Checkpoints, resumable
from hiper.sft.demos import Conversation, read_demos
from hiper.sft.encode import Encoded, Example, encode
from hiper.sft.sharing import IGNORED, OwnDropout, shard_rows, sharing

logger = logging.getLogger(__name__)

NUMBER = "number"
"""Column of a conversation's place among all."""
_REPLY_ROOM = 4  # the longest demonstrated replies that `generate` writes before it cuts: what goes on beyond that does not end


@dataclass(frozen=True)
class SFTSummary:
    """What the warm start did."""

    model: str
    steps: int
    loss: float
    """Mean loss of the last tenth of the steps, nats a token."""
    demonstrations: int
    tokens: int
    """Tokens of one epoch, prompts included."""
    parameters: int


def fine_tune(
    cfg: RunConfig, demos: Path, out: Path, progress: Progress | None = None, resume: bool = False, world: World = ALONE
) -> SFTSummary:
    """Fine-tune the configured model on a demonstration file and write a model directory.

    Args:
        cfg: model and sft settings.
        demos: JSONL written by `hiper demos`, or any conversations in that format.
        out: the model directory; any `from_pretrained` loads it. Checkpoints lie in `checkpoints/` beside it until it is written.
        progress: called with (optimiser steps done, all).
        resume: go on from the newest good checkpoint, to the bits of a run that was not interrupted (on a CPU, with the same threads);
            start anew where there is none. False: checkpoints that are there are removed.
        world: the processes that fine-tune together, `hiper.sft.ranks` starts them; the main one writes.

    Raises:
        ConfigError: the world is not of `sft.processes`.
        DataError: the demonstrations are unreadable, or longer than `sft.max_length`.
        ModelError: `model.path` does not load.
        CollapseError: the loss, a gradient or a weight is not finite; no model is written.
        CheckpointError: with `resume`: all checkpoints are damaged, or belong to other settings, demonstrations or a vocabulary.
    """
    try:
        import datasets  # noqa: F401  # before the demonstrations are read and encoded
        import trl  # noqa: F401
    except ImportError as error:
        raise missing("the warm start", "trl", error) from error

    if world.size != cfg.sft.processes:
        raise ConfigError(
            f"sft.processes={cfg.sft.processes}, but this is a world of {world.size}. `hiper sft` starts the others, and so does "
            "hiper.sft.ranks.fine_tune_in_processes."
        )
    conversations = read_demos(demos)
    device = pick_device(cfg, world)
    tokenizer, lm = base_model(cfg, (m["content"] for c in conversations for m in c.messages))
    dialect = cfg.protocol.dialect if cfg.rollout.constrain is Constrain.grammar else None
    codec = ChatCodec(tokenizer)
    examples = encode(conversations, codec, cfg.sft.max_length, dialect)
    tokens, count = sum(map(len, examples.ids)), len(conversations)
    generation = codec.generation(_reply_limit(conversations, codec))
    del conversations  # their texts are a hundred megabytes, in each process
    logger.info("warm start: %d conversations, %d tokens an epoch, %.2f M parameters", len(examples), tokens, lm.num_parameters() / 1e6)

    settings = cfg.sft
    work, saved = out.with_name(f"{out.name}.work{world.rank or ''}"), out.with_name(CHECKPOINTS)
    for folder in (work,) if resume or not world.main else (work, saved):
        shutil.rmtree(folder, ignore_errors=True)
    world.barrier()
    losses: list[float] = []
    learned = {"demonstrations": len(examples), "digest": _digest(demos, examples), "vocabulary": len(tokenizer)}
    belongs = {**stage_settings(cfg, "sft"), **learned}
    checkpoints = Checkpoints(saved, settings.save_every if world.main else 0, belongs, losses)
    begun = checkpoints.find(work) if resume else None
    callbacks = [_Report(progress, losses, settings.lr), checkpoints]
    trainer = _trainer(cfg, device, lm, codec, examples, work, callbacks, world)
    trainer.train(resume_from_checkpoint=None if begun is None else str(begun))
    if (name := not_finite(lm.state_dict())) is not None:
        raise _collapse(f"{name} holds NaN or infinity after the last step", settings.lr)
    lm.config.use_cache = True  # the trainer has turned it off, which would be saved
    if world.main:
        save_actor(Actor(lm, cfg.model.critic), tokenizer, out, generation)
        sync_tree(out)  # before the checkpoints go
    for folder in (work, saved) if world.main else (work,):
        shutil.rmtree(folder, ignore_errors=True)
    world.barrier()
    tail = losses[-max(1, len(losses) // 10) :]
    return SFTSummary(str(out), trainer.state.global_step, sum(tail) / max(1, len(tail)), count, tokens, lm.num_parameters())


def _trainer(
    cfg: RunConfig,
    device: torch.device,
    lm: Any,
    codec: ChatCodec,
    examples: Encoded,
    work: Path,
    callbacks: list[TrainerCallback],
    world: World,
) -> Any:
    """TRL's SFTTrainer, with what this stage adds to it."""
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    base, constrained = SFTTrainer, {}
    if cfg.rollout.constrain is Constrain.grammar:
        dataset = Dataset.from_dict({"input_ids": examples.ids, NUMBER: range(len(examples))})
        base, constrained = _limited(SFTTrainer), {"data_collator": _collator(examples, codec.pad)}
    else:
        dataset = Dataset.from_list(list(examples))
    trainer_class = resumable(_computing(base, cfg.model.compute_dtype, device))
    use_attention(lm, cfg.model.compute_dtype)
    if world.size > 1:
        trainer_class, callbacks = sharing(trainer_class, world), [*callbacks, OwnDropout(cfg.sft_seed, world)]
    trainer = trainer_class(
        model=lm,
        args=SFTConfig(output_dir=str(work), **_arguments(cfg, device)),
        train_dataset=dataset,
        processing_class=codec.tokenizer,
        callbacks=callbacks,
        **constrained,
    )
    if world.size > 1:
        trainer.data_collator = shard_rows(trainer.data_collator, world)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _reply_limit(conversations: Sequence[Conversation], codec: ChatCodec) -> int:
    """Tokens of a reply after which `generate` cuts it.

    Not `rollout.max_reply_tokens`: how the model is played later decides no file of this stage.
    """
    replies = (m["content"] for conversation in conversations for m in conversation.messages if m["role"] == "assistant")
    return _REPLY_ROOM * (len(codec.tokenizer.encode(max(replies, key=len), add_special_tokens=False)) + 1)


def _arguments(cfg: RunConfig, device: torch.device) -> dict[str, Any]:
    """What TRL's `SFTConfig` is told, but for where it works."""
    os.environ.setdefault("WANDB_DISABLED", "true")  # this run's metrics go through hiper.tracking
    settings = cfg.sft
    return {
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": settings.lr,
        "weight_decay": settings.weight_decay,
        "warmup_steps": settings.warmup_ratio,
        "lr_scheduler_type": "cosine",
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would put the mean of the losses before in the place of NaN
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": device.type == "cpu",
        "bf16": False,
        "fp16": False,
        "seed": cfg.sft_seed,
        "data_seed": cfg.sft_seed,
        "activation_checkpointing": cfg.model.gradient_checkpointing,
        "adam_beta2": settings.beta2,
        "loss_type": "nll",
    }


def _digest(demos: Path, examples: Encoded) -> str:
    """SHA-256 of what is learned: the demonstrations, and the ids they became."""
    whole = hashlib.sha256()
    with demos.open("rb") as file:
        whole.update(hashlib.file_digest(file, "sha256").digest())
    for ids in examples.ids:
        whole.update(ids.tobytes())
    return whole.hexdigest()


def _collapse(what: str, lr: float) -> CollapseError:
    return CollapseError(f"the warm start has failed: {what}. No model was written. Lower sft.lr={lr:g}, or look at the demonstrations.")


@dataclass(frozen=True)
class _AllowedTokens:
    """A batch's allowed tokens in a box: the trainer takes apart any sequence it is handed."""

    tokens: list[AllowedTokens | None]


def _collator(encoded: Encoded, pad: int) -> Callable[[list[Example]], dict[str, Any]]:
    """Makes a padded batch of rows that say their `NUMBER`; the allowed tokens go along as they are, in the order of the labels."""

    def collate(rows: list[Example]) -> dict[str, Any]:
        # A row that comes with labels, none of which counts, is there because a batch has to have one.
        examples = [{**row, "allowed_tokens": []} if "labels" in row else encoded[row[NUMBER]] for row in rows]
        width = max(len(example["input_ids"]) for example in examples)
        return {
            "input_ids": torch.tensor([e["input_ids"] + [pad] * (width - len(e["input_ids"])) for e in examples]),
            "labels": torch.tensor([e["labels"] + [IGNORED] * (width - len(e["labels"])) for e in examples]),
            "allowed_tokens": _AllowedTokens([entry for e in examples for entry in e["allowed_tokens"]]),
        }

    return collate


def _limited(base: type[Any]) -> type[Any]:
    """An SFTTrainer whose likelihood is renormalised over each token's allowed ones."""

    class LimitedTrainer(base):
        def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            # Right padding needs no mask under causal attention; only the positions that carry a label need logits.
            hidden = model.get_decoder()(input_ids=inputs["input_ids"], use_cache=False).last_hidden_state
            labels = inputs["labels"][:, 1:]
            carries = labels != IGNORED
            with torch.autocast(hidden.device.type, enabled=False):  # probabilities in full precision
                logits = model.get_output_embeddings()(hidden[:, :-1][carries]).float()
            logits = mask_logits(logits, inputs["allowed_tokens"].tokens)
            # A sum over the batch's count: another process may have the batch's other rows.
            loss = torch.nn.functional.cross_entropy(logits, labels[carries], reduction="sum") / num_items_in_batch
            return (loss, {"logits": logits}) if return_outputs else loss

    return LimitedTrainer


def _computing(base: type[Any], compute: ComputeDtype, device: torch.device) -> type[Any]:
    """A trainer whose forward passes run in `model.compute_dtype`."""

    class ComputingTrainer(base):
        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            with autocast(compute, device):
                return super().compute_loss(*arguments, **named)

    return ComputingTrainer


class _Report(TrainerCallback):
    """Passes the trainer's steps on as progress, keeps their losses, and stops where one is no number."""

    def __init__(self, progress: Progress | None, losses: list[float], lr: float) -> None:
        self._progress, self._losses, self._lr = progress, losses, lr

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs.get("logs") or {}
        if "loss" not in logs:
            return
        for name in ("loss", "grad_norm"):
            if not math.isfinite(value := float(logs.get(name, 0.0))):
                what = {"loss": "the loss", "grad_norm": "the gradient"}[name]
                raise _collapse(f"{what} is {value} at step {state.global_step} of {state.max_steps}", self._lr)
        self._losses.append(logs["loss"])
        if state.global_step % 50 == 0:
            mean = sum(self._losses[-50:]) / len(self._losses[-50:])
            logger.info("warm start: step %d of %d, loss %.3f", state.global_step, state.max_steps, mean)
