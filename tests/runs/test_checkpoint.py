"""Rules of checkpoints.

1. What is saved comes back to the bit: tensors, state, every kind of generator, an optimiser in mid-training.
2. A failed or killed save leaves earlier checkpoints as they were, and no rubbish behind.
3. A full disk is named as such.
4. Any damage - a file missing, cut, or with one bit changed - is noticed, and the newest sound checkpoint is found.
5. Pruning spares the last ones and the named, and removes what would push them out or was left half deleted.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from hiper.errors import CheckpointError
from hiper.runs import checkpoint as ck

TENSORS = {
    "weight": torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
    "half": torch.randn(4, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "count": torch.tensor(7, dtype=torch.int64),
    "flags": torch.tensor([True, False]),
}
STATE = {"iteration": 3, "loss": 0.1 + 0.2, "note": "tür", "best": -1e300, "draws": 2**128 - 1, "nested": {"a": [1, None, True]}}


def save(directory: Path, number: int) -> Path:
    return ck.save_checkpoint(directory, f"iteration-{number:06d}", TENSORS, STATE | {"iteration": number})


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def flip_bit(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 1 << (offset % 8)
    path.write_bytes(bytes(data))


def test_what_is_saved_comes_back_to_the_bit(tmp_path: Path) -> None:
    tensors, state = ck.load_checkpoint(ck.save_checkpoint(tmp_path, "iteration-000003", TENSORS, STATE))
    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_tied_and_transposed_weights_are_written(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors, _ = ck.load_checkpoint(ck.save_checkpoint(tmp_path, "a-1", {"embed": shared, "head": shared, "turned": shared.T}, {}))
    assert torch.equal(tensors["embed"], shared) and torch.equal(tensors["head"], shared) and torch.equal(tensors["turned"], shared.T)


def test_saving_again_under_the_same_name_replaces(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = ck.save_checkpoint(tmp_path, "iteration-000001", {"x": torch.ones(1)}, {"again": True})
    assert ck.load_checkpoint(path)[1] == {"again": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["iteration-000001"]


def test_checkpoints_are_ordered_by_number_not_by_spelling(tmp_path: Path) -> None:
    for name in ("iteration-9", "iteration-10", "iteration-2"):
        ck.save_checkpoint(tmp_path, name, {}, {})
    assert [path.name for path in ck.list_checkpoints(tmp_path)] == ["iteration-2", "iteration-9", "iteration-10"]
    assert ck.latest_checkpoint(tmp_path) == tmp_path / "iteration-10"


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert ck.latest_checkpoint(tmp_path) is None
    assert ck.latest_checkpoint(tmp_path / "absent") is None


@pytest.mark.parametrize("name", ["final", "../x-1", "", ".hidden-1", "a/b-1"])
def test_a_name_without_a_place_in_the_order_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="does not end in a number"):
        ck.save_checkpoint(tmp_path, name, {}, {})


@pytest.mark.parametrize(
    ("state", "where"),
    [
        ({"a": {1: 2}}, r"state\['a'\] has the key 1"),
        ({"a": [{0.5}]}, r"state\['a'\]\[0\] is a set"),
        ({"a": float("-inf")}, r"state\['a'\] is -inf"),
    ],
)
def test_state_that_json_would_change_is_refused(tmp_path: Path, state: dict[str, object], where: str) -> None:
    with pytest.raises(TypeError, match=where):
        ck.save_checkpoint(tmp_path, "a-1", {}, state)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    before = contents(tmp_path)
    real = os.fsync

    def full(descriptor: int) -> None:
        real(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"iteration-000002 was not written: no space left.*Earlier checkpoints are intact"):
        save(tmp_path, 2)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["iteration-000001"]


def test_safetensors_own_report_of_a_full_disk_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors raises no OSError but Rust's text; the real thing, with another number, is in the next test."""

    def full(*_: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(ck, "save_file", full)
    with pytest.raises(CheckpointError, match="no space left"):
        save(tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_write_the_system_really_refuses_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    """The kernel cuts the write off in the middle of the tensors, through a limit on the size of files."""
    save(tmp_path, 1)
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"was not written: .*os error 27.*Earlier checkpoints are intact"):
            ck.save_checkpoint(tmp_path, "iteration-000002", {"big": torch.zeros(1 << 16)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before
    assert ck.latest_checkpoint(tmp_path) == tmp_path / "iteration-000001"


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_a_killed_save_leaves_earlier_checkpoints_and_the_next_save_tidies(tmp_path: Path, moment: str) -> None:
    save(tmp_path, 1)
    before = contents(tmp_path)
    program = f"""
import os, signal, sys, pathlib, torch
from hiper.runs import checkpoint as ck
def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)
if {moment!r} == "fsync": os.fsync = die
else: pathlib.Path.replace = die
ck.save_checkpoint(pathlib.Path(sys.argv[1]), "iteration-000002", {{"x": torch.ones(9)}}, {{}})
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -9
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith(".")} == before
    assert ck.latest_checkpoint(tmp_path) == tmp_path / "iteration-000001"
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration-000001", "iteration-000003"]


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_damage_is_noticed_and_the_previous_checkpoint_found(
    tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / file
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size - 3)
    with pytest.raises(CheckpointError, match=file):
        ck.load_checkpoint(path.parent)
    with caplog.at_level(logging.WARNING):
        assert ck.latest_checkpoint(tmp_path) == tmp_path / "iteration-000001"
    assert "Passing over a checkpoint" in caplog.text and file in caplog.text and "iteration-000002" in caplog.text


@given(file=st.sampled_from(["tensors.safetensors", "state.json", "manifest.json"]), offset=st.integers(0, 100_000))
def test_one_changed_bit_is_noticed_or_harmless(tmp_path_factory: pytest.TempPathFactory, file: str, offset: int) -> None:
    path = save(tmp_path_factory.mktemp("flip"), 1)
    flip_bit(path / file, offset)
    try:
        tensors, state = ck.load_checkpoint(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:  # only white space of the manifest may change without a trace in what is read
        assert file == "manifest.json"
        assert state == STATE | {"iteration": 1} and all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_when_all_are_damaged_the_run_is_not_silently_begun_again(tmp_path: Path) -> None:
    for number in (1, 2):
        flip_bit(save(tmp_path, number) / "tensors.safetensors", 200)
    with pytest.raises(CheckpointError, match="No checkpoint in .* can be used. The newest of 2:"):
        ck.latest_checkpoint(tmp_path)


def test_another_format_is_refused_by_number(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        ck.load_checkpoint(path)


def test_prune_keeps_the_newest_and_the_named(tmp_path: Path) -> None:
    for number in range(1, 6):
        save(tmp_path, number)
    ck.prune(tmp_path, "iteration-000005", keep_last=2, keep={"iteration-000002"})
    assert [path.name[-1] for path in ck.list_checkpoints(tmp_path)] == ["2", "4", "5"]
    with pytest.raises(ValueError, match="keep_last=0"):
        ck.prune(tmp_path, "iteration-000005", keep_last=0, keep=set())


def test_prune_takes_what_a_run_went_back_behind(tmp_path: Path) -> None:
    """Damaged checkpoints 8 and 9, from 2 on: counted as the last two, they had 3 deleted as soon as it was written."""
    for number in (2, 3, 8, 9):
        save(tmp_path, number)
    ck.prune(tmp_path, "iteration-000003", keep_last=2, keep=set())
    assert [path.name[-1] for path in ck.list_checkpoints(tmp_path)] == ["2", "3"]


def test_prune_takes_what_a_process_killed_while_pruning_left(tmp_path: Path) -> None:
    save(tmp_path, 1).rename(tmp_path / ".iteration-000001.replaced")
    save(tmp_path / "new", 2).rename(tmp_path / "iteration-000002")
    ck.prune(tmp_path, "iteration-000002", keep_last=2, keep=set())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration-000002", "new"]


def test_torch_generator_continues(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    path = ck.save_checkpoint(tmp_path, "a-1", {"rng": ck.generator_state(generator)}, {})
    expected = torch.randn(10, generator=generator)
    fresh = torch.Generator()
    ck.restore_generator(fresh, ck.load_checkpoint(path)[0]["rng"])
    assert torch.equal(torch.randn(10, generator=fresh), expected)


def test_python_random_continues_through_json() -> None:
    source = random.Random(5)
    source.gauss(0, 1)  # leaves a second deviate in store
    state = json.loads(json.dumps(ck.python_random_state(source)))
    fresh = random.Random()
    ck.restore_python_random(fresh, state)
    assert [fresh.gauss(0, 1) for _ in range(5)] == [source.gauss(0, 1) for _ in range(5)]


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_numpy_generators_continue_through_json(kind: type[np.random.BitGenerator]) -> None:
    source = np.random.Generator(kind(5))
    source.integers(0, 10, size=3, dtype=np.int32)  # leaves half a word in store
    state = json.loads(json.dumps(ck.numpy_state(source)))
    fresh = np.random.Generator(kind(0))
    ck.restore_numpy(fresh, state)
    assert np.array_equal(fresh.integers(0, 1 << 30, size=50, dtype=np.int32), source.integers(0, 1 << 30, size=50, dtype=np.int32))


def test_state_of_another_numpy_generator_is_refused() -> None:
    state = ck.numpy_state(np.random.Generator(np.random.MT19937(0)))
    with pytest.raises(CheckpointError, match=r"PCG64.*MT19937"):
        ck.restore_numpy(np.random.default_rng(0), state)


def make(seed: int, hidden: int = 8) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 2))
    groups = [{"params": model[0].parameters(), "lr": 1e-3}, {"params": model[2].parameters(), "lr": torch.tensor(3e-2)}]
    return model, torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.1)


def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(6, 4, generator=generator)).square().mean().backward()
        optimizer.step()


def test_training_continues_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = make(0)
    steps(model, optimizer, 5, seed=1)
    flat, rest = ck.optimizer_tensors(optimizer)
    path = ck.save_checkpoint(tmp_path, "a-5", ck.add_prefix("model", model.state_dict()) | ck.add_prefix("optimizer", flat), {"o": rest})
    steps(model, optimizer, 5, seed=2)

    resumed, other = make(99)
    tensors, state = ck.load_checkpoint(path)
    resumed.load_state_dict(ck.strip_prefix("model", tensors))
    ck.restore_optimizer(other, ck.strip_prefix("optimizer", tensors), state["o"])
    assert other.param_groups[0]["betas"] == (0.9, 0.95)
    steps(resumed, other, 5, seed=2)
    for ours, theirs in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_optimiser_that_has_not_stepped_is_restored() -> None:
    _, optimizer = make(0)
    _, other = make(1)
    ck.restore_optimizer(other, *ck.optimizer_tensors(optimizer))
    assert not other.state


def test_the_optimiser_of_another_model_is_refused() -> None:
    model, optimizer = make(0)
    steps(model, optimizer, 1, seed=1)
    flat, rest = ck.optimizer_tensors(optimizer)
    with pytest.raises(CheckpointError, match=r"0\.exp_avg has shape \(8, 4\), this run's parameter \(16, 4\)"):
        ck.restore_optimizer(make(0, hidden=16)[1], flat, rest)
    with pytest.raises(CheckpointError, match=r"groups of \[2, 2\] tensors, this run's has \[4\]"):
        ck.restore_optimizer(torch.optim.AdamW(model.parameters()), flat, rest)
