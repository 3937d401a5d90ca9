"""WebShop goes through the same six stages as ALFWorld: what each leaves is there, and score stands beside success."""

from __future__ import annotations

import json
from pathlib import Path

from hiper.composition.compose import compose
from hiper.evaluation import read_evaluation
from hiper.pipeline.stages import STAGES
from hiper.rollout.trajectory import read_trajectories
from hiper.runs.run_dir import begin_run

SETTINGS = [
    "experiment=webshop_smoke",
    "rollout=grammar",
    "protocol.dialect=full",
    "rollout.max_reply_tokens=80",
    "webshop.products=24",
    "webshop.test=6",
    "webshop.valid=4",
    "webshop.pay=score",
    "demos.count=8",
    "demos.lapses=0.5",
    "sft.max_steps=2",
    "rollout.trajectories=4",
    "trainer.iterations=1",
    "env.max_turns=5",
]


def test_six_stages(tmp_path: Path) -> None:
    cfg = compose([*SETTINGS, f"paths.run={tmp_path / 'run'}"])
    run = begin_run(cfg)
    for stage in STAGES.values():
        assert not stage(cfg).reused
    assert stage(cfg).reused
    index = json.loads((run / "tasks/index.json").read_text())
    assert {game["split"] for game in index["tasks"]} == {"train", "valid", "test"}
    found = read_evaluation(run / "evaluate/trained")
    assert {split: facts["tasks"] for split, facts in found["splits"].items()} == {"valid": 4, "test": 6}
    assert found["meta"]["suite"] == "webshop"
    assert found["meta"]["type_matching"]
    trajectories = list(read_trajectories(run / "evaluate/trained/trajectories.jsonl"))
    scores = [trajectory.score for trajectory in trajectories if trajectory.split == "test"]
    assert found["splits"]["test"]["score_mean"] == sum(score or 0.0 for score in scores) / 6
    assert all(trajectory.won == (trajectory.score == 1.0) for trajectory in trajectories)
    (metrics,) = [json.loads(line) for line in (run / "train/metrics.jsonl").read_text().splitlines()]
    assert 0.0 <= metrics["rollout/success_rate"] <= metrics["rollout/score"] <= 1.0
    assert metrics["rollout/inadmissible_rate"] == 0.0 or metrics["rollout/valid_rate"] < 1.0
    assert (run / "report/report.html").is_file()
