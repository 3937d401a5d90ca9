"""Rules of a warm start in several processes, as a user would start them.

1. Two processes learn what one learns: the same batches, the sum of their gradients; the model differs by rounding alone. Batches that
   leave a process without a row are learned from all the same.
2. The same number of processes gives the same bits, with dropout too; killed and gone on from, it ends with the bits of one undisturbed.
3. An error of all processes is raised here under its own name; one that comes of a number of processes that cannot be is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from hiper.config import Constrain, RunConfig
from hiper.errors import CollapseError, ConfigError
from hiper.model.actor import load_actor
from hiper.runs.checkpoint import list_checkpoints
from hiper.runtime.progress import Progress
from hiper.sft.fine_tune import CHECKPOINTS, SFTSummary, fine_tune
from hiper.sft.ranks import fine_tune_in_processes
from tests.sft.test_fine_tune import config, files, with_dropout
from tests.train.running import Killed


def shared(cfg: RunConfig, processes: int = 2) -> RunConfig:
    return replace(cfg, sft=replace(cfg.sft, processes=processes))


def weights(folder: Path, cfg: RunConfig) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in load_actor(folder, cfg.model).lm.parameters()])


def kill_after(step: int) -> Progress:
    """Stops everything once so many of the 80 steps are done; progress comes twice a second."""

    def stop(done: int, total: int) -> None:
        if done >= step:
            raise Killed

    return stop


def apart(folder: Path, other: Path, cfg: RunConfig) -> float:
    """Relative distance of two models' weights; five steps move them by some hundredths."""
    first, second = weights(folder, cfg), weights(other, cfg)
    return float((first - second).norm() / second.norm())


@pytest.mark.parametrize("constrain", [Constrain.free, Constrain.grammar])
def test_two_processes_learn_what_one_learns(constrain: Constrain, demos: Path, tmp_path: Path) -> None:
    cfg = config(constrain, batch_size=5, epochs=1)  # 24 demonstrations: the last batch has four rows
    alone: SFTSummary = fine_tune(cfg, demos, tmp_path / "alone")
    steps: list[tuple[int, int]] = []
    together = fine_tune_in_processes(shared(cfg), demos, tmp_path / "together", lambda done, total: steps.append((done, total)))
    assert (together.steps, together.tokens, together.demonstrations) == (alone.steps, alone.tokens, alone.demonstrations)
    assert together.loss == pytest.approx(alone.loss, rel=1e-4)
    assert steps[-1] == (5, 5)
    assert apart(tmp_path / "together", tmp_path / "alone", cfg) < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "together"], "nothing is left of any process's work"


@pytest.mark.slow
def test_a_batch_smaller_than_the_processes_is_learned_from(demos: Path, tmp_path: Path) -> None:
    cfg = config(Constrain.grammar, batch_size=23, epochs=1)  # and then a batch of one row
    fine_tune(cfg, demos, tmp_path / "alone")
    fine_tune_in_processes(shared(cfg), demos, tmp_path / "together")
    assert apart(tmp_path / "together", tmp_path / "alone", cfg) < 1e-4


@pytest.mark.slow
def test_a_killed_warm_start_of_two_processes_ends_with_the_same_bits(demos: Path, words: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    cfg = shared(replace(config(epochs=20, save_every=7), model=with_dropout(words, tmp_path / "base")))
    undisturbed = fine_tune_in_processes(cfg, demos, tmp_path / "undisturbed" / "model")
    again = fine_tune_in_processes(cfg, demos, tmp_path / "again" / "model")
    assert files(tmp_path / "again" / "model") == files(tmp_path / "undisturbed" / "model")
    out = tmp_path / "killed" / "model"
    for step in (10, 45):
        with pytest.raises(Killed):
            fine_tune_in_processes(cfg, demos, out, kill_after(step), resume=True)
        assert list_checkpoints(out.with_name(CHECKPOINTS))
    summary = fine_tune_in_processes(cfg, demos, out, resume=True)
    assert summary.loss == undisturbed.loss and again.loss == undisturbed.loss
    assert files(out) == files(tmp_path / "undisturbed" / "model")
    assert sorted(path.name for path in out.parent.iterdir()) == ["model"]


def test_what_all_processes_raise_is_raised_here(demos: Path, tmp_path: Path) -> None:
    with pytest.raises(CollapseError, match="the warm start has failed"):
        fine_tune_in_processes(shared(config(lr=1e30)), demos, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ConfigError, match=r"sft\.processes=2, but this is a world of 1"):
        fine_tune(shared(config()), demos, tmp_path / "model")
    with pytest.raises(ConfigError, match=r"sft\.processes=7 is out of range: it must be 1 to sft\.batch_size=6"):
        shared(config(), 7)
