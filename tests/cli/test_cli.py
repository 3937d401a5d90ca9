"""The `hiper` command, on a real small run.

Rules: what the user can mend is one message on standard error, no traceback, exit code not 0; Ctrl-C in any stage leaves earlier outputs
as they were and says how to go on; finished stages are not done again.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from hiper.cli.main import main, make_parser
from hiper.errors import ModelError
from hiper.evaluation.chunks import write_chunk
from hiper.rollout.trajectory import Trajectory
from hiper.runs.stage_folder import SEEN, read_stage
from hiper.runtime.lock import locked
from hiper.runtime.progress import Progress

STAGES = ["tasks", "demos", "sft", "train", "evaluate", "report"]


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Each command sets its own log up, on the standard error of its test."""
    yield
    logger = logging.getLogger("hiper")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, in another place: a run may be moved."""
    return shutil.copytree(finished_run, tmp_path / "run")


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, by content; but what this machine has seen of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEEN)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stages(run: Path) -> dict[str, dict[str, str]]:
    return {name: tree(run / name) for name in STAGES}


@contextmanager
def interrupting(label: str, total: int = 0) -> Iterator[Progress]:
    """A progress display during which somebody presses Ctrl-C."""

    def report(done: int, total: int) -> None:
        signal.raise_signal(signal.SIGINT)

    yield report


def test_a_run_leaves_all_its_parts(finished_run: Path) -> None:
    for file in (
        "config.yaml",
        "environment.json",
        "tasks/index.json",
        "demos/demos.jsonl",
        "sft/model/model.safetensors",
        "train/model/tokenizer.json",
        "train/metrics.jsonl",
        "train/samples.jsonl",
        "evaluate/sft/evaluation.json",
        "evaluate/trained/trajectories.jsonl",
        "report/report.html",
        *(f"{stage}/{name}" for stage in STAGES for name in ("stage.json", "config.yaml")),
    ):
        assert (finished_run / file).stat().st_size > 0, file
    assert not list(finished_run.glob("*.partial"))


def test_a_finished_run_is_not_done_again(small_settings: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stages(run)
    assert main(["run", "--direct", *small_settings, f"paths.run={run}"]) == 0
    printed = capsys.readouterr()
    assert stages(run) == before
    assert printed.err.count("already done") == len(STAGES)
    assert "trained     valid_unseen" in printed.out
    assert str(run / "report" / "report.html") in printed.out


def test_a_changed_setting_does_its_stage_and_those_after_it_again(small_settings: list[str], run: Path) -> None:
    before = stages(run)
    assert main(["run", "--direct", *small_settings, f"paths.run={run}", "evaluate.limit=2"]) == 0
    after = stages(run)
    assert [name for name in STAGES if after[name] != before[name]] == ["evaluate", "report"]
    assert json.loads((run / "evaluate/trained/evaluation.json").read_text(encoding="utf-8"))["overall"]["tasks"] == 4


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_in_a_stage_leaves_what_was_finished(
    small_settings: list[str], stage: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stages(run)
    with monkeypatch.context() as patch:
        patch.setattr("hiper.runtime.progress.track", interrupting)
        assert main([stage.replace("_", "-"), "--force", *small_settings, f"paths.run={run}"]) == 130
    assert stages(run) == before
    said = capsys.readouterr().err
    assert f"hiper: interrupted; finished work is kept in {run}. Continue with `hiper resume {run}`." in said
    assert "Traceback" not in said


def test_ctrl_c_before_anything_was_begun_promises_nothing(
    small_settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As while Prefect's server starts."""
    monkeypatch.setattr("hiper.cli.run._pipeline", lambda *_: signal.raise_signal(signal.SIGINT))
    assert main(["run", *small_settings, f"paths.run={tmp_path / 'new'}"]) == 130
    assert f"hiper: interrupted before {tmp_path / 'new'} was begun." in capsys.readouterr().err


def test_a_stage_takes_its_settings_from_a_file(
    small_settings: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "params.yaml"
    assert main(["config", *small_settings, f"paths.run={run}", "evaluate.limit=3", "--out", str(file)]) == 0
    assert main(["evaluate", "--config", str(file), "evaluate.limit=2"]) == 0
    assert json.loads((run / "evaluate/metrics.json").read_text(encoding="utf-8"))["tasks"] == {"valid_seen": 2, "valid_unseen": 2}
    capsys.readouterr()
    assert main(["config", "--config", str(file)]) == 0
    assert capsys.readouterr().out == file.read_text(encoding="utf-8")


def test_a_run_without_a_critic_has_its_report(small_settings: list[str], run: Path) -> None:
    """What a critic would have logged is missing from every line of the metrics."""
    before = stages(run)
    assert main(["run", "--direct", *small_settings, "algo=grpo", "algo.group_size=2", f"paths.run={run}"]) == 0
    after = stages(run)
    assert [name for name in STAGES if after[name] != before[name]] == ["train", "evaluate", "report"], "the warm start is shared"
    assert "explained_variance" not in (run / "train/metrics.jsonl").read_text(encoding="utf-8")
    assert "Success" in (run / "report/report.html").read_text(encoding="utf-8")


def test_interrupted_training_goes_on_from_its_checkpoint(
    small_settings: list[str], run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uninterrupted = tree(run / "train" / "model")
    shutil.rmtree(run / "train")
    with monkeypatch.context() as patch:
        patch.setattr("hiper.runtime.progress.track", interrupting)
        assert main(["train", *small_settings, f"paths.run={run}"]) == 130
    assert (run / "train.partial" / "checkpoints").is_dir()
    assert main(["resume", "--direct", str(run)]) == 0
    assert "train: continuing the work in" in capsys.readouterr().err
    lines = (run / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert tree(run / "train" / "model") == uninterrupted
    evaluated, trained = read_stage(run, "evaluate"), read_stage(run, "train")
    assert evaluated is not None
    assert trained is not None
    assert evaluated.sources["train"] == trained.digest, "the same bits: what was made from them stays"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside_ends_the_process_with_130(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hiper", "tasks", "experiment=smoke", "alfworld.train=100000", f"paths.run={tmp_path / 'run'}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            deadline = time.monotonic() + 120
            while not (tmp_path / "run" / "tasks.partial" / "data").is_dir() and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "hiper: interrupted" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "tasks.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "algo.gama=1"], "did you mean 'algo.gamma'?"),
        (["train", "experiment=smoke", "paths.run={tmp}/none"], "has no finished 'tasks' stage. Run `hiper tasks`"),
        (["resume", "{tmp}"], "it is not a run"),
        (["evaluate", "--split", "valid_seen"], "--split belong with --model"),
        (["evaluate", "--model", "{tmp}", "--config", "{tmp}"], "--config belongs to a run's own evaluation"),
        (["train", "--config", "{tmp}"], "it is not a run"),
        (["evaluate", "--model", "{tmp}/absent", "--data", "{games}"], "absent is not a directory"),
        (["evaluate", "--planner", "{tmp}", "--data", "{games}"], "--planner: that does not say who plays. Name --model DIR, or --planner"),
        (["evaluate", "--model", "{tmp}", "--planner", "{tmp}", "--executor", "{tmp}"], "does not say who plays"),
        (["evaluate", "--planner", "{tmp}", "--executor", "{tmp}/absent", "--data", "{games}"], "--executor"),
        (["evaluate", "--planner", "{tmp}", "--executor", "{tmp}"], "--executor need --data DIR"),
        (["evaluate", "--model", "{tmp}", "--data", "{games}", "--split", "valid_odd"], "has no valid_odd folder"),
        (["play", "--data", "{games}", "--index", "99"], "--index 99 is not in valid_unseen, which has tasks 0 to 5"),
        (["play", "--data", "{tmp}"], "Expected the official layout"),
        (["benchmark", "hae", "--conformance", "{tmp}/absent.json"], "absent.json"),
    ],
)
def test_a_mistake_is_one_message(
    arguments: list[str], said: str, tmp_path: Path, generated_games: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.format(tmp=tmp_path, games=generated_games) for argument in arguments]
    assert main(filled) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.err.splitlines()[-1].startswith("hiper: ")
    assert "Traceback" not in printed.err
    assert not (tmp_path / "none").exists()


def broken_game(games: Path, folder: Path, change: tuple[str, str] | None) -> Path:
    """A folder in the official layout whose one game has a piece of its domain replaced, or is cut off in the middle."""
    source = next(games.glob("valid_seen/*/*/game.tw-pddl"))
    target = folder / source.relative_to(games)
    target.parent.mkdir(parents=True)
    text = source.read_text(encoding="utf-8")
    if change is None:
        text = text[: len(text) // 2]
    else:
        record = json.loads(text)
        assert change[0] in record["pddl_domain"]
        text = json.dumps({**record, "pddl_domain": record["pddl_domain"].replace(*change)})
    target.write_text(text, encoding="utf-8")
    return target


def test_a_corrupt_game_file_is_named(
    generated_games: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = broken_game(generated_games, tmp_path / "data", None)
    for command in (
        ["play", str(file)],
        [
            "evaluate",
            "--model",
            str(finished_run / "train/model"),
            "--data",
            str(tmp_path / "data"),
            "--split",
            "valid_seen",
            "--out",
            str(tmp_path / "out"),
        ],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert file.name in said
        assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_an_unknown_domain_is_refused_by_name(generated_games: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = broken_game(generated_games, tmp_path / "data", (":action PickupObject", ":action StackObject"))
    assert main(["play", str(file)]) == 2
    said = capsys.readouterr().err
    assert "stackobject" in said
    assert str(file) in said


def test_an_empty_split_is_refused_before_the_model_is_loaded(
    generated_games: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(generated_games, tmp_path / "data")
    shutil.rmtree(data / "valid_seen")
    (data / "valid_seen").mkdir()
    assert main(["evaluate", "--model", str(finished_run / "train/model"), "--data", str(data), "--split", "valid_seen"]) == 2
    assert "split 'valid_seen' has no tasks" in capsys.readouterr().err


def test_a_model_without_a_tokenizer_is_refused(
    generated_games: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(finished_run / "train" / "model", tmp_path / "model")
    for file in model.glob("*token*"):
        file.unlink()
    out = tmp_path / "out"
    assert main(["evaluate", "--model", str(model), "--data", str(generated_games), "--split", "valid_seen", "--out", str(out)]) == 2
    assert "has no tokenizer" in capsys.readouterr().err
    assert not out.exists()


def test_a_full_disk_is_a_message_and_costs_nothing(small_settings: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """/dev/full answers every write as a full disk does."""
    if not Path("/dev/full").exists():  # Linux has it, macOS does not; there is no other disk to fill without being root
        pytest.skip("this system has no /dev/full")
    before = tree(run)
    (run / "config.yaml.tmp").symlink_to("/dev/full")
    assert main(["tasks", *small_settings, "tasks.seed=1", f"paths.run={run}"]) == 1
    said = capsys.readouterr().err
    assert "cannot write: [Errno 28] No space left on device" in said
    assert "Traceback" not in said
    (run / "config.yaml.tmp").unlink(missing_ok=True)
    (run / ".lock").unlink()
    assert tree(run) == before


def test_a_run_in_use_is_refused(small_settings: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(run):
        assert main(["run", "--direct", *small_settings, f"paths.run={run}"]) == 2
    assert "another process works in" in capsys.readouterr().err


def test_any_model_plays_any_folder(generated_games: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    model = shutil.copytree(finished_run / "sft" / "model", tmp_path / "plain")
    command = ["evaluate", "--model", str(model), "--data", str(generated_games), "--split", "valid_seen", "--out", str(out)]
    assert (
        main(
            [
                *command,
                "--limit",
                "2",
                "env.max_turns=3",
                "rollout.slots=2",
                "rollout.max_tokens=512",
                "rollout.max_reply_tokens=8",
                "protocol.style=terse",
            ]
        )
        == 0
    )
    assert "of 2 tasks won" in capsys.readouterr().out
    record = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert record["overall"]["tasks"] == 2
    assert len((out / "trajectories.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_an_interrupted_evaluation_of_a_model_goes_on_with_the_chunks_left(
    generated_games: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, model = tmp_path / "out", str(finished_run / "train" / "model")
    command = ["evaluate", "--model", model, "--data", str(generated_games), "--split", "valid_seen", "--out", str(out), "evaluate.chunk=2"]
    with monkeypatch.context() as patch:
        patch.setattr("hiper.runtime.progress.track", interrupting)
        assert main(command) == 130
        assert f"interrupted before {out} was begun." in capsys.readouterr().err
    seen: list[int] = []

    def interrupted(folder: Path, number: int, trajectories: Sequence[Trajectory]) -> None:
        write_chunk(folder, number, trajectories)
        seen.append(number)
        if number == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(importlib.import_module("hiper.evaluation.evaluate"), "write_chunk", interrupted)
    assert main(command) == 130
    assert f"finished chunks of tasks are kept in {out}. Give the command again to go on." in capsys.readouterr().err
    assert main(command) == 0
    assert seen == [0, 1, 2]


def test_the_expert_plays_in_the_terminal(generated_games: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["play", "--expert", "--data", str(generated_games)]) == 0
    shown = capsys.readouterr().out
    assert "Your task is to:" in shown
    assert "The expert won after" in shown


def test_a_model_plays_in_the_terminal(generated_games: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(finished_run / "train" / "model")
    assert main(["play", "--model", model, "--data", str(generated_games), "--split", "valid_seen", "env.max_turns=3"]) == 0
    shown = capsys.readouterr().out
    assert "Your task is to:" in shown
    assert "The model " in shown and " turns." in shown
    file = sorted((generated_games / "valid_seen").rglob("game.tw-pddl"))[0]
    assert main(["play", "--model", model, str(file), "env.max_turns=3"]) == 0
    assert capsys.readouterr().out == shown, "the first task of the split, by its file"
    assert main(["play", "--model", "absent"]) == ModelError.exit_code
    assert "absent is not a directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["play", "--model", model, "--expert"])


def test_a_person_plays_in_the_terminal(generated_games: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed = iter(["?", "look", "sing", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert main(["play", "--data", str(generated_games)]) == 0
    shown = capsys.readouterr().out
    assert "inventory" in shown
    assert "Nothing happens." in shown
    assert "You left after 2 turns." in shown


def test_both_benchmarks_are_played(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setenv("HIPER_CACHE", str(tmp_path))
    shop = ["play", "env=webshop", "webshop.products=48", "webshop.test=100", "webshop.valid=20"]
    assert main([*shop, "--expert", "--index", "3"]) == 0
    assert "[buy it]\n> click[buy now]\nThank you for shopping with us!" in capsys.readouterr().out
    typed = iter(["?", "search[pants]", "click[back to search]", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert main(shop) == 0
    shown = capsys.readouterr().out
    assert "search[<your query>]" in shown
    assert "Page 1 (Total results:" in shown
    assert main(["play", "a.tw-pddl", "b.tw-pddl"]) == 2


def test_help_is_quick_and_light() -> None:
    code = """
import sys
from hiper.cli.main import main, make_parser
try:
    main(["--help"])
finally:
    print(sorted({"torch", "hydra", "prefect"} & set(sys.modules)))
"""
    started = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 5, "takes 0.1 s on a quiet machine"


def test_bench_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "hae"]) == 0
    assert json.loads(capsys.readouterr().out)["milliseconds"] > 0


def test_bench_train_measures_the_games_it_is_given(generated_games: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [f"model.tiny.{name}={size}" for name, size in {"hidden": 32, "heads": 2, "kv_heads": 2, "layers": 2}.items()]
    small = ["rollout.trajectories=2", "alfworld.detours=0", "threads=1", *sizes]
    assert main(["benchmark", "train", "--data", str(generated_games), "--repeats", "1", *small]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trajectories"], found["repeats"], found["threads"]) == (2, 1, 1)
    assert set(found["schemes"]) == {"append", "window", "generate"}


def test_hiper_alone_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "hiper run experiment=quickstart" in said
    assert all(re.search(rf"^ +{name}\b", said, re.MULTILINE) for name in make_parser()[1].names)


@pytest.mark.parametrize(
    ("arguments", "usage", "said"),
    [
        (["evaluate", "--bogus"], "usage: hiper evaluate", "not understood: --bogus"),
        (["verify"], "usage: hiper verify", "the following arguments are required: RUN"),
        (["compare", "a.yaml", "--jobs", "0"], "usage: hiper compare", "'0' must be a whole number of at least 1"),
        (["evalute"], "usage: hiper ", "there is no command 'evalute'; did you mean 'evaluate'?"),
        (["--verbos"], "usage: hiper ", "a command is missing"),
    ],
)
def test_a_usage_error_shows_the_usage_of_its_command(
    arguments: list[str], usage: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(usage)
    assert said in error


@pytest.mark.parametrize("name", make_parser()[1].names)
def test_every_command_has_help_in_the_words_of_today(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert not re.search(r"\btimeless\b|\bbench\b|\bstudies of\b", capsys.readouterr().out)


def test_the_report_of_a_run_that_was_moved(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = shutil.move(run, tmp_path / "moved")
    assert main(["report", str(moved), "--force", "--no-timestamps"]) == 0
    assert "report: 0" in capsys.readouterr().out
    page = (moved / "report" / "report.html").read_text(encoding="utf-8")
    assert "Time" not in page.split("</dl>")[0]
    assert main(["report", str(moved), str(tmp_path)]) == 2
    assert "name one run" in capsys.readouterr().err


def test_a_finished_run_answers_without_prefect(small_settings: list[str], run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *small_settings, f"paths.run={run}"]) == 0
    said = capsys.readouterr().err
    assert said.count("already done") == 6
    assert "Prefect" not in said


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "hiper.bash"
    script.write_text(capsys.readouterr().out)
    ask = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_hiper; echo "${COMPREPLY[@]}"'
    for words, wanted in ((["hiper", "evalu"], "evaluate"), (["hiper", "verify", "--verb"], "--verbose")):
        said = subprocess.run(["bash", "-c", ask, "bash", str(script), *words], capture_output=True, text=True, check=True)
        assert said.stdout.split() == [wanted], said.stderr
