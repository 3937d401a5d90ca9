"""What came out of a study: the account of its trials, the best settings as an experiment file, the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import TrialState

from hiper.config.places import is_group, own_config_dir
from hiper.errors import ConfigError, DataError
from hiper.experiments.sweep.spec import SweepSpec, as_override
from hiper.experiments.sweep.storage import shown
from hiper.experiments.sweep.study import ERROR, Slot, SweepStudy
from hiper.report.charts import plain
from hiper.report.sweep import Axis, SweepRecord, TrialRow, write_sweep_report
from hiper.runtime.files import write_text
from hiper.runtime.reading import YAML_BYTES, read_text

STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class Tally:
    """What became of a study's trials; together they are all of them."""

    complete: int
    pruned: int
    failed: int
    open: int
    """Still to be done."""
    beyond: int
    """Never begun, because the budget was spent."""
    turns: int
    """Turns of the environment, all trials together."""

    def __str__(self) -> str:
        counts = [(self.complete, "complete"), (self.pruned, "pruned"), (self.failed, "failed"), (self.open, "open")]
        parts = [f"{count} {what}" for count, what in [*counts, (self.beyond, "beyond the budget")] if count]
        return f"{sum(count for count, _ in counts) + self.beyond} trials: {', '.join(parts)}; {self.turns} turns played"


def tally(study: SweepStudy) -> Tally:
    """Count the trials."""
    slots = study.slots()
    counts = Counter(STATES[slot.last.state] for slot in slots if slot.ended)
    turns = sum(slot.turns for slot in slots)
    spent = study.spec.budget is not None and turns >= study.spec.budget
    beyond = sum(slot.last.state is TrialState.WAITING and slot.number == slot.last.number for slot in slots) if spent else 0
    open_ = sum(not slot.ended for slot in slots) - beyond
    return Tally(counts["complete"], counts["pruned"], counts["failed"], open_, beyond, turns)


def best(study: SweepStudy) -> Slot | None:
    """The complete trial with the highest objective, the earliest of equals; None: none is complete."""
    complete = [slot for slot in study.slots() if slot.last.state is TrialState.COMPLETE]
    return max(complete, key=lambda slot: slot.last.value or 0.0, default=None)


def check_best_file(spec: SweepSpec) -> None:
    """See that the experiment file is this sweep's to write.

    Raises:
        ConfigError: a file of that name was written by somebody else.
    """
    path = _best_file(spec)
    if path.exists() and not _ours(path, spec):
        raise ConfigError(f"{path} was not written by the sweep {spec.name!r}. Name another file with best=..., or move that one away.")


def _ours(path: Path, spec: SweepSpec) -> bool:
    try:
        return _signature(spec) in read_text(path, YAML_BYTES).splitlines()
    except DataError:
        return False


def write_best(spec: SweepSpec, slot: Slot, counted: Tally) -> Path:
    """Write the settings of a trial as an experiment: `experiment=NAME` composes to what the trial was trained with.

    Raises:
        ConfigError: `conf/` cannot be written to.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    defaults: list[Any] = []
    values: dict[str, Any] = {"name": spec.best_name}
    texts = [*spec.base, *(as_override(key, value) for key, value in slot.last.params.items())]
    for override in OverridesParser.create().parse_overrides(texts):
        key, value = override.key_or_group, override.value()
        if key == "experiment":
            defaults.insert(0, value)
        elif is_group(key):
            defaults.append({f"override /{key}": value})
        else:
            _put(values, key.split("."), value)
    head = [
        "# @package _global_",
        f"# hiper run experiment={spec.best_name}",
        _signature(spec),
        f"# Trial {slot.number}, seeds {spec.seeds}: objective {slot.last.value}, mean success of the last {spec.last} evaluations.",
        f"# {counted}. The highest of many noisy values promises more than it holds.",
    ]
    path = _best_file(spec)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "\n".join(head) + "\n" + OmegaConf.to_yaml(OmegaConf.create({"defaults": [*defaults, "_self_"], **values})))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Allow it, then give the command again.") from error
    return path


def record(study: SweepStudy) -> SweepRecord:
    """The study as its page shows it."""
    spec = study.spec
    rows = [_row(slot) for slot in study.slots()]
    found = best(study)
    tasks = spec.compose({}, spec.seeds[0], spec.place).trainer.eval_tasks
    return SweepRecord(
        name=spec.name,
        objective=f"Objective: mean success of the last {spec.last} evaluations in training, {tasks} tasks of valid seen each, "
        f"mean of seeds {', '.join(map(str, spec.seeds))}.",
        tally=str(tally(study)),
        trials=rows,
        axes=[Axis(key, one.log, one.choices) for key, one in spec.space.items()],
        importances=_importances(study),
        best=_row(found) if found is not None else None,
        experiment=spec.best_name if found is not None else None,
        facts=[
            ("Trials", str(len(rows))),
            ("Turns played", plain(sum(row.turns for row in rows))),
            ("Sampler", spec.sampler.name.value),
            ("Pruner", spec.pruner.name.value),
            ("All trials share", " ".join(spec.base)),
            ("Storage", shown(spec)),
        ],
    )


def write_page(study: SweepStudy) -> Path:
    """Write the sweep's page."""
    return write_sweep_report(record(study), study.spec.place / "report" / "report.html")


def _row(slot: Slot) -> TrialRow:
    last = slot.last
    value = last.value
    if value is None and last.intermediate_values:
        value = last.intermediate_values[max(last.intermediate_values)]
    again = len(last.system_attrs.get("retry_history", []))
    note = f"taken up again {again} times" if again > 1 else "taken up again" if again else ""
    if last.state is TrialState.FAIL:
        note = str(last.user_attrs.get(ERROR, "its workers died or were stopped too often"))
    return TrialRow(slot.number, STATES[last.state], value, max(last.intermediate_values, default=0), slot.turns, last.params, note)


def _importances(study: SweepStudy) -> dict[str, float]:
    values = {slot.last.value for slot in study.slots() if slot.last.state is TrialState.COMPLETE}
    if len(values) < 2:
        return {}
    return optuna.importance.get_param_importances(study.study)


def _best_file(spec: SweepSpec) -> Path:
    return own_config_dir() / "experiment" / f"{spec.best_name}.yaml"


def _signature(spec: SweepSpec) -> str:
    return f"# Written by the sweep {spec.name!r}, which overwrites it."


def _put(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value
