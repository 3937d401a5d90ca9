"""Rules of the report.

1. One page that asks for nothing outside itself, runs nothing, and gives the same bytes for the same run.
2. The numbers on it are those of the run's files, warm start and trained told apart, last, mean and best told apart.
3. Words of the model and of the games cannot act on the page, nor hide on it.
4. Whatever is missing or damaged is named on the page; the rest is shown.
5. The episodes shown are chosen by rule.
"""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hiper.composition.compose import compose
from hiper.errors import DataError
from hiper.evaluation import read_evaluation
from hiper.report import write_report
from hiper.report.episode import show_episode
from hiper.report.read import Sample, pick
from hiper.rollout.trajectory import Trajectory, read_trajectories
from hiper.runs.run_dir import load_config, save_config
from hiper.runtime.text import visible

HOSTILE = "</pre></style><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} \u202egnp.\u202c \x1b[31m\x00 \u200b \ud800 end"
VOID = {"meta"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data + " "


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(finished_run, tmp_path / "quickstart" / "seed-1"))


def page_of(run: Path) -> str:
    return write_report(run, run / "report" / "report.html").read_text(encoding="utf-8")


def test_nothing_outside_is_asked_for_and_nothing_runs(finished_run: Path, tmp_path: Path) -> None:
    text = write_report(finished_run, tmp_path / "deep" / "report.html").read_text()
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action", "data")]
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in text and "@import" not in text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("http-equiv", "")
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert len(text) < 1_000_000


def test_links_lead_to_segments_on_the_page(finished_run: Path, tmp_path: Path) -> None:
    page = Page(write_report(finished_run, tmp_path / "report.html").read_text())
    anchors = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [(attributes["href"] or "")[1:] for _, attributes in page.tags if "href" in attributes]
    assert len(links) >= 9 and set(links) == set(anchors) and len(anchors) == len(set(anchors))


def test_the_same_run_gives_the_same_bytes(finished_run: Path, tmp_path: Path) -> None:
    one, other = write_report(finished_run, tmp_path / "a" / "r.html"), write_report(finished_run, tmp_path / "b" / "r.html")
    assert one.read_bytes() == other.read_bytes()
    curves = sorted((tmp_path / "a" / "curves").iterdir())
    assert len(curves) == 12 and all(path.suffix == ".svg" for path in curves)


def test_numbers_are_those_of_the_files(finished_run: Path, tmp_path: Path) -> None:
    text = " ".join(Page(write_report(finished_run, tmp_path / "report.html").read_text()).text.split())
    for name, label in (("trained", "After training"), ("sft", "Warm start")):
        for found in read_evaluation(finished_run / "evaluate" / name)["splits"].values():
            assert f"{label}: {found['successes']} of 120 games won" in text
    trained, warm = (read_evaluation(finished_run / "evaluate" / name)["splits"]["valid_unseen"] for name in ("trained", "sft"))
    gain = 100 * (trained["success_rate"] - warm["success_rate"])
    assert f"{gain:+.1f} points over the warm start" in text
    assert "rollout.constrain=admissible" in text and "greedy" in text and "Full splits" in text
    assert "hiper run experiment=quickstart seed=1" in text
    assert "Before reading on" not in text
    assert "pick heat then place in recep" in text and "mean of task types" in text

    records = [json.loads(line) for line in (finished_run / "train" / "metrics.jsonl").read_text().splitlines()]
    series = [(record["iteration"], record["eval/success_rate"]) for record in records if "eval/success_rate" in record]
    best = max(value for _, value in series)
    where = next(iteration for iteration, value in series if value == best)
    shown = [f"{100 * value:.1f}".removesuffix(".0") for value in (series[-1][1], sum(value for _, value in series[-5:]) / 5, best)]
    last, mean, top = shown
    assert f"Last Mean of the last 5 Best {last} % iteration {series[-1][0]} {mean} % {top} % iteration {where} " in text


def test_hostile_words_are_shown_and_do_nothing(run: Path) -> None:
    path = run / "train" / "samples.jsonl"
    samples = list(read_trajectories(path))
    for sample in samples:
        sample.task = sample.task_id = sample.task_type = sample.split = sample.final_observation = HOSTILE
        for turn in sample.turns:
            turn.observation = turn.reply = turn.subgoal = turn.action = HOSTILE
            turn.faults = [HOSTILE]
    # JSON can carry lone surrogates that UTF-8 cannot.
    path.write_text("".join(json.dumps(json.loads(sample.to_json())) + "\n" for sample in samples))
    clean = Page(write_report(run, run / "report" / "clean.html").read_text(encoding="utf-8"))
    assert not {tag for tag, _ in clean.tags} & {"script", "img"}
    assert "<script>alert(1)</script>" in clean.text and "{{ 7*7 }}" in clean.text
    assert (
        "\u2039U+202E\u203agnp." in clean.text
        and "\u2039U+D800\u203a" in clean.text
        and "\u2039U+001B\u203a[31m\u2039U+0000\u203a" in clean.text
    )
    raw = (run / "report" / "clean.html").read_text(encoding="utf-8")
    assert not set(raw) & {"\u202e", "\u202c", "\x1b", "\x00", "\u200b"}


def test_hostile_settings_do_nothing_either(run: Path) -> None:
    for file in (run / "environment.json", run / "evaluate" / "trained" / "evaluation.json"):
        text = file.read_text().replace('"native"', json.dumps(HOSTILE)).replace('"experiment=quickstart"', json.dumps(HOSTILE))
        file.write_text(text.replace('"pick_two_obj_and_place"', json.dumps(HOSTILE)))
    page = Page(page_of(run))
    assert page.text.count("<script>alert(1)</script>") >= 3 and "script" not in {tag for tag, _ in page.tags}


def test_visible_leaves_ordinary_text_alone() -> None:
    for text in ("put a mug in the sink.", "zwei Zeilen\nund\tTab", "日本語, ελληνικά, 🙂"):
        assert visible(text) == text


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.yaml", "Configuration: "),
        ("environment.json", "Versions and git state: "),
        ("train/metrics.jsonl", "Training curves: There are no metrics at"),
        ("train/timings.jsonl", "Timings: There are no metrics at"),
        ("evaluate/sft/evaluation.json", "Evaluation of the warm start: There is no evaluation at"),
        ("evaluate/trained/evaluation.json", "Evaluation after training: There is no evaluation at"),
    ],
)
@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_what_is_missing_is_named_and_the_rest_is_shown(run: Path, file: str, said: str, damage: str) -> None:
    (run / file).unlink()
    if damage == "damaged":
        (run / file).write_text("{]\n")
        said = said.partition(": ")[0] + ": "
    page = Page(page_of(run))
    assert "Before reading on" in page.text and said in page.text
    assert "Episodes and their credit" in page.text and "put a hot mug in coffeemachine." in page.text


def test_an_empty_run_is_a_page_that_says_so(tmp_path: Path) -> None:
    text = Page(page_of(tmp_path)).text
    for sentence in ("No evaluation in this run.", "No curves in this run.", "No trajectories in this run.", "Sample trajectories: "):
        assert sentence in text


def test_a_run_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run's directory"):
        write_report(tmp_path / "absent", tmp_path / "report.html")


def test_a_run_still_training_is_shown_up_to_now(run: Path) -> None:
    (run / "train").rename(run / "train.partial")
    samples = run / "train.partial" / "samples.jsonl"
    samples.write_bytes(samples.read_bytes()[:-40])  # being written
    text = Page(page_of(run)).text
    assert "Training has not finished" in text and "iteration 60" in text and "Sample trajectories:" not in text


def test_without_training_samples_the_evaluation_lends_its_own(run: Path) -> None:
    (run / "train" / "samples.jsonl").unlink()
    text = Page(page_of(run)).text
    assert "from evaluate/trained/trajectories.jsonl" in text and "carries no advantages" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda meta: meta.update(temperature=0.4), r"played differently (temperature)"),
        (lambda meta: meta["splits"]["valid_seen"].update(sha256="1"), "on different games"),
        (lambda meta: meta.update(limit=10), "limited to 10 games a split"),
    ],
)
def test_numbers_that_do_not_compare_are_said_not_to(run: Path, change: Callable[[dict[str, object]], None], said: str) -> None:
    file = run / "evaluate" / "trained" / "evaluation.json"
    record = json.loads(file.read_text())
    change(record["meta"])
    file.write_text(json.dumps(record))
    assert said in Page(page_of(run)).text


def test_a_warm_start_made_weaker_is_said(run: Path) -> None:
    assert "made weaker on purpose" not in Page(page_of(run)).text
    config = load_config(run)
    config.demos.lapses = 0.8
    save_config(config, run / "config.yaml")
    assert "80\u202f% of its demonstrations leave out the use of appliances and lamps" in Page(page_of(run)).text


def test_a_disk_that_refuses_is_a_clear_error_and_the_earlier_page_stays(run: Path) -> None:
    before = page_of(run)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"report could not be written to .*File too large"):
            page_of(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (run / "report" / "report.html").read_text(encoding="utf-8") == before


Sampler = Callable[..., Trajectory]


@pytest.fixture
def sample(make_episode: Callable[..., Trajectory]) -> Sampler:
    """Makes an episode whose first turns each start a segment."""

    def make(number: int, iteration: int | None, won: bool, segments: int = 1) -> Trajectory:
        made = make_episode(random.Random(number), won, "train", "look_at_obj_in_light", number, iteration)
        for index, turn in enumerate(made.turns):
            turn.switch = index < segments
        return made

    return make


def test_episodes_are_picked_by_rule(sample: Sampler) -> None:
    record = [
        sample(0, 1, False),
        sample(1, 1, True),
        sample(2, 2, True),
        sample(3, 2, True, 2),
        sample(4, 2, True, 5),
        sample(5, 2, True, 5),
    ]
    picked = [(one.reason, one.trajectory.task_id[-14:-13], one.trajectory.iteration) for one in pick(record, "x")]
    # Lost: only iteration 1 has one. Most segments: the first of the two with five.
    assert picked == [("Won", "2", 2), ("Lost", "0", 1), ("Most segments", "4", 2)]
    assert [one.reason for one in pick([sample(0, None, True)], "x")] == ["Won"]
    assert pick([], "x") == []


def test_credit_is_arranged_by_segment(sample: Sampler) -> None:
    view = show_episode(Sample("Won", sample(1, 3, True, 2), "x"), 1)
    assert [(segment.first, segment.last) for segment in view.segments] == [(1, 1), (2, 8)]
    assert sum(segment.shaped for segment in view.segments) == pytest.approx(view.total)
    widths = [bar.width for segment in view.segments for turn in segment.turns for bar in turn.bars]
    assert max(widths) == 1.0 and min(widths) >= 0
    # The planner's bar stands at a segment's first turn only.
    levels = [[bar.level for bar in turn.bars] for segment in view.segments for turn in segment.turns]
    assert levels[:3] == [["switch", "high", "low"], ["switch", "high", "low"], ["switch", "low"]]


def test_alarms_are_among_the_notes(run: Path) -> None:
    event = {"name": "collapse", "metric": "switch/rate", "limits": "0.02 to 0.95", "iterations": 3, "action": "warn"}
    events = [event | {"iteration": 5, "value": 0.96}, event | {"iteration": 8, "value": 1.0}]
    (run / "train" / "alarms.json").write_text(json.dumps(events))
    said = "collapse went off during training (warn 2x): in iteration 5 first, 8 last, where switch/rate was 1.0, outside 0.02 to 0.95."
    assert said in Page(page_of(run)).text


@pytest.mark.parametrize("algo", ["grpo", "gae", "reinforce_pp"])
def test_the_page_of_another_estimator_does_not_say_hae(run: Path, algo: str) -> None:
    config = load_config(run)
    config.algo = compose([f"algo={algo}", "rollout.trajectories=8"]).algo
    save_config(config, run / "config.yaml")
    text = Page(page_of(run)).text
    assert "After training" in text
    assert not re.search(r"\bHAE\b|hierarchical advantage", text, re.IGNORECASE)


def test_the_page_of_a_shop_speaks_of_goals(run: Path) -> None:
    config = compose(["env=webshop", "demos.lapses=0.5", f"paths.run={run}"])
    save_config(config, run / "config.yaml")
    page = Page(page_of(run))
    text = page.text.split("Before reading on")[1].split("Episodes and their credit")[0]  # whose words are the environment's, a household
    assert "of 120 goals won" in text
    assert "50\u202f% of its demonstrations leave out the choice of options" in text
    assert not re.search(r"\bgames?\b|appliance|lamp", text)
