"""Putting the page together."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hiper import __version__
from hiper.errors import DataError
from hiper.evaluation.history import history
from hiper.report.charts import PALETTE, STYLE, interval_chart, percent, plain, standalone
from hiper.report.curves import draw_curves, evaluations
from hiper.report.episode import show_episode
from hiper.report.read import STARTED, RunRecord, read_run
from hiper.report.tables import tables
from hiper.runtime.files import write_text
from hiper.runtime.text import visible
from hiper.suites import splits_of, suite_of
from hiper.suites.suite import Wording

MEAN_OF = 5
"""Evaluations in the mean of the last few."""

_SAME = ("temperature", "seed", "constrain", "engine", "max_turns", "max_tokens", "context", "dialect", "style")
"""What two evaluations must share to be compared, besides their tasks."""


def write_report(run: Path, out: Path, *, timestamps: bool = True) -> Path:
    """Write one self-contained page about a run, and its curves beside it, as SVG files in `curves/` and as CSV tables.

    The page asks for nothing outside itself and runs no script. What the run lacks is named on the page.

    Args:
        run: the run's directory.
        out: the page, an HTML file; its directory is created when missing.
        timestamps: say when, how long and on what machine; without, the page is the same for the same results.

    Returns:
        `out`.

    Raises:
        DataError: `run` is no directory, or the disk refused the page.
    """
    if not run.is_dir():
        raise DataError(f"{run} is not a run's directory. Name the one that `hiper run` printed, such as runs/quickstart/seed-0.")
    record = read_run(run)
    if not timestamps:
        record = replace(record, environment={}, seconds={}, timings=[])
    curves = draw_curves(record)
    page = render(record, curves)
    try:
        folder = out.parent / "curves"
        folder.mkdir(parents=True, exist_ok=True)
        for name, chart in curves.items():
            write_text(folder / f"{name}.svg", standalone(chart))
        for name, table in tables(record).items():
            write_text(out.parent / f"{name}.csv", table)
        write_text(out, page)
    except OSError as error:
        raise DataError(f"The report could not be written to {out}: {error.strerror}.") from error
    return out


def render(record: RunRecord, curves: Mapping[str, Markup]) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("hiper.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(pct=_or_dash(percent), num=_or_dash(plain), signed=_signed, duration=_duration, words=_words)
    template = environment.get_template("report.html.j2")
    wording = suite_of(record.config).wording if record.config is not None else Wording()
    return template.render(
        version=__version__,
        palette=Markup(PALETTE),
        chart_style=Markup(STYLE),
        run=record,
        wording=wording,
        start=STARTED[record.start],
        watched=splits_of(record.config)[0] if record.config is not None else None,
        name=record.config.name if record.config is not None else visible(record.path.name),
        facts=_facts(record),
        command=_command(record),
        made_with=_made_with(record),
        headlines=_headlines(record),
        conditions=_conditions(record, wording),
        notes=_notes(record, wording),
        curves=curves,
        history=history(evaluations(record.metrics), MEAN_OF),
        tables=_tables(record),
        behaviour=_behaviour(record),
        episodes=[show_episode(sample, number) for number, sample in enumerate(record.samples, 1)],
    )


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    """(what, value) pairs below the title."""
    here = record.environment
    facts: list[tuple[str, str]] = []
    git = here.get("git")
    if isinstance(git, dict) and git.get("commit"):
        facts.append(("Commit", str(git["commit"])[:12] + (" + uncommitted changes" if git.get("dirty") else "")))
    if record.metrics:
        last = record.metrics[-1]
        facts.append(("Iterations", plain(last["iteration"])))
        if isinstance(last.get("env/turns"), (int, float)):
            facts.append(("Turns played in training", plain(last["env/turns"])))
    if record.seconds:
        facts.append(("Time", _duration(sum(record.seconds.values()))))
        facts.append(("By stage", ", ".join(f"{_words(stage)} {_duration(seconds)}" for stage, seconds in record.seconds.items())))
    if here.get("time"):
        facts.append(("Date", str(here["time"]).replace("T", " ")[:16] + " UTC"))
    return facts


def _command(record: RunRecord) -> str | None:
    """The command line, the program by its name alone: where it is installed says nothing about the run."""
    words = record.environment.get("command")
    if not isinstance(words, list) or not words:
        return None
    program, *rest = map(str, words)
    return shlex.join([PurePath(program).name, *rest])


def _made_with(record: RunRecord) -> list[str]:
    """Versions and machine."""
    here = record.environment
    versions = here.get("versions")
    parts = [f"{package} {number or 'not installed'}" for package, number in versions.items()] if isinstance(versions, dict) else []
    if here.get("python"):
        parts.append(f"Python {here['python']}")
    if here.get("platform"):
        parts.append(str(here["platform"]))
    if here.get("cores"):
        parts.append(f"{here['cores']} cores")
    return parts


def _headlines(record: RunRecord) -> list[dict[str, Any]]:
    """Success by split: after training, before it, and the difference in points."""
    after, before = record.trained, record.before
    splits = list(dict.fromkeys([*_splits(after), *_splits(before)]))
    headlines = []
    for split in splits:
        trained, warm = _splits(after).get(split), _splits(before).get(split)
        rows = [
            (label, colour, found["success_rate"], found["wilson_low"], found["wilson_high"])
            for label, colour, found in (("after training", "low", trained), (STARTED[record.start], "muted", warm))
            if found is not None
        ]
        gain = 100 * (trained["success_rate"] - warm["success_rate"]) if trained is not None and warm is not None else None
        headlines.append({"split": split, "trained": trained, "warm": warm, "gain": gain, "chart": interval_chart(rows)})
    return headlines


def _conditions(record: RunRecord, wording: Wording) -> str | None:
    """How the evaluations were played, in a sentence."""
    found = record.trained or record.before
    if found is None:
        return None
    meta = found["meta"]
    temperature = meta.get("temperature")
    manner = "greedy" if temperature == 0 else f"sampled at temperature {temperature}, seed {meta.get('seed')}"
    actions = {
        "admissible": "action tokens limited to admissible commands",
        "grammar": "replies limited to the protocol's grammar and to admissible commands",
    }.get(str(meta.get("constrain")), "nothing limits the action tokens")
    limit = meta.get("limit")
    engine = f"{meta['engine']} engine; " if "engine" in meta else ""
    tasks = "Full splits" if limit is None else f"At most {limit} {wording.tasks} a split"
    return (
        f"{tasks}, {meta.get('source')} {wording.tasks}; {manner}; rollout.constrain={meta.get('constrain')} ({actions}); "
        f"{engine}at most {meta.get('max_turns')} turns."
    )


def _alarm_note(name: str, events: list[dict[str, Any]]) -> str:
    actions = Counter(str(event.get("action")) for event in events)
    did = ", ".join(f"{action} {count}x" for action, count in actions.items())
    first, last = events[0], events[-1]
    return (
        f"The alarm {name} went off during training ({did}): in iteration {first.get('iteration')} first, {last.get('iteration')} last, "
        f"where {last.get('metric')} was {last.get('value')}, outside {last.get('limits')}."
    )


def _notes(record: RunRecord, wording: Wording) -> list[str]:
    """What a reader must know before believing the numbers."""
    notes = list(record.missing)
    after, before = record.trained, record.before
    if after is not None and before is not None:
        differ = [key for key in _SAME if after["meta"].get(key) != before["meta"].get(key)]
        if differ:
            notes.append(f"The two evaluations were played differently ({', '.join(differ)}): their difference is not what training added.")
        if _tasks(after) != _tasks(before):
            notes.append(f"The two evaluations were played on different {wording.tasks}.")
    if record.config is not None and record.start == "sft" and record.config.demos.lapses > 0:
        notes.append(
            f"The warm start was made weaker on purpose: {percent(record.config.demos.lapses)} of its demonstrations leave out "
            f"{wording.lapses} (demos.lapses)."
        )

    for split, played in ((after or before or {}).get("meta", {}).get("splits") or {}).items():
        if played.get("in_train"):
            notes.append(
                f"{played['in_train']} of the {played['tasks']} {wording.tasks} of {_words(split)} are in train, too, with the same "
                "content: success on them says little of new ones."
            )

    def name_of(event: dict[str, Any]) -> str:
        return str(event.get("name"))

    for name, events in groupby(sorted(record.alarms, key=name_of), key=name_of):
        notes.append(_alarm_note(name, list(events)))
    if after is not None and after["meta"].get("limit") is not None:
        notes.append(f"The evaluation was limited to {after['meta']['limit']} {wording.tasks} a split; it does not cover the full splits.")
    return notes


def _tables(record: RunRecord) -> list[dict[str, Any]]:
    """Success by task type, one table a split."""
    tables = []
    after, before = _splits(record.trained), _splits(record.before)
    for split in dict.fromkeys([*after, *before]):
        trained, warm = after.get(split), before.get(split)
        types = dict.fromkeys([*(trained or {}).get("task_types", {}), *(warm or {}).get("task_types", {})])
        rows = [
            {
                "label": _words(name),
                "trained": (trained or {}).get("task_types", {}).get(name),
                "warm": (warm or {}).get("task_types", {}).get(name),
            }
            for name in types
        ]
        tables.append({"split": split, "rows": rows, "trained": trained, "warm": warm})
    return tables


def _behaviour(record: RunRecord) -> dict[str, Any] | None:
    """How the agents played: one column for each model and split."""
    pairs = ((STARTED[record.start], _splits(record.before)), ("after training", _splits(record.trained)))
    splits = dict.fromkeys(split for _, found in pairs for split in found)
    columns = [(f"{_words(split)}, {label}", found[split]) for split in splits for label, found in pairs if split in found]
    if not columns:
        return None
    scored = any(found.get("score_mean") != found["success_rate"] for _, found in columns)
    rows = (
        *([("Score, mean", "score_mean", plain)] if scored else []),
        ("Turns an episode, mean", "turns_mean", plain),
        ("Turns an episode, median", "turns_median", plain),
        ("Turns of won episodes, mean", "turns_won_mean", plain),
        ("Truncated episodes", "truncated", plain),
        ("Valid replies", "valid_rate", percent),
        ("Inadmissible turns", "inadmissible_rate", percent),
        ("Switch rate (first turns left out)", "switch_rate", percent),
        ("Segments an episode", "segments_mean", plain),
        ("Turns a segment", "segment_turns_mean", plain),
        ("Tokens a reply", "reply_tokens_mean", plain),
    )
    return {
        "columns": [label for label, _ in columns],
        "rows": [(label, [_or_dash(show)(found.get(key)) for _, found in columns]) for label, key, show in rows],
    }


def _splits(evaluation: Mapping[str, Any] | None) -> dict[str, Any]:
    return evaluation["splits"] if evaluation is not None else {}


def _tasks(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    splits = evaluation["meta"].get("splits") or {}
    return {split: found.get("sha256") for split, found in splits.items()}


def _or_dash(show: Any) -> Any:
    def shown(value: float | None) -> str:
        return "\u2013" if value is None else str(show(value))

    return shown


def _signed(value: float | None, digits: int = 2) -> str:
    if value is None:
        return "\u2013"
    text = f"{value:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text.replace("-", "\u2212")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.{int(seconds < 10)}f}\u202fs"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest}\u202fs"
    return f"{minutes // 60}\u202fh {minutes % 60}\u202fmin"


def _words(name: str) -> str:
    return name.replace("_", " ")
