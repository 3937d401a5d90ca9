"""A comparison by DVC.

1. The stages written are the parts of the comparison: base, every arm with every seed, page; each takes what the others make.
2. What DVC could not follow is refused; so is a part the comparison does not have.
3. (slow) `dvc repro` does each part once; a changed setting does again what depends on it, training only where it must; a clone that pulls
   has nothing to do.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from hiper.cli.main import main
from hiper.experiments.comparison import load_comparison
from hiper.experiments.comparison.versioned import write_versioned
from hiper.runs.stage_folder import TIMES
from tests.checkout import commit, done, dvc, make_checkout, run

STUDY = """
name: small
base: [{base}]
arms:
  hae: []
  grpo: [algo=grpo, algo.group_size=2]
seeds: [0, 3]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a comparison alone, the working directory."""
    for name in (".dvc", "comparisons"):
        (tmp_path / name).mkdir()
    (tmp_path / "comparisons" / "small.yaml").write_text(STUDY.format(base="experiment=smoke"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stages_are_the_studys_parts(place: Path) -> None:
    file = Path("comparisons/small.yaml")
    written: Any = OmegaConf.to_container(OmegaConf.load(write_versioned(load_comparison(file), file, place)), resolve=False)
    stages = written["stages"]
    assert list(stages) == ["base", "cell", "results"]
    assert stages["cell"]["matrix"] == {"arm": ["hae", "grpo"], "seed": [0, 3]}
    assert {stage["wdir"] for stage in stages.values()} == {"../.."}
    base = [next(iter(out)) if isinstance(out, dict) else out for out in stages["base"]["outs"]]
    assert base == [f"runs/small/base/{stage}" for stage in ("tasks", "demos", "sft", "evaluate")]
    assert set(base) < set(stages["cell"]["deps"])
    assert stages["results"]["deps"][1:] == base + [
        f"runs/small/{arm}/seed-{seed}/{stage}" for arm in ("hae", "grpo") for seed in (0, 3) for stage in ("train", "evaluate")
    ]


def test_cells_with_a_start_of_their_own_have_no_base(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("comparisons/small.yaml")
    file.write_text(file.read_text(encoding="utf-8") + "own_start: true\n", encoding="utf-8")
    assert main(["compare", str(file), "--dvc"]) == 0
    written: Any = OmegaConf.to_container(OmegaConf.load("comparisons/small/dvc.yaml"), resolve=False)
    assert list(written["stages"]) == ["cell", "results"]
    cell = written["stages"]["cell"]
    assert cell["deps"] == ["hiper/__init__.py"]
    outs = [next(iter(out)).rpartition("/")[2] for out in cell["outs"]]
    assert outs == ["tasks", "demos", "sft", "train", "evaluate"]
    assert main(["compare", str(file), "--only", "base"]) == 2
    assert "has no part 'base'; it has hae/0" in capsys.readouterr().err


def test_an_arms_settings_are_what_it_differs_in(place: Path) -> None:
    file = Path("comparisons/small.yaml")
    assert main(["compare", str(file), "--dvc", "tasks.data=some where"]) == 0
    params: Any = OmegaConf.to_container(OmegaConf.load("comparisons/small/params.yaml"))
    assert params["arms"] == {
        "hae": "as base",
        "grpo": {
            "algo.name": "grpo",
            "algo.group_size": 2,
            "algo.shaping.keep": 0.0,
            "algo.shaping.keep_mismatch": 0.0,
            "algo.group_scale": True,
        },
    }
    assert params["base"]["trainer"]["iterations"] == load_comparison(file).base_cfg.trainer.iterations
    stages: Any = OmegaConf.to_container(OmegaConf.load("comparisons/small/dvc.yaml"), resolve=False)
    assert params["base"]["tasks"]["data"] == "some where"
    assert stages["stages"]["base"]["cmd"] == "hiper compare comparisons/small.yaml 'tasks.data=some where' --only base"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["comparisons/small.yaml", "--dvc", "thread=1"], "there is no setting 'thread'"),
        (["comparisons/dotted.yaml", "--dvc"], "arms a.b: to DVC a dot in a name divides keys"),
        (["../elsewhere.yaml", "--dvc"], "is in no checkout with DVC"),
        (["comparisons/small.yaml", "--only", "hae/1"], "has no part 'hae/1'; it has base, hae/0, grpo/0, hae/3, grpo/3"),
    ],
)
def test_what_cannot_be_is_refused(options: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path("comparisons/small.yaml").read_text(encoding="utf-8")
    Path("comparisons/dotted.yaml").write_text(text.replace("hae:", "a.b:"), encoding="utf-8")
    Path("../elsewhere.yaml").write_text(text, encoding="utf-8")
    assert main(["compare", *options]) == 2
    assert said in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_dvc_does_what_is_not_done(tmp_path: Path, small_settings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = make_checkout(tmp_path / "checkout", "hiper")
    monkeypatch.setenv("PYTHONPATH", str(checkout))
    monkeypatch.setenv("HIPER_CONF", str(checkout / "conf"))
    comparison = checkout / "study.yaml"
    comparison.write_text(STUDY.format(base=", ".join(small_settings)).replace("[0, 3]", "[0]"), encoding="utf-8")

    def repro(folder: Path) -> str:
        run("hiper", "compare", "study.yaml", "--dvc", cwd=folder)
        return dvc(folder, "repro", "study/dvc.yaml")

    assert sorted(done(repro(checkout))) == ["base", "cell@grpo-0", "cell@hae-0", "results"]
    assert "| `grpo` |" in (checkout / "study" / "results.md").read_text(encoding="utf-8")
    assert done(repro(checkout)) == []

    commit(checkout, "a comparison")
    dvc(checkout, "push")
    run("git", "clone", "--quiet", str(checkout), "clone", cwd=tmp_path)
    clone = tmp_path / "clone"
    dvc(clone, "pull")
    assert "up to date" in dvc(clone, "status")
    assert done(dvc(clone, "repro", "study/dvc.yaml")) == []
    shutil.rmtree(clone)

    text = comparison.read_text(encoding="utf-8")
    comparison.write_text(text.replace("algo.group_size=2", "algo.group_size=2, algo.kl_coef=0.2"), encoding="utf-8")
    assert sorted(done(repro(checkout))) == ["cell@grpo-0", "results"]

    times = {stage: checkout / "runs" / "small" / "grpo" / "seed-0" / stage / TIMES for stage in ("train", "evaluate")}
    before = {stage: file.read_bytes() for stage, file in times.items()}
    comparison.write_text(comparison.read_text(encoding="utf-8").replace("base: [", "base: [evaluate.seed=5, "), encoding="utf-8")
    assert sorted(done(repro(checkout))) == ["base", "cell@grpo-0", "cell@hae-0", "results"]
    assert times["train"].read_bytes() == before["train"], "trained once"
    assert times["evaluate"].read_bytes() != before["evaluate"]
