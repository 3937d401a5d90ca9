"""What is damaged: runs, finished and begun, and every other kind of file that a command reads, in one folder made once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

A, B = "runs/fuzz/hae/seed-0", "runs/fuzz/hae/seed-1"
"""Two finished runs of one study, each with a warm start of its own."""
BEGUN = "runs/begun"
"""A run whose training was interrupted after its first iteration."""

SETTINGS = (
    "experiment=smoke",
    "alfworld.train=6",
    "alfworld.valid_seen=2",
    "alfworld.valid_unseen=2",
    "alfworld.max_receptacles=6",
    "alfworld.max_objects=10",
    "demos.count=6",
    "env.max_turns=4",
    "sft.max_steps=1",
    "sft.batch_size=2",
    "rollout.trajectories=2",
    "rollout.max_reply_tokens=12",
    "trainer.iterations=2",
    "trainer.minibatch=2",
    "trainer.eval_tasks=2",
    "evaluate.splits=[valid_seen]",
    "model.tiny.hidden=32",
)
"""A run as small as one can be."""

SHOP_GAMES = (
    "tasks",
    "--force",
    "env=webshop",
    "tasks.source=official",
    "tasks.data=shop",
    "webshop.test=5",
    "webshop.valid=5",
    "paths.run=runs/shop",
)
"""The command that indexes the shop's goals."""

_ROW = {"traj": "a", "done": False, "r": 0.0, "valid": True, "vl": 0.1, "vh": 0.2, "vt": 0.3, "sg": 0}
HAE_CASE = {
    "config": {
        "gamma": 0.95,
        "lam_turn": 1.0,
        "lam_seg": 0.95,
        "norm_adv": False,
        "bootstrap_truncated": True,
        "keep_penalty": -0.3,
        "keep_penalty_mode": "fixed",
        "invalid_action_penalty_coef": 0.1,
        "keep_consistency_penalty": -0.3,
    },
    "rows": [{**_ROW, "turn": turn, "switch": turn == 0} for turn in range(3)],
    "expected": {name: [0.0] * 3 for name in ("adv_low", "adv_high", "adv_term", "ret_low", "ret_high", "ret_term")},
}
"""A recorded case in form; its numbers are nobody's."""
RECORDS = ({"k": ["thing"], "t": "A thing"}, {"i": 0, "pricing": [1.0]}, {"i": 0, "instruction_text": "x", "asin": "y"})
"""Recordings of a shop, likewise."""


def make(place: Path, root: Path, finished: Path | None = None, settings: Sequence[str] = SETTINGS) -> None:
    """Make it in the working directory `place`.

    Args:
        place: an empty folder, the working directory of this process.
        root: the checkout.
        finished: a finished run that stands for `A`; then there is only what commands read that compute little: no second run, none that
            was interrupted, no re-evaluation. None: all of it.
        settings: of that run.
    """
    seeds = [0, 1] if finished is None else [0]
    from hiper.cli.main import main

    def hiper(*words: str) -> None:
        code = main(list(words))
        if code != 0:
            raise RuntimeError(f"hiper {' '.join(words)} ended with {code}.")

    shutil.copytree(root / "conf", place / "conf")
    _yaml("study.yaml", {"name": "fuzz", "base": list(settings), "arms": {"hae": []}, "seeds": seeds, "own_start": True})
    for seed, run in enumerate((A, B) if finished is None else ()):
        # Other games too, so that whatever is swapped between the two runs is not the same.
        hiper("run", "--direct", *SETTINGS, f"seed={seed}", "evaluate.baseline=true", f"tasks.seed={7 + seed}", f"paths.run={run}")
    if finished is None:
        _begun()
    else:
        _stand_in(finished)
    _yaml(
        "sweep.yaml",
        {
            "name": "fuzz",
            "base": [*settings, "trainer.eval_every=1"],
            "space": {"algo.gamma": {"low": 0.9, "high": 1.0}, "algo.levels": {"choices": ["[low,high]", "[low]"]}},
            "trials": 1,
            "last": 1,
            "sampler": {"name": "random"},
            "directory": "runs/sweep",
        },
    )
    _yaml("plan.yaml", {"models": [{"name": "a", "run": A}], "alpha": 0.01, "history": "reevaluations", "work": "runs/reevaluations"})
    if finished is None:
        hiper("reevaluate", "plan.yaml")
    Path("case.json").write_text(json.dumps({"cases": [HAE_CASE]}))
    Path("odd").mkdir()
    for split in ("valid_seen", "valid_unseen"):  # in folders whose names say nothing: traj_data.json does
        for number, game in enumerate(sorted(Path(A, "tasks/data", split).glob("*/*"))):
            shutil.copytree(game, Path("odd", split, f"unnamed {number}", "trial"))
    _shop(hiper)


def _begun() -> None:
    from hiper.pipeline.stages import STAGES
    from hiper.runs.run_dir import load_config, save_config

    for stage in ("tasks", "demos", "sft"):
        shutil.copytree(Path(A, stage), Path(BEGUN, stage))
    shutil.copy(Path(A, "environment.json"), BEGUN)
    cfg = load_config(Path(A))
    cfg.paths.run = BEGUN
    save_config(cfg, Path(BEGUN, "config.yaml"))

    def interrupt(done: int, total: int) -> None:
        if done >= 1:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        STAGES["train"](cfg, interrupt)
    if not list(Path(BEGUN).glob("train.partial/checkpoints/*/manifest.json")):
        raise RuntimeError("the training was not interrupted behind a checkpoint.")


def _stand_in(finished: Path) -> None:
    from hiper.runs.run_dir import load_config, save_config

    shutil.copytree(finished, A)
    cfg = load_config(Path(A))
    cfg.paths.run = A
    save_config(cfg, Path(A, "config.yaml"))


def _shop(hiper: Callable[..., None]) -> None:
    from hiper.suites.webshop.generate import generate_catalogue

    folder = generate_catalogue(Path("shop"), 60)
    products = next(folder.glob("items_shuffle*.json"))
    asin = json.loads(products.read_text())[0]["asin"]
    human = {asin: [{"asin": asin, "instruction": "find me a thing.", "instruction_attributes": ["a"], "instruction_options": []}]}
    (folder / "items_human_ins.json").write_text(json.dumps(human))
    Path("recording.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    hiper(*SHOP_GAMES)  # fills the cache


def _yaml(name: str, value: object) -> None:
    Path(name).write_text(yaml.safe_dump(value, sort_keys=False))


def main(arguments: Sequence[str]) -> int:
    """Make the ground in the working directory; the arguments are the checkout, and for a small one a finished run and its settings."""
    root, *rest = arguments
    if rest:
        make(Path.cwd(), Path(root), Path(rest[0]), rest[1:])
    else:
        make(Path.cwd(), Path(root))
    return 0
