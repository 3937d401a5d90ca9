"""A study on a Postgres server that other machines use and that goes away.

Rules: wherever a connection is lost, before a commit or before its answer, each slot is there once and claimed once; machines that share
no file system take turns; calls wait for a server that restarts, for so long and no longer; nobody is taken for dead because the server
was away; a training goes on without it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

import hiper.experiments.sweep.storage
from hiper.errors import ConfigError
from hiper.experiments.sweep.spec import SweepSpec
from hiper.experiments.sweep.storage import SILENT, StorageAway, open_storage
from hiper.experiments.sweep.study import CLAIM, Claim, SweepStudy, slot_number
from hiper.experiments.sweep.trial import _Watch
from tests.experiments.sweep.test_study import grow_silent
from tests.postgres import Postgres, Wire


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again soon."""
    monkeypatch.setattr(hiper.experiments.sweep.storage, "FIRST_PAUSE", 0.05)


@pytest.fixture
def shared(spec: SweepSpec, database: str) -> SweepSpec:
    """A sweep on the server, whose workers count as dead after four seconds."""
    return dataclasses.replace(spec, storage=database, heartbeat=1)


def machines(spec: SweepSpec, tmp_path: Path) -> list[SweepSpec]:
    """The sweep as two machines see it, which have no file in common."""
    return [dataclasses.replace(spec, directory=str(tmp_path / name)) for name in ("one", "other")]


def taken(study: SweepStudy) -> Claim:
    claim = study.claim()
    assert claim is not None
    return claim


def attempts(study: SweepStudy) -> list[FrozenTrial]:
    return study.storage.get_all_trials(study._id)


def until_grace_is_over(postgres: Postgres) -> None:
    """Wait until the server has been up for long enough that a silent worker is a dead one."""
    while not postgres.ask(f"SELECT clock_timestamp() - pg_postmaster_start_time() > '{SILENT + 0.1} s'")[0][0]:
        time.sleep(0.1)


# Lost connections.


def _claim(study: SweepStudy) -> None:
    token = taken(study).trial.user_attrs[CLAIM]
    assert [one.user_attrs[CLAIM] for one in attempts(study) if one.state is TrialState.RUNNING].count(token) == 1


def _fill(study: SweepStudy) -> None:
    study.storage.in_turn(study._fill)


def _hand_back(study: SweepStudy) -> None:
    one = next(one for one in study.study.trials if one.state is TrialState.RUNNING)
    study.requeue(Claim(optuna.trial.Trial(study.study, one._trial_id), slot_number(one), one._trial_id, study.storage))


def _complete(study: SweepStudy) -> None:
    one = next(one for one in study.study.trials if one.state is TrialState.RUNNING)
    study.complete(Claim(optuna.trial.Trial(study.study, one._trial_id), slot_number(one), one._trial_id, study.storage), 0.5)


@pytest.fixture
def wire(postgres: Postgres) -> Iterator[Wire]:
    one = Wire(postgres)
    yield one
    one.close()


@pytest.mark.slow
@pytest.mark.parametrize("answered", [False, True], ids=["before the commit", "before its answer"])
@pytest.mark.parametrize("do", [_claim, _fill, _hand_back, _complete])
def test_wherever_a_connection_is_lost_each_slot_is_claimed_once(
    do: Callable[[SweepStudy], None], answered: bool, shared: SweepSpec, postgres: Postgres, wire: Wire
) -> None:
    """Of three slots, the first is a dead worker's."""
    here, there = open_storage(shared), open_storage(dataclasses.replace(shared, storage=postgres.url("test", port=wire.port)))
    until_grace_is_over(postgres)
    at = 0
    while True:
        at += 1
        spec = dataclasses.replace(shared, name=f"cut-{at}", trials=3)
        study = SweepStudy(spec, here, optuna.create_study(storage=here, study_name=spec.name, direction="maximize"))
        _fill(study)
        if do is not _fill:
            grow_silent(study, taken(study).id)
        wire.cut(at, answered)
        do(SweepStudy(spec, there, optuna.load_study(storage=there, study_name=spec.name)))
        happened = wire.was_cut
        wire.cut(0, answered)

        for one in attempts(study):
            if one.state is TrialState.RUNNING:
                grow_silent(study, one._trial_id)
        claims = []
        while (claim := study.claim()) is not None:
            claims.append(claim.slot)
        done = [slot_number(one) for one in attempts(study) if one.state is TrialState.COMPLETE]
        assert sorted(claims + done) == [0, 1, 2], f"commit {at}"
        assert len(done) == (1 if do is _complete else 0)
        assert max(Counter(slot_number(one) for one in attempts(study) if one.state is not TrialState.FAIL).values()) == 1
        if not happened:
            break
    assert at > 3, "there were commits to cut at"


# Machines that share nothing but the server.


def test_a_study_begun_on_two_machines_at_once_has_its_slots_once(shared: SweepSpec, tmp_path: Path) -> None:
    for number in range(2):
        begun = [dataclasses.replace(one, name=f"at-once-{number}", trials=8) for one in machines(shared, tmp_path)]
        with ThreadPoolExecutor(2) as pool:
            studies = list(pool.map(SweepStudy.begin, begun))
        assert [slot.number for slot in studies[0].slots()] == list(range(8))
        assert len(attempts(studies[0])) == 8


@pytest.mark.slow
def test_the_tables_can_be_made_by_two_machines_at_once(shared: SweepSpec, postgres: Postgres, tmp_path: Path) -> None:
    for _ in range(3):
        postgres.create("test")
        with ThreadPoolExecutor(2) as pool:
            for storage in pool.map(open_storage, machines(shared, tmp_path)):
                storage.engine.dispose()


@pytest.mark.slow
def test_machines_never_claim_the_same_slot(shared: SweepSpec, tmp_path: Path) -> None:
    many = dataclasses.replace(shared, trials=20, heartbeat=30)
    SweepStudy.begin(many)

    def claim_all(spec: SweepSpec) -> list[int]:
        study, found = SweepStudy.join(spec), []
        while (claim := study.claim()) is not None:
            found.append(claim.slot)
        return found

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(claim_all, machines(many, tmp_path))
    assert sorted(first + second) == list(range(20))
    assert first
    assert second


@pytest.mark.parametrize("other_does", ["begins", pytest.param("claims", marks=pytest.mark.slow)])
def test_a_slot_on_its_way_back_is_put_back_by_one_machine(other_does: str, shared: SweepSpec, tmp_path: Path, postgres: Postgres) -> None:
    """One machine marks a dead worker's trial as failed and is slow to put its slot back; the other looks meanwhile."""
    mine, other = machines(dataclasses.replace(shared, trials=1), tmp_path)
    study = SweepStudy.begin(mine)
    grow_silent(study, taken(study).id)
    until_grace_is_over(postgres)
    between, requeue = threading.Event(), study._queue_again

    def slowly(of: optuna.Study, trial: FrozenTrial) -> None:
        between.set()
        time.sleep(0.5)
        requeue(of, trial)

    study._queue_again = slowly  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(study.claim)
        assert between.wait(10)
        second = SweepStudy.begin(other)
        late = second.claim() if other_does == "claims" else None
        assert first.result() is not None
    assert late is None
    assert [one.state for one in attempts(study)] == [TrialState.FAIL, TrialState.RUNNING]


@pytest.mark.slow
def test_a_machine_that_stops_in_its_turn_holds_nobody_up(shared: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiper.experiments.sweep.storage, "FROZEN", 1)
    frozen, other = SweepStudy.begin(shared), SweepStudy.join(shared)
    calls = 0

    def freeze() -> list[FrozenTrial]:
        nonlocal calls
        calls += 1
        if calls == 1:
            time.sleep(3)
        return attempts(frozen)

    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(frozen.storage.in_turn, freeze)
        time.sleep(0.3)
        began = time.monotonic()
        assert other.claim() is not None
        assert time.monotonic() - began < 2.5
        assert len(waits.result()) == shared.trials
    assert calls == 2, "what it did after its turn was over failed, and was done in another"


# A server that goes away.


@pytest.mark.parametrize("mode", ["fast", pytest.param("immediate", marks=pytest.mark.slow)])
def test_calls_wait_for_a_server_that_restarts(mode: str, shared: SweepSpec, postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    study = SweepStudy.begin(shared)
    claim = taken(study)
    postgres.stop(mode)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(study.claim), pool.submit(study.slots), pool.submit(claim.trial.set_user_attr, "some", "thing")]
        joining = threading.Thread(target=SweepStudy.join, args=(shared, True))
        joining.start()
        time.sleep(1)
        assert not any(one.done() for one in waiting)
        postgres.start()
        second = waiting[0].result(timeout=30)
        joining.join(timeout=30)
    assert isinstance(second, Claim)
    assert {claim.slot, second.slot} == {0, 1}
    assert study.storage.get_trial(claim.id).user_attrs["some"] == "thing"
    study.complete(claim, 0.5)
    study.complete(second, 0.25)
    assert [slot.last.value for slot in study.slots()] == [0.5, 0.25]
    assert "trying again for 15 minutes" in caplog.text
    assert "is back after" in caplog.text
    assert postgres.password not in caplog.text


def test_waiting_has_an_end_and_leaves_nothing_behind(shared: SweepSpec, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    study = SweepStudy.begin(shared)
    claim = taken(study)
    postgres.stop()
    monkeypatch.setattr(hiper.experiments.sweep.storage, "PATIENCE", 0.3)
    with pytest.raises(StorageAway, match=r"cannot be reached .*; waited for 0 s") as caught:
        study.slots()
    assert postgres.password not in str(caught.value)
    with pytest.raises(StorageAway):
        SweepStudy.join(shared)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with study.storage.briefly(), pytest.raises(StorageAway):
            study.storage.record_heartbeat(claim.id)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before

    monkeypatch.undo()
    began = time.monotonic()
    study.requeue(claim)
    assert time.monotonic() - began < 5, "who is interrupted does not wait"
    postgres.start()
    sessions = postgres.ask("SELECT count(*) FROM pg_stat_activity WHERE datname = 'test'")[0][0]
    study.slots()
    assert int(str(sessions)) <= 2


@pytest.mark.slow
def test_a_living_worker_is_not_taken_for_dead_because_the_server_was_away(shared: SweepSpec, postgres: Postgres) -> None:
    study, other = SweepStudy.begin(shared), SweepStudy.join(shared)
    claim = taken(study)
    with study.alive(claim):
        grow_silent(study, claim.id)  # as after an hour's outage
        postgres.restart("fast")
        second = taken(other)
        assert second.slot != claim.slot
        with other.alive(second):
            until_grace_is_over(postgres)
            assert other.claim() is None, "both have sent a heartbeat since"
    grow_silent(study, claim.id)
    assert taken(other).slot == claim.slot


def test_a_training_goes_on_without_the_study_and_tells_it_later(
    shared: SweepSpec, postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = SweepStudy.begin(shared)
    claim = taken(study)
    cfg = shared.compose({}, 0, tmp_path / "run")
    metrics = tmp_path / "run" / "train.partial" / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    watch = _Watch(shared, claim, cfg, lambda: None, 0, 0)
    for iteration in (1, 2, 3):
        with metrics.open("a") as file:
            file.write(json.dumps({"iteration": iteration, "eval/success_rate": iteration / 4, "env/turns": 10 * iteration}) + "\n")
        if iteration == 2:
            postgres.stop()
        began = time.monotonic()
        watch(iteration, 5)
        assert time.monotonic() - began < 5
    assert "training goes on without the study" in caplog.text
    postgres.start()
    watch(3, 5)
    (slot, _) = study.slots()
    assert slot.turns == 30
    assert slot.last.intermediate_values == {1: 0.25, 2: 0.375, 3: 0.625}, "means of the last two evaluations"


def test_other_databases_are_refused(spec: SweepSpec) -> None:
    for storage, said in (("mysql://me:secret@nowhere.invalid/studies", "SQLite or Postgres"), ("nonsense", "not a database URL")):
        with pytest.raises(ConfigError, match=said) as caught:
            open_storage(dataclasses.replace(spec, storage=storage))
        assert "secret" not in str(caught.value)
