"""Rules of a comparison.

1. A file that is no study, or an arm whose settings do not compose, is refused before anything runs.
2. All cells go on from the base's warm start, differ from it in what their arm says, and come seed by seed. With `own_start` each does all
   stages itself, with its own seed. A cell's process is given its directory, with the composed config in it.
3. The page's figures are those of the cells' evaluations: rates, intervals, turns to a threshold, task types; what is missing is named.
4. The interval covers the mean, is the wider the more seeds differ, and is the same each time.
5. (slow) A real study of two arms runs in processes of their own; one that fails is named, the others finish; given again, it does only
   what is not done.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import hiper
from hiper.cli.main import main
from hiper.config import RunConfig
from hiper.errors import ConfigError, WorkflowError
from hiper.evaluation import read_evaluation, write_evaluation
from hiper.experiments.comparison import Comparison, load_comparison, run_comparison, write_results
from hiper.experiments.comparison.results import Outcome, bootstrap
from hiper.rollout.trajectory import StopReason, Trajectory, Turn
from hiper.runs.run_dir import git_state, load_config, save_config
from hiper.runs.stage_folder import Begun, stage_folder
from hiper.runtime.reading import read_json_object
from hiper.suites.alfworld.settings import TASK_TYPES
from hiper.suites.registry import suite_named
from hiper.tracking import MetricsFile

STUDY = "name: small\nbase: [experiment=smoke]\narms:\n  hae: []\n  grpo: [algo=grpo, algo.group_size=4]\nseeds: [0, 1]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is not YAML"),
        ("name: x\nbase: []\n", "it needs name, base and arms"),
        (STUDY + "more: 1\n", "it needs name, base and arms"),
        (STUDY.replace("small", "a/b"), "'a/b' cannot name a folder"),
        (STUDY.replace("[experiment=smoke]", "experiment=smoke"), "base must be a list of overrides"),
        (STUDY.replace("hae: []", "../hae: []"), "cannot name a folder"),
        (STUDY.replace("[0, 1]", "[-1]"), "seeds must be whole numbers"),
        (STUDY.replace("[0, 1]", "[a]"), "seeds must be whole numbers"),
        (STUDY + "own_start: 1\n", "own_start must be true or false"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_comparison(tmp_path / "study.yaml")


def test_an_arm_that_does_not_compose_is_named_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    comparison = Comparison("small", ("experiment=smoke",), {"hae": (), "odd": ("algo.gama=1",)})
    with pytest.raises(ConfigError, match="arm 'odd' of comparison 'small': .*did you mean 'algo.gamma'"):
        run_comparison(comparison, 1)
    assert not list(tmp_path.iterdir())


def test_the_projects_own_studies_compose(root: Path) -> None:
    for path in ("estimators.yaml", "hierarchy.yaml", "levels.yaml", "official.yaml", "smoke.yaml"):
        comparison = load_comparison(root / "comparisons" / path)
        assert len(comparison.cells()) == len(comparison.arms) * len(comparison.seeds)


def test_cells_share_a_warm_start_and_differ_in_their_arm(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    comparison = load_comparison(tmp_path / "study.yaml", ["seed=5", "trainer.iterations=3"])
    cells = comparison.cells()
    assert [(cell.arm, cell.seed) for cell in cells] == [("hae", 0), ("grpo", 0), ("hae", 1), ("grpo", 1)]
    assert {cell.cfg.paths.base for cell in cells} == {comparison.base_cfg.paths.run}
    assert {cell.cfg.sft_seed for cell in cells} == {comparison.base_cfg.sft_seed} == {5}
    assert [(cell.cfg.algo.name, cell.cfg.algo.group_size, cell.cfg.trainer.iterations) for cell in cells[:2]] == [
        ("hae", 1, 3),
        ("grpo", 4, 3),
    ]
    assert len({cell.cfg.paths.run for cell in cells}) == 4


def test_a_cells_process_finds_what_was_composed_in_its_directory(root: Path, tmp_path: Path) -> None:
    for path in sorted((root / "comparisons").glob("*.yaml")):
        comparison = load_comparison(path)
        for cfg in (comparison.base_cfg, *(cell.cfg for cell in comparison.cells()[: len(comparison.arms)])):
            save_config(cfg, tmp_path / "config.yaml")
            assert load_config(tmp_path) == cfg


def test_with_its_own_start_a_cell_shares_nothing(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY + "own_start: true\n")
    cells = load_comparison(tmp_path / "study.yaml").cells()
    assert {cell.cfg.paths.base for cell in cells} == {None}
    assert [(cell.cfg.seed, cell.cfg.sft_seed) for cell in cells] == [(0, 0), (0, 0), (1, 1), (1, 1)]
    assert all(cell.cfg.evaluate.baseline for cell in cells)


def played(number: int, won: bool) -> Trajectory:
    turn = Turn("", "", True, "", "look", [], True, float(won), float(won), 3)
    kind = TASK_TYPES[number % 2]
    return Trajectory(f"{kind}/{number}", "valid_seen", kind, "task", won, StopReason.terminated, [turn], "")


def finish(cfg: RunConfig, rate: float, curve: list[tuple[int, float]], start: float | None = None) -> None:
    """Leave behind what a cell leaves: 20 tasks won at the rate, by its own warm start at the rate `start`."""
    run = Path(cfg.paths.run)
    with stage_folder(run, "train", Begun("f", "f")) as folder:
        file = MetricsFile(folder.path / "metrics.jsonl")
        for iteration, (turns, success) in enumerate(curve, 1):
            file.append(iteration, {"env/turns": turns, "eval/success_rate": success, "switch/rate": 0.25, "switch/segment_length": 3.5})
        file.close()
    with stage_folder(run, "evaluate", Begun("f", "f")) as folder:
        write_evaluation(folder.path, "trained", [played(n, n < 20 * rate) for n in range(20)], {}, suite_named("alfworld"))
        if start is not None:
            write_evaluation(folder.path, "sft", [played(n, n < 20 * start) for n in range(20)], {}, suite_named("alfworld"))


def test_the_page_says_what_the_evaluations_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    comparison = Comparison("small", ("experiment=smoke", "trainer.eval_tasks=20"), {"hae": (), "grpo": ("algo=grpo", "algo.group_size=4")})
    write_evaluation(
        Path(comparison.base_cfg.paths.run) / "evaluate", "sft", [played(n, n < 8) for n in range(20)], {}, suite_named("alfworld")
    )
    rates = {"hae": (0.9, 1.0, 0.95), "grpo": (0.5, 0.6)}
    for cell in comparison.cells():
        if cell.seed < len(rates[cell.arm]):
            rate = rates[cell.arm][cell.seed]
            finish(cell.cfg, rate, [(1000 * (cell.seed + 1), 0.75), (5000, rate)])
    text = write_results(comparison, Path("out/results.md"), "valid_seen").read_text()
    assert "wins 40.0 % of them" in text
    assert re.search(r"\| `hae` \| 40.0 % \| 95.0 % \(.*\) \| 90.0, 100.0, 95.0 \| 5,000 \| 0.25, 0.25, 0.25 \| 3.5, 3.5, 3.5 \|", text)
    assert re.search(r"\| `grpo` \| 40.0 % \| 55.0 % \(.*\) \| 50.0, 60.0 \| 5,000 \|", text)
    # 70 % is first reached at 1,000, 2,000 and 3,000 turns; 50 % at the same: the warm start has 40 %. 90 % at the end, or never.
    assert "| `hae` | 2,000 (3 of 3) | 2,000 (3 of 3) | 5,000 (3 of 3) | 5,000 (3 of 3) |" in text
    assert "| `grpo` | 1,500 (2 of 2) | 1,500 (2 of 2) | none of 2 | none of 2 |" in text
    # Games 18 and 19 are lost by seed 0, 19 by seed 2; even ones are of the first type: 29 of 30 and 28 of 30.
    assert "| `hae` | 96.7 % (29 of 30) | 93.3 % (28 of 30) |" in text
    assert "Not finished: grpo seed 2." in text
    assert {path.name for path in Path("out/results").iterdir()} == {"hae.svg", "grpo.svg"}


def test_the_page_shows_what_each_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    comparison = Comparison("small", ("experiment=smoke", "trainer.eval_tasks=20"), {"hae": ()}, own_start=True)
    assert "no tasks" in write_results(comparison, Path("early.md"), "valid_seen").read_text()
    for cell, start, rate in zip(comparison.cells(), (0.5, 0.6, 0.7), (0.9, 1.0, 0.95), strict=True):
        finish(cell.cfg, rate, [(5000, rate)], start)
    text = write_results(comparison, Path("results.md"), "valid_seen").read_text()
    assert "Every run has a warm start of its own; seeds 0, 1, 2." in text
    assert re.search(r"\| `hae` \| 60.0 % \| 95.0 % \(.*\) \| 90.0, 100.0, 95.0 \|", text)
    # Each warm start has 50 %, one has 70 % too.
    assert re.search(r"\| `hae` \| 0 \(3 of 3\) \| 3,333 \(3 of 3\) \| 5,000", text)


def test_turns_to_a_threshold_count_the_first_reach() -> None:
    cell = Comparison("small", ("experiment=smoke",), {"hae": ()}, seeds=(0,)).cells()[0]
    outcome = Outcome(cell, {}, [(0, 0.4), (100, 0.7), (200, 0.6), (300, 0.9)], [True], {}, 300, 0.2, 3.0, 1.0, None)
    assert [outcome.turns_to(threshold) for threshold in (0.4, 0.5, 0.7, 0.8, 0.95)] == [0, 100, 100, 300, None]


def test_the_interval_covers_the_mean_and_widens_with_the_seeds_spread() -> None:
    like, unlike = ([[True] * won + [False] * (100 - won) for won in counts] for counts in ((79, 80, 81), (60, 80, 100)))
    for outcomes in (like, unlike):
        low, high = bootstrap(outcomes)
        assert low < 0.8 < high
        assert (low, high) == bootstrap(outcomes)
    assert bootstrap(unlike)[1] - bootstrap(unlike)[0] > 1.5 * (bootstrap(like)[1] - bootstrap(like)[0])
    # One seed alone: 80 of 100, deviation 4 points, so 1.96 of them either way.
    assert bootstrap([[True] * 80 + [False] * 20]) == pytest.approx((0.72, 0.88), abs=0.011)


@pytest.mark.slow
def test_a_study_runs_names_what_fails_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "study.yaml").write_text(
        STUDY.replace("[0, 1]", "[0]").replace("[experiment=smoke]", "[experiment=smoke, trainer.eval_tasks=6]")
    )
    comparison = load_comparison(Path("study.yaml"))
    blocked = Path("runs/small/grpo/seed-0")
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a run is to be")
    with pytest.raises(WorkflowError, match="1 of 2 cells failed(.|\n)*grpo, seed 0(.|\n)*is a file; it must name a directory"):
        run_comparison(comparison, 2)
    first = (Path("runs/small/hae/seed-0/train/stage.json")).read_bytes()
    assert read_json_object(Path("runs/small/hae/seed-0/environment.json"))["command"][1:] == [
        "resume",
        "--direct",
        "runs/small/hae/seed-0",
    ]
    blocked.unlink()
    assert main(["compare", "study.yaml", "--jobs", "2", "--out", "results.md"]) == 0
    assert Path("runs/small/hae/seed-0/train/stage.json").read_bytes() == first, "what was done is not done again"
    text = Path("results.md").read_text()
    assert "Not finished" not in text
    for arm in ("hae", "grpo"):
        rate = read_evaluation(Path(f"runs/small/{arm}/seed-0/evaluate/trained"))["splits"]["valid_seen"]["success_rate"]
        assert re.search(rf"\| `{arm}` \| \d+\.\d % \| {100 * rate:.1f} % \(", text)
    state = git_state(Path(hiper.__file__).resolve().parent.parent)
    assert f"`hiper compare study.yaml` at commit {str(state['commit'])[:12] if state else 'unknown'}" in text
    shutil.rmtree("runs/small/base/sft")
    assert main(["train", "experiment=smoke", "paths.run=runs/small/hae/seed-1", "paths.base=runs/small/base", "seed=1"]) == 2
    assert "paths.base says to go on from there" in capsys.readouterr().err
