"""Rules pinned: a game is a goal, the first of the list are held out; settings that decide a stage's files are told apart; demonstrations,
prompts and limits work as ALFWorld's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hiper.config import DemosConfig, EnvConfig, ProtocolConfig, RunConfig, Source, Style, TasksConfig
from hiper.errors import DataError
from hiper.protocol import parse
from hiper.runs.fingerprint import stage_settings
from hiper.runs.stage import STAGES
from hiper.sft.demos import write_demos
from hiper.suites import make_env, suite_of
from hiper.suites.tasks import TaskIndex
from hiper.suites.webshop.nouns import find_tagger
from hiper.suites.webshop.settings import WebShopConfig


@pytest.fixture
def cfg() -> RunConfig:
    """A small generated shop."""
    return RunConfig(
        env=EnvConfig(name="webshop", max_turns=15),
        suite=WebShopConfig(products=48, test=100, valid=20),
        protocol=ProtocolConfig(style=Style.instructed),
        demos=DemosConfig(count=12),
    )


@pytest.fixture
def index(cfg: RunConfig, tmp_path: Path) -> TaskIndex:
    suite = suite_of(cfg)
    return suite.index(suite.data(tmp_path / "data", cfg), cfg)


def test_the_first_goals_are_held_out(cfg: RunConfig, index: TaskIndex, tmp_path: Path) -> None:
    assert [entry.path for entry in index.split("test")] == [f"synthetic/233/{number:07d}" for number in range(100)]
    assert [entry.path for entry in index.split("valid")] == [f"synthetic/233/{number:07d}" for number in range(100, 120)]
    assert index.split("train")[0].path == "synthetic/233/0000120"
    assert len(index.split("train")) > 100
    index.save(tmp_path / "index.json")
    assert TaskIndex.load(tmp_path / "index.json").entries == index.entries
    entry = index.split("train")[3]
    env = make_env(cfg, index.resolve(entry))
    assert env.task in env.reset()
    limited = suite_of(cfg).index(index.root, replace(cfg, tasks=TasksConfig(limit=10)))
    assert (len(limited.split("train")), len(limited.split("test"))) == (10, 10)
    assert [entry.path for entry in limited.split("test")][1] == "synthetic/233/0000010"


def test_what_is_no_game_is_refused(cfg: RunConfig, index: TaskIndex) -> None:
    suite = suite_of(cfg)
    with pytest.raises(DataError, match="webshop.test=100000 and webshop.valid=100 leave none of the"):
        suite.index(index.root, replace(cfg, suite=WebShopConfig(test=100_000)))
    with pytest.raises(DataError, match="no split valid_seen; it has train, valid, test"):
        suite.index(index.root, cfg, ["valid_seen"])
    for path in ("synthetic/233/last", "odd/233/0000001", "1"):
        with pytest.raises(DataError, match="names no goal"):
            make_env(cfg, index.root / path)
    with pytest.raises(DataError, match="not in this shop"):
        make_env(cfg, index.root / "synthetic/233/9999999")


def test_official_data_is_named_or_asked_for(cfg: RunConfig, index: TaskIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    official = replace(cfg, tasks=TasksConfig(source=Source.official))
    with pytest.raises(DataError, match=r"needs tasks\.data or \$WEBSHOP_DATA"):
        suite_of(official).data(tmp_path, official)
    monkeypatch.setenv("WEBSHOP_DATA", str(index.root))
    assert suite_of(official).data(tmp_path, official) == index.root
    assert suite_of(official).source(official)["data"] == str(index.root)


def test_settings_belong_to_their_stages(cfg: RunConfig) -> None:
    found = {stage: {key for key in stage_settings(cfg, stage) if key.startswith("webshop.")} for stage in STAGES}
    assert "webshop.products" in found["tasks"]
    assert "webshop.pay" in found["train"]
    assert "webshop.pay" not in found["tasks"] | found["demos"] | found["evaluate"]
    assert found["sft"] == found["report"] == set()
    assert set.union(*found.values()) == {f"webshop.{name}" for name in vars(cfg.suite)}, "every setting decides something"


def test_an_evaluation_says_who_told_the_nouns(cfg: RunConfig) -> None:
    assert suite_of(cfg).judged_by(cfg) == {"type_matching": find_tagger().name, "labels": "false"}
    assert suite_of(RunConfig()).judged_by(RunConfig()) == {"engine": "native"}


def test_demonstrations(cfg: RunConfig, index: TaskIndex, tmp_path: Path) -> None:
    summary = write_demos(index, cfg, tmp_path / "demos.jsonl")
    assert (summary.demonstrations, summary.won) == (12, 1.0)
    lines = [json.loads(line) for line in (tmp_path / "demos.jsonl").read_text().splitlines()]
    training = {entry.path for entry in index.split("train")}
    for line in lines:
        assert line["task_id"] in training
        assert line["messages"][0]["content"].startswith("You shop in an online store")
        env = make_env(cfg, index.resolve(next(entry for entry in index.entries if entry.path == line["task_id"])))
        env.reset()
        for message, admissible in zip(line["messages"][1::2], line["admissible"], strict=True):
            reply = parse(message["content"])
            assert reply.valid
            assert admissible == env.admissible_commands
            assert reply.action in env.admissible_commands
            env.step(reply.action)
        assert env.won
    lapses = replace(cfg, demos=DemosConfig(count=12, lapses=1.0))
    assert write_demos(index, lapses, tmp_path / "lapses.jsonl").won == 0.0
