"""The warm start: supervised fine-tuning on demonstrations, with TRL's SFTTrainer and the loss on the agent's words only."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hiper.config import RunConfig
from hiper.device import pick_device
from hiper.errors import DataError, MissingDependencyError
from hiper.model.actor import Actor, load_lm, load_tokenizer, save_actor
from hiper.model.tiny import build_tiny
from hiper.model.tokenizer import build_tokenizer
from hiper.rollout.chat import ChatCodec
from hiper.rollout.demos import Message, read_demos

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

IGNORED = -100
"""Label of tokens that carry no loss."""


@dataclass(frozen=True)
class WarmStartSummary:
    """What the warm start did."""

    model: str
    steps: int
    loss: float
    """Mean loss of the last tenth of the steps, nats a token."""
    demonstrations: int
    tokens: int
    """Tokens of one epoch, prompts included."""
    parameters: int


def warm_start(cfg: RunConfig, demos: Path, out: Path, progress: Progress | None = None) -> WarmStartSummary:
    """Fine-tune the configured model on a demonstration file and write a model directory.

    Args:
        cfg: model and warm-start settings.
        demos: JSONL written by `hiper demos`, or any conversations in that format.
        out: the model directory; any `from_pretrained` loads it.
        progress: called with (optimiser steps done, all).

    Raises:
        DataError: the demonstrations are unreadable, or longer than `warm_start.max_length`.
        ModelError: `model.path` does not load.
    """
    try:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer
    except ImportError as error:
        raise MissingDependencyError(f"the warm start needs the packages trl and datasets ({error}): pip install trl.") from error

    conversations = read_demos(demos)
    device = pick_device(cfg)
    if cfg.model.path is None:
        tokenizer: PreTrainedTokenizerBase = build_tokenizer(m["content"] for c in conversations for m in c)
        lm: Any = build_tiny(cfg.model.tiny, tokenizer, cfg.seed)
        lm.to(getattr(torch, cfg.model.dtype))
    else:
        tokenizer, lm = load_tokenizer(cfg.model.path), load_lm(cfg.model.path, cfg.model.dtype)
    examples = encode(conversations, ChatCodec(tokenizer), cfg.warm_start.max_length)
    tokens = sum(len(example["input_ids"]) for example in examples)
    logger.info("warm start: %d conversations, %d tokens an epoch, %.2f M parameters", len(examples), tokens, lm.num_parameters() / 1e6)

    settings = cfg.warm_start
    work = out.with_name(out.name + ".work")
    os.environ.setdefault("WANDB_DISABLED", "true")  # this run's metrics go through hiper.tracking
    arguments = SFTConfig(
        output_dir=str(work),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.lr,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_ratio,
        lr_scheduler_type="cosine",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
        bf16=False,
        fp16=False,
        seed=cfg.seed,
        data_seed=cfg.seed,
        activation_checkpointing=cfg.model.gradient_checkpointing,
        adam_beta2=settings.beta2,
        loss_type="nll",
    )
    trainer = SFTTrainer(
        model=lm,
        args=arguments,
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        callbacks=[_Report(progress)],
    )
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tail = losses[-max(1, len(losses) // 10) :]
    save_actor(Actor(lm, cfg.model.critic), tokenizer, out)
    shutil.rmtree(work, ignore_errors=True)
    return WarmStartSummary(
        str(out), trainer.state.global_step, sum(tail) / max(1, len(tail)), len(conversations), tokens, lm.num_parameters()
    )


def encode(conversations: list[list[Message]], codec: ChatCodec, max_length: int) -> list[dict[str, list[int]]]:
    """Token ids and labels, message by message exactly as rollouts encode them; only replies and their end tokens carry labels.

    Raises:
        DataError: a conversation is longer than `max_length` tokens.
    """
    examples = []
    for number, messages in enumerate(conversations):
        ids: list[int] = []
        labels: list[int] = []
        for message in messages:
            if message["role"] == "user":
                new = codec.later(message["content"]) if ids else codec.first(message["content"])
                labels += [IGNORED] * len(new)
            else:
                new = [*codec.tokenizer.encode(message["content"], add_special_tokens=False), codec.end]
                labels += new
            ids += new
        if len(ids) > max_length:
            raise DataError(
                f"demonstration {number + 1} has {len(ids)} tokens, more than warm_start.max_length={max_length}. "
                "Raise it, or use a context or dialect with shorter conversations."
            )
        examples.append({"input_ids": ids, "labels": labels})
    return examples


class _Report(TrainerCallback):
    """Passes the trainer's steps on as progress."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._losses: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            self._losses.append(logs["loss"])
        if "loss" in logs and state.global_step % 50 == 0:
            mean = sum(self._losses) / len(self._losses)
            logger.info("warm start: step %d of %d, loss %.3f", state.global_step, state.max_steps, mean)
            self._losses.clear()
