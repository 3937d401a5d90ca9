"""Rules of the training loop.

1. Stopped after any iteration and resumed, a run ends with the same bits: weights, optimiser, generators, metrics and samples.
2. A damaged newest checkpoint is named and costs the iterations since the one before, and nothing else; where all are damaged, nothing is
   touched. Records that vanished, shrank or were altered since count as damage. What was logged past the point of resumption is rewritten,
   not doubled.
3. A checkpoint of another training (settings, weights it began from, games) is refused by name; a training may be extended.
4. Each iteration logs the same keys, samples carry their credit, the model written at the end is the policy that was trained.
5. Evaluation in between uses a generator of its own: it changes nothing about the training.
6. The checkpoint and the policy of the best evaluation in between are kept, besides the last ones; a resumed run agrees on which.
7. Rollout statistics count episodes once each, however long.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hiper.algos.hae import HAEConfig, SwitchCredit
from hiper.algos.registry import algorithms, settings_of
from hiper.config import (
    ComputeDtype,
    Context,
    Critic,
    ModelConfig,
    RunConfig,
    Trainable,
    ValueFit,
)
from hiper.errors import CheckpointError, DataError
from hiper.model.actor import load_actor, load_tokenizer, save_actor
from hiper.rollout import player
from hiper.rollout.batch import Batch, make_batch
from hiper.rollout.episode import Episode
from hiper.rollout.trajectory import StopReason, Trajectory, Turn, read_trajectories
from hiper.runs import checkpoint as ckpt
from hiper.suites import make_env
from hiper.suites.base import StepResult, TextEnv
from hiper.suites.tasks import TaskIndex
from hiper.train import iteration
from hiper.train.metrics import rollout_metrics
from hiper.train.sample import Player
from hiper.train.trainer import TrainSummary, train
from tests.train.running import Killed, assert_same, bits, config, goes_on_to_the_bit, killer


@pytest.fixture(scope="module")
def whole(speaker: Path, task_index: TaskIndex, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainSummary]:
    """A run of four iterations that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "train"
    return out, train(config(), speaker, task_index, out)


def test_every_iteration_says_the_same_things(whole: tuple[Path, TrainSummary]) -> None:
    out, summary = whole
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 4
    keys = [{key for key in record if not key.startswith("eval/")} for record in records]
    assert keys[0] == keys[1] == keys[2] == keys[3]
    assert ["eval/success_rate" in record for record in records] == [False, True, False, True]
    assert not any(key.startswith("time/") for key in keys[0]), "wall-clock times would differ after a resume"
    numbers = [value for record in records for value in record.values() if isinstance(value, float)]
    assert all(torch.tensor(numbers).isfinite())
    assert all(record["rollout/logprob_gap"] < 1e-3 for record in records)
    turns = [record["env/turns"] for record in records]
    assert turns == sorted(turns)
    assert (summary.iterations, summary.env_turns, summary.model) == (4, turns[-1], str(out / "model"))
    assert summary.last_success_rate == records[-1]["rollout/success_rate"]
    assert summary.first_success_rate == records[0]["rollout/success_rate"]
    assert len((out / "timings.jsonl").read_text().splitlines()) == 4


def test_samples_carry_their_credit(whole: tuple[Path, TrainSummary]) -> None:
    samples = list(read_trajectories(whole[0] / "samples.jsonl"))
    assert [sample.iteration for sample in samples] == [1, 1, 2, 2, 3, 3, 4, 4]
    for sample in samples:
        for number, turn in enumerate(sample.turns):
            assert turn.values is not None
            assert turn.advantages is not None
            assert (turn.advantages.high != 0) <= turn.switch
            fine = -0.3 * (number > 0 and "<switch> KEEP" in turn.reply and not turn.faults) - 0.1 * (not turn.admissible)
            assert turn.faults or turn.shaped <= turn.reward + fine + 1e-6
    assert any(turn.advantages.low for sample in samples for turn in sample.turns if turn.advantages is not None)


def test_the_model_written_is_the_policy_that_was_trained(whole: tuple[Path, TrainSummary], speaker: Path) -> None:
    out, _ = whole
    tensors, _ = ckpt.load_checkpoint(ckpt.latest_checkpoint(out / "checkpoints") or out)
    trained = ckpt.strip_prefix("actor", tensors)
    model, before = load_actor(out / "model", ModelConfig()).state_dict(), load_actor(speaker, ModelConfig()).state_dict()
    assert all(torch.equal(model[name], trained[name]) for name in model)
    assert not any(torch.equal(model[name], before[name]) for name in ("lm.model.embed_tokens.weight", "heads.weight"))
    assert [path.name for path in ckpt.list_checkpoints(out / "checkpoints")] == [f"iteration-{n:06d}" for n in (2, 3, 4)]


@pytest.mark.parametrize("after", [1, 2])
def test_a_run_that_was_stopped_ends_with_the_same_bits(
    whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex, tmp_path: Path, after: int
) -> None:
    out = tmp_path / "train"
    with pytest.raises(Killed):
        train(config(), speaker, task_index, out, progress=killer(after))
    summary = train(config(), speaker, task_index, out, resume=True)
    assert_same(bits(out), bits(whole[0]))
    assert summary.env_turns == whole[1].env_turns
    assert summary.first_success_rate == whole[1].first_success_rate


def test_what_was_logged_after_the_last_checkpoint_is_rewritten(
    whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex, tmp_path: Path
) -> None:
    out = tmp_path / "train"
    with pytest.raises(Killed):
        train(config(save_every=2), speaker, task_index, out, progress=killer(3))
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3
    with (out / "samples.jsonl").open("a") as file:
        file.write('{"task_id": "cut of')
    train(config(save_every=2), speaker, task_index, out, resume=True)
    assert_same(bits(out), bits(whole[0]))
    assert len((out / "timings.jsonl").read_text().splitlines()) == 4


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("file", "harm", "said"),
    [
        ("tensors.safetensors", flip_a_bit, "is damaged: tensors.safetensors was truncated or altered, its SHA-256 differs"),
        ("tensors.safetensors", lambda file: os.truncate(file, 100), "tensors.safetensors was truncated or altered, it has 100 bytes"),
        ("state.json", flip_a_bit, "is damaged: state.json was truncated or altered, its SHA-256 differs"),
        ("manifest.json", Path.unlink, "is incomplete: manifest.json is missing"),
    ],
    ids=["flipped tensors", "truncated tensors", "flipped state", "missing manifest"],
)
def test_a_damaged_checkpoint_costs_what_followed_the_one_before(
    whole: tuple[Path, TrainSummary],
    speaker: Path,
    task_index: TaskIndex,
    tmp_path: Path,
    file: str,
    harm: Callable[[Path], None],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "train"
    shutil.copytree(whole[0], out)
    newest = ckpt.list_checkpoints(out / "checkpoints")[-1]
    harm(newest / file)
    begun: list[int] = []
    train(config(), speaker, task_index, out, resume=True, progress=lambda done, total: begun.append(done))
    assert begun == [4], "iteration 4 is played again from checkpoint 3"
    assert f"Passing over a checkpoint, an earlier one will be used. Checkpoint {newest}" in caplog.text and said in caplog.text
    assert_same(bits(out), bits(whole[0]))


def test_where_all_checkpoints_are_damaged_nothing_is_touched(
    whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex, tmp_path: Path
) -> None:
    out = tmp_path / "train"
    shutil.copytree(whole[0], out)
    for path in ckpt.list_checkpoints(out / "checkpoints"):
        flip_a_bit(path / "tensors.safetensors")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="No checkpoint in .* can be used. The newest of 3"):
        train(config(), speaker, task_index, out, resume=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_resuming_a_finished_run_changes_nothing(
    whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex, tmp_path: Path
) -> None:
    out = tmp_path / "train"
    shutil.copytree(whole[0], out)
    summary = train(config(), speaker, task_index, out, resume=True)
    assert_same(bits(out), bits(whole[0]))
    assert summary.env_turns == whole[1].env_turns
    assert summary.last_success_rate == whole[1].last_success_rate


def test_what_a_kill_in_the_last_pruning_left_is_removed(
    whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex, tmp_path: Path
) -> None:
    """No later save tidied up: a checkpoint too many, or half of one under a hidden name, stayed for good."""
    out = tmp_path / "train"
    shutil.copytree(whole[0], out)
    before = sorted(path.name for path in (out / "checkpoints").iterdir())
    for name in ("iteration-000001", ".iteration-000000.replaced"):
        shutil.copytree(out / "checkpoints" / before[0], out / "checkpoints" / name)
    train(config(), speaker, task_index, out, resume=True)
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == before


@pytest.mark.parametrize(("critic", "context"), [(Critic.separate, Context.append), (Critic.shared, Context.window)])
def test_other_ways_to_train_resume_as_well(speaker: Path, task_index: TaskIndex, tmp_path: Path, critic: Critic, context: Context) -> None:
    cfg = config(critic=critic, context=context, iterations=2, eval_every=0, critic_warmup=1)
    goes_on_to_the_bit(cfg, speaker, task_index, tmp_path)


def test_a_model_with_dropout_resumes_as_well(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    """It draws from torch's own generator, which nobody kept; and the first scores of a process were read with dropout on."""
    model = shutil.copytree(speaker, tmp_path / "model")
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(settings | {"attention_dropout": 0.2}))
    cfg = config(iterations=2, eval_every=0)
    goes_on_to_the_bit(cfg, model, task_index, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all(row["rollout/logprob_gap"] < 1e-3 for row in rows), "scores are the sampler's own, without dropout"


def test_training_in_bfloat16_resumes_as_well(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config(iterations=2, eval_every=0)
    train(cfg, speaker, task_index, tmp_path / "exact")
    cfg.model.compute_dtype = ComputeDtype.bfloat16
    ours = goes_on_to_the_bit(cfg, speaker, task_index, tmp_path)
    assert bits(tmp_path / "exact")["samples.jsonl"] != ours["samples.jsonl"], "it was to compute otherwise"
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["rollout/logprob_gap"] < 0.1 for row in rows), "cached and whole passes round differently, and not by much"


def test_a_fitted_critic_and_a_part_of_the_weights_resume_as_well(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config(iterations=3, eval_every=0)
    cfg.trainer.value_fit, cfg.trainer.trainable, cfg.trainer.anneal = ValueFit.least_squares, Trainable.norms_and_biases, True
    ours = goes_on_to_the_bit(cfg, speaker, task_index, tmp_path, after=2)
    assert {"critic.moments", "critic.products"} <= set(ours)


@pytest.mark.parametrize("name", algorithms())
@pytest.mark.parametrize("fit", ValueFit)
def test_every_estimator_trains_and_resumes(speaker: Path, task_index: TaskIndex, tmp_path: Path, name: str, fit: ValueFit) -> None:
    cfg = config(iterations=2, eval_every=0)
    cfg.algo, cfg.trainer.value_fit = settings_of(name)(group_size=2), fit
    goes_on_to_the_bit(cfg, speaker, task_index, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    judged = {key.removeprefix("value/explained_variance_") for key in rows[0] if key.startswith("value/explained")}
    assert judged == {"hae": {"low", "high", "switch"}, "turn_gae": {"high"}, "gae": {"low"}}.get(name, set())
    assert all(math.isfinite(row["optim/policy_loss"]) for row in rows)


def test_option_value_credit_and_two_heads_train_and_resume(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config(iterations=2, eval_every=0)
    cfg.algo, cfg.model.value_heads = HAEConfig(switch_credit=SwitchCredit.option_value), 2
    goes_on_to_the_bit(cfg, speaker, task_index, tmp_path)
    assert "value/explained_variance_switch" not in (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_groups_without_a_difference_are_played_anew(
    speaker: Path, task_index: TaskIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards are given by an environment of one turn that pays 1 for the second command of its list."""
    cfg = config(seed=1, iterations=1, eval_every=0)
    cfg.algo, cfg.env.max_turns = settings_of("grpo")(group_size=2, dynamic_sampling=4), 1
    learned: list[list[float]] = []

    def recorded(episodes: Sequence[Episode], device: torch.device) -> Batch:
        learned.append([episode.trajectory.turns[0].reward for episode in episodes])
        return make_batch(episodes, device)

    class Paying:
        def __init__(self, game: TextEnv) -> None:
            self._game, self.task, self.won, self.score = game, game.task, False, 0.0

        @property
        def admissible_commands(self) -> list[str]:
            return self._game.admissible_commands

        def reset(self) -> str:
            return self._game.reset()

        def step(self, command: str) -> StepResult:
            return StepResult("You see nothing.", float(command in self.admissible_commands[::2]), True)

    monkeypatch.setattr(player, "make_env", lambda cfg, path: Paying(make_env(cfg, path)))
    monkeypatch.setattr(iteration, "make_batch", recorded)
    summary = train(cfg, speaker, task_index, tmp_path)
    (rewards,) = learned
    assert rewards and all({first, second} == {0.0, 1.0} for first, second in zip(rewards[::2], rewards[1::2], strict=True))
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row["rollout/used_rate"] == pytest.approx(len(rewards) / summary.env_turns), "one turn an episode, those not used included"
    assert summary.env_turns > len(rewards)


def test_what_has_no_critic_does_not_wait_for_one(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config(iterations=1, eval_every=0, critic_warmup=1)
    moved = {}
    for name in ("turn_gae", "grpo"):
        cfg.algo = settings_of(name)(group_size=2)
        train(cfg, speaker, task_index, tmp_path / name)
        before, after = (load_actor(path, cfg.model).lm.state_dict() for path in (speaker, tmp_path / name / "model"))
        moved[name] = any(not torch.equal(before[key], after[key]) for key in before)
    assert moved == {"turn_gae": False, "grpo": True}


def test_evaluation_in_between_changes_nothing(
    whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex, tmp_path: Path
) -> None:
    train(config(eval_every=0), speaker, task_index, tmp_path / "train", resume=True)  # there is nothing to resume: it starts
    without, expected = bits(tmp_path / "train"), bits(whole[0])
    for name in without.keys() - {"state", "metrics.jsonl"}:
        assert_same({name: without[name]}, {name: expected[name]})


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations that come out as the test says: a quarter, a half, a half, a quarter."""

    def rated(player: Player) -> dict[str, float]:
        state = player.stream.state()
        assert state["tasks"] == 12, "a pass of three iterations of four games; the fourth is at the place of the first"
        return {"eval/success_rate": {4: 0.25, 8: 0.5, 12: 0.5}[state["position"]]}

    monkeypatch.setattr(Player, "evaluate", rated)


@pytest.mark.parametrize("after", [1, 3])
def test_the_best_is_kept_the_first_of_equals(evaluations: None, speaker: Path, task_index: TaskIndex, tmp_path: Path, after: int) -> None:
    """Checkpoints are due at 3 and 4 only; 1 and 2 were the best so far when they were written."""
    cfg = config(eval_every=1, save_every=3, keep_last=1)
    with pytest.raises(Killed):
        train(cfg, speaker, task_index, tmp_path / "train", progress=killer(after))
    summary = train(cfg, speaker, task_index, tmp_path / "train", resume=True)
    assert (summary.best_iteration, summary.best_success_rate) == (2, 0.5)
    kept = ckpt.list_checkpoints(tmp_path / "train" / "checkpoints")
    assert [path.name for path in kept] == ["iteration-000002", "iteration-000004"]
    for checkpoint, folder in zip(kept, ("best", "model"), strict=True):
        tensors, state = ckpt.load_checkpoint(checkpoint)
        assert state["best"] == {"iteration": 2, "success_rate": 0.5}
        model = load_actor(tmp_path / "train" / folder, ModelConfig()).state_dict()
        assert all(torch.equal(model[name], tensor) for name, tensor in ckpt.strip_prefix("actor", tensors).items())


def test_when_the_last_ones_are_damaged_the_best_is_used(
    evaluations: None, speaker: Path, task_index: TaskIndex, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = config(eval_every=1, keep_last=1)
    train(cfg, speaker, task_index, tmp_path / "train")
    expected = bits(tmp_path / "train")
    (tmp_path / "train" / "checkpoints" / "iteration-000004" / "state.json").unlink()
    begun: list[int] = []
    train(cfg, speaker, task_index, tmp_path / "train", resume=True, progress=lambda done, total: begun.append(done))
    assert begun == [3, 4]
    assert "iteration-000004 is incomplete: state.json is missing" in caplog.text
    assert_same(bits(tmp_path / "train"), expected)
    assert [path.name for path in ckpt.list_checkpoints(tmp_path / "train" / "checkpoints")] == ["iteration-000002", "iteration-000004"]


def test_another_seed_is_refused(whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex) -> None:
    with pytest.raises(CheckpointError, match="belongs to another training: seed was 0 and is 1"):
        train(config(seed=1), speaker, task_index, whole[0], resume=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cfg: setattr(cfg.algo, "gamma", 0.5), "algo.gamma was 1.0 and is 0.5"),
        (lambda cfg: setattr(cfg.trainer, "lr_actor", 0.5), "trainer.lr_actor was 0.001 and is 0.5"),
        (lambda cfg: setattr(cfg, "algo", settings_of("turn_gae")()), 'algo.name was "hae" and is "turn_gae"'),
        (
            lambda cfg: setattr(cfg.trainer, "value_fit", ValueFit.least_squares),
            'value_fit was "gradient" and is "least_squares"',
        ),
        (lambda cfg: setattr(cfg.model, "critic", Critic.separate), 'model.critic was "shared" and is "separate"'),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused_by_name(
    whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex, change: Callable[[RunConfig], None], said: str
) -> None:
    """Only the seed was compared: one of another discount, learning rate or estimator was resumed silently."""
    cfg = config()
    change(cfg)
    with pytest.raises(CheckpointError, match=f"belongs to another training: .*{re.escape(said)}"):
        train(cfg, speaker, task_index, whole[0], resume=True)


def test_another_model_is_refused(whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    other = load_actor(speaker, ModelConfig())
    with torch.no_grad():
        other.lm.get_input_embeddings().weight[0, 0] += 1
    save_actor(other, load_tokenizer(speaker), tmp_path / "other", other.lm.generation_config)
    with pytest.raises(CheckpointError, match="belongs to another training: it began from other weights"):
        train(config(), tmp_path / "other", task_index, whole[0], resume=True)


def test_a_training_can_be_extended(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    """It began again at the first iteration."""
    train(config(iterations=2), speaker, task_index, tmp_path / "train")
    begun: list[int] = []
    train(config(iterations=4), speaker, task_index, tmp_path / "train", resume=True, progress=lambda done, total: begun.append(done))
    assert begun == [3, 4]
    train(config(iterations=4), speaker, task_index, tmp_path / "whole")
    assert_same(bits(tmp_path / "train"), bits(tmp_path / "whole"))


@pytest.mark.parametrize("file", ["metrics.jsonl", "samples.jsonl"])
@pytest.mark.parametrize("what", ["vanished", "shrank", "altered"])
def test_records_that_were_lost_are_noticed(speaker: Path, task_index: TaskIndex, tmp_path: Path, file: str, what: str) -> None:
    """The run goes on from the newest checkpoint whose records are whole, or not at all."""
    out, cfg = tmp_path / "train", config(keep_last=4)
    train(cfg, speaker, task_index, out)
    expected, data = bits(out), (out / file).read_bytes()
    lines = data.splitlines(keepends=True)
    if what == "shrank":  # all after the second iteration's
        second = [line for line in lines if json.loads(line)["iteration"] <= 2]
        (out / file).write_bytes(b"".join(second) + b'{"iteration": 3')
        begun: list[int] = []
        train(cfg, speaker, task_index, out, resume=True, progress=lambda done, total: begun.append(done))
        assert begun == [3, 4]
        assert_same(bits(out), expected)
        return
    if what == "vanished":
        (out / file).unlink()
    else:
        (out / file).write_bytes(data.replace(b'"iteration": 1', b'"iteration": 0', 1))
    with pytest.raises(CheckpointError, match=rf"No checkpoint .* can be used. The newest of 4: .*{file} (has 0 bytes|was altered); when"):
        train(cfg, speaker, task_index, out, resume=True)


def test_what_is_beyond_the_checkpoint_is_cut_and_not_read(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    cfg = config()
    with pytest.raises(Killed):
        train(cfg, speaker, task_index, tmp_path / "train", progress=killer(2))
    for name in ("metrics.jsonl", "samples.jsonl", "timings.jsonl"):
        with (tmp_path / "train" / name).open("ab") as file:
            file.write(b"\xff\x00[[[{\n" * 3)
    train(cfg, speaker, task_index, tmp_path / "train", resume=True)
    train(cfg, speaker, task_index, tmp_path / "whole")
    assert_same(bits(tmp_path / "train"), bits(tmp_path / "whole"))


def test_other_games_are_refused(whole: tuple[Path, TrainSummary], speaker: Path, task_index: TaskIndex) -> None:
    fewer = TaskIndex(task_index.root, tuple(entry for entry in task_index.entries if entry.task_type != "pick_two_obj_and_place"))
    with pytest.raises(CheckpointError, match="belongs to another training: it began from other tasks"):
        train(config(), speaker, fewer, whole[0], resume=True)


def test_no_training_games_is_said_at_once(speaker: Path, task_index: TaskIndex, tmp_path: Path) -> None:
    validation = TaskIndex(task_index.root, tuple(task_index.split("valid_seen")))
    with pytest.raises(DataError, match="split 'train' has no tasks"):
        train(config(), speaker, validation, tmp_path / "train")
    assert not (tmp_path / "train").exists()


def played(switches: list[bool], won: bool, faults: list[list[str]] | None = None) -> Trajectory:
    turns = [
        Turn("", "", switch, "", "", fault, not fault, 0.0, 0.0, 10 + number)
        for number, (switch, fault) in enumerate(zip(switches, faults or [[]] * len(switches), strict=True))
    ]
    return Trajectory("g", "train", "t", "t", won, StopReason.terminated if won else StopReason.turn_limit, turns, "")


def test_episodes_count_once_each() -> None:
    """A win in two turns with one segment; a failure in six with four segments, one turn without an action."""
    faults = [[], [], ["missing_action", "missing_switch"], [], ["unknown_switch"], []]
    found = rollout_metrics([played([True, False], True), played([True, True, False, True, False, True], False, faults)])
    assert found == {
        "rollout/success_rate": 0.5,
        "rollout/score": 0.5,
        "rollout/turns": 4.0,
        "rollout/turns_won": 2.0,
        "rollout/truncated_rate": 0.5,
        "rollout/reply_tokens": pytest.approx((10 + 11 + 10 + 11 + 12 + 13 + 14 + 15) / 8),
        "rollout/valid_rate": 6 / 8,
        "rollout/missing_action_rate": 1 / 8,
        "rollout/inadmissible_rate": 2 / 8,
        "switch/rate": 3 / 6,
        "switch/segment_length": 8 / 5,
        "switch/segments": 2.5,
    }


def test_a_score_is_not_a_success() -> None:
    found = rollout_metrics([replace(played([True], False), score=0.6), replace(played([True], True), score=1.0)])
    assert (found["rollout/success_rate"], found["rollout/score"]) == (0.5, 0.8)


def test_no_wins_and_single_turns_divide_by_nothing() -> None:
    found = rollout_metrics([played([True], False)])
    assert (found["rollout/turns_won"], found["switch/rate"], found["switch/segment_length"]) == (0.0, 0.0, 1.0)
