"""The queue of a study.

Rules: each slot is claimed by one worker at a time and ends once; a dead worker's trial comes back with its settings, an interrupted one
at once; a sampler draws by the slot; a study is not continued under another space; a password is never shown.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from datetime import datetime, timedelta

import pytest
import sqlalchemy
from optuna.trial import TrialState

from hiper.errors import ConfigError, WorkflowError
from hiper.experiments.sweep.outcome import tally
from hiper.experiments.sweep.spec import Dimension, SweepSpec
from hiper.experiments.sweep.storage import open_storage, shown
from hiper.experiments.sweep.study import TURNS, SweepStudy, TrialLost
from hiper.experiments.sweep.trial import suggest


def grow_silent(study: SweepStudy, trial_id: int) -> None:
    """Let a worker's last heartbeat lie an hour back."""
    with study.storage.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = :then WHERE trial_id = :trial"),
            {"then": datetime.utcnow() - timedelta(hours=1), "trial": trial_id},
        )


def test_a_study_begins_with_its_slots_and_grows(spec: SweepSpec) -> None:
    study = SweepStudy.begin(spec)
    assert [slot.number for slot in study.slots()] == [0, 1]
    assert len(SweepStudy.begin(dataclasses.replace(spec, trials=5)).slots()) == 5


def test_a_slot_is_claimed_once(spec: SweepSpec) -> None:
    study, other = SweepStudy.begin(spec), SweepStudy.join(spec)
    claims = [study.claim(), other.claim()]
    assert [claim.slot for claim in claims if claim is not None] == [0, 1]
    assert study.claim() is None
    assert other.running()


def _claim_all(spec: SweepSpec, queue: multiprocessing.Queue[int]) -> None:
    study = SweepStudy.join(spec)
    while (claim := study.claim()) is not None:
        queue.put(claim.slot)


def test_processes_never_claim_the_same_slot(spec: SweepSpec) -> None:
    many = dataclasses.replace(spec, trials=20)
    SweepStudy.begin(many)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_claim_all, args=(many, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    claimed = sorted(queue.get(timeout=120) for _ in range(20))
    for process in processes:
        process.join(timeout=60)
    assert claimed == list(range(20))
    assert queue.empty()


def test_a_dead_workers_trial_comes_back_with_its_settings(spec: SweepSpec) -> None:
    study = SweepStudy.begin(spec)
    lost = study.claim()
    assert lost is not None
    settings = suggest(spec, lost.trial)
    lost.trial.set_user_attr(TURNS, 77)
    grow_silent(study, lost.id)
    claims = [study.claim() for _ in range(2)]
    again = next(claim for claim in claims if claim is not None and claim.slot == lost.slot)
    assert suggest(spec, again.trial) == settings
    with pytest.raises(TrialLost):
        study.complete(lost, 0.9)  # the dead come too late
    study.complete(again, 0.25)
    slots = study.slots()
    assert len(slots) == spec.trials
    assert (slots[0].last.value, slots[0].turns) == (0.25, 77)


def test_a_trial_whose_workers_keep_dying_is_given_up(spec: SweepSpec) -> None:
    one = dataclasses.replace(spec, trials=1, retries=2)
    study = SweepStudy.begin(one)
    for _ in range(3):
        claim = study.claim()
        assert claim is not None
        grow_silent(study, claim.id)
    assert study.claim() is None
    assert not study.running()
    assert tally(study).failed == 1


def test_a_sign_of_life_keeps_a_trial(spec: SweepSpec) -> None:
    study = SweepStudy.begin(dataclasses.replace(spec, trials=1, heartbeat=1))
    claim = study.claim()
    assert claim is not None
    grow_silent(study, claim.id)
    over = datetime.now() + timedelta(seconds=30)
    with study.alive(claim):
        while study.storage._get_stale_trial_ids(study._id) and datetime.now() < over:
            pass
    assert SweepStudy.join(spec).claim() is None


def test_an_interrupted_trial_is_handed_back_at_once(spec: SweepSpec) -> None:
    study = SweepStudy.begin(dataclasses.replace(spec, trials=1))
    claim = study.claim()
    assert claim is not None
    study.requeue(claim)
    study.requeue(claim)  # the second signal finds nothing to do
    again = study.claim()
    assert again is not None
    assert again.slot == claim.slot
    assert study.claim() is None


def test_a_slot_lost_between_two_writes_is_mended(spec: SweepSpec) -> None:
    """Killed after the old attempt was marked failed and before the new one was queued."""
    study = SweepStudy.begin(dataclasses.replace(spec, trials=1))
    claim = study.claim()
    assert claim is not None
    study.storage.set_trial_state_values(claim.id, TrialState.FAIL)
    assert (tally(study).failed, tally(study).open) == (0, 1), "it is on its way back"
    again = study.claim()
    assert again is not None
    assert study.claim() is None
    assert again.slot == claim.slot


def test_a_failed_training_is_not_repeated(spec: SweepSpec) -> None:
    study = SweepStudy.begin(dataclasses.replace(spec, trials=1))
    claim = study.claim()
    assert claim is not None
    study.fail(claim, ValueError("no such thing"))
    assert SweepStudy.begin(dataclasses.replace(spec, trials=1)).claim() is None
    assert (tally(study).failed, tally(study).open) == (1, 0)


def test_a_spent_budget_ends_the_queue_but_not_what_was_begun(spec: SweepSpec) -> None:
    study = SweepStudy.begin(dataclasses.replace(spec, trials=3, budget=100))
    first, second = study.claim(), study.claim()
    assert first is not None
    assert second is not None
    first.trial.set_user_attr(TURNS, 100)
    study.complete(first, 0.5)
    study.requeue(second)
    again = study.claim()
    assert again is not None
    assert again.slot == second.slot
    study.complete(again, 0.5)
    assert study.claim() is None
    counted = tally(study)
    assert (counted.complete, counted.open, counted.beyond) == (2, 0, 1)
    assert str(counted) == "3 trials: 2 complete, 1 beyond the budget; 100 turns played"


def test_a_sampler_draws_by_the_slot(spec: SweepSpec) -> None:
    drawn = []
    for name in ("a", "b"):
        study = SweepStudy.begin(dataclasses.replace(spec, directory=f"{spec.directory}-{name}"))
        claims = [study.claim(), study.claim()]
        drawn.append([suggest(spec, claim.trial) for claim in claims if claim is not None])
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]


def test_a_setting_whose_condition_does_not_hold_is_left_out(spec: SweepSpec) -> None:
    study = SweepStudy.begin(dataclasses.replace(spec, trials=12))
    for _ in range(12):
        claim = study.claim()
        assert claim is not None
        settings = suggest(spec, claim.trial)
        assert ("algo.shaping.keep" in settings) is (settings["algo.shaping.keep_mode"] == "fixed")


def test_another_space_is_another_study(spec: SweepSpec) -> None:
    SweepStudy.begin(spec)
    other = dataclasses.replace(spec, space={"algo.gamma": Dimension(low=0.5, high=1.0)})
    for come in (SweepStudy.begin, SweepStudy.join):
        with pytest.raises(ConfigError, match="could not be compared"):
            come(other)


def test_a_study_that_was_not_begun_cannot_be_joined(spec: SweepSpec) -> None:
    spec.place.mkdir()
    with pytest.raises(ConfigError, match="Begin it without --join"):
        SweepStudy.join(spec)


def test_a_password_is_not_shown(spec: SweepSpec) -> None:
    away = dataclasses.replace(spec, storage="postgresql://me:secret@nowhere.invalid/studies")
    assert "secret" not in shown(away)
    with pytest.raises(WorkflowError) as caught:
        open_storage(away)
    assert "secret" not in str(caught.value)
