"""The kinds of files that commands read, and the commands that read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.ground import BEGUN, SHOP_GAMES, A, B


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    name: str
    files: str
    """Pattern of its files in the ground; one is drawn."""
    form: str
    """json, jsonl, yaml, text or binary."""
    commands: tuple[str, ...]
    """What reads it, as words of `hiper`; FILE stands for the file drawn."""
    other: str | None = None
    """What `swap` puts in its place; None: the file of the same name in the other run."""
    same: bool = True
    """Whether a stage that is done again must come out as it was: its settings and sources are not what is damaged."""


RESUME, RESUME_BEGUN = f"resume --direct {A}", f"resume --direct {BEGUN}"
REPORT = f"report --force --config {A}"
STUDY = "compare study.yaml --report-only --out results.md"
MODEL = f"evaluate --model {A}/train/model --data {A}/tasks/data --split valid_seen --out out"
TRAIN = f"train --force --config {A}"
WARM = f"sft --force --config {A}"
DEMOS = f"demos --force --config {A}"
PLAYED = f"evaluate --force --config {A}"
REEVALUATE = "reevaluate plan.yaml"
SHOP = " ".join(SHOP_GAMES)
SHOP_BENCH = "benchmark webshop --catalogue shop --recordings recording.jsonl"


def _model(name: str, form: str) -> Kind:
    return Kind(f"model: {name}", f"{A}/train/model/{name}", form, (MODEL, REEVALUATE, PLAYED, RESUME))


KINDS = (
    Kind("run config.yaml", f"{A}/config.yaml", "yaml", (RESUME, REPORT, f"config --config {A}", STUDY), same=False),
    Kind("stage config.yaml", f"{A}/train/config.yaml", "yaml", (MODEL, REEVALUATE, RESUME), same=False),
    Kind("environment.json", f"{A}/environment.json", "json", (REPORT, STUDY, RESUME)),
    Kind("stage.json", f"{A}/[gdwt]*/stage.json", "json", (RESUME, TRAIN, STUDY)),
    Kind("times.json", f"{A}/[gdwt]*/times.json", "json", (RESUME, REPORT, STUDY)),
    Kind("begun.json", f"{BEGUN}/train.partial/begun.json", "json", (RESUME_BEGUN,), other=f"{A}/train/stage.json"),
    Kind("game index", f"{A}/tasks/index.json", "json", (DEMOS, TRAIN, REEVALUATE, PLAYED, RESUME)),
    Kind("game file", f"{A}/tasks/data/valid_seen/*/*/game.tw-pddl", "json", (MODEL, "play FILE", "play --expert FILE", PLAYED)),
    Kind("training game", f"{A}/tasks/data/train/*/*/game.tw-pddl", "json", (DEMOS, TRAIN)),
    Kind("traj_data.json", "odd/valid_seen/*/*/traj_data.json", "json", (MODEL.replace(f"{A}/tasks/data", "odd"), "play --data odd")),
    Kind("games' manifest", f"{A}/tasks/data/manifest.json", "json", (RESUME, DEMOS)),
    Kind("demonstrations", f"{A}/demos/demos.jsonl", "jsonl", (WARM, RESUME)),
    _model("config.json", "json"),
    _model("generation_config.json", "json"),
    _model("tokenizer.json", "json"),
    _model("tokenizer_config.json", "json"),
    _model("chat_template.jinja", "text"),
    _model("model.safetensors", "binary"),
    _model("value_heads.safetensors", "binary"),
    Kind("warm start's model", f"{A}/sft/model/*", "binary", (TRAIN, PLAYED)),
    Kind("metrics.jsonl", f"{A}/train/metrics.jsonl", "jsonl", (REPORT, STUDY, RESUME)),
    Kind("samples.jsonl", f"{A}/train/samples.jsonl", "jsonl", (REPORT, RESUME)),
    Kind("timings.jsonl", f"{A}/train/timings.jsonl", "jsonl", (REPORT,)),
    Kind("alarms.json", f"{A}/train/alarms.json", "json", (REPORT,)),
    Kind("metrics.jsonl, training", f"{BEGUN}/train.partial/metrics.jsonl", "jsonl", (RESUME_BEGUN,)),
    Kind("samples.jsonl, training", f"{BEGUN}/train.partial/samples.jsonl", "jsonl", (RESUME_BEGUN,)),
    Kind("timings.jsonl, training", f"{BEGUN}/train.partial/timings.jsonl", "jsonl", (RESUME_BEGUN,)),
    Kind("alarms.json, training", f"{BEGUN}/train.partial/alarms.json", "json", (RESUME_BEGUN,)),
    Kind("checkpoint's manifest", f"{BEGUN}/train.partial/checkpoints/*/manifest.json", "json", (RESUME_BEGUN,)),
    Kind("checkpoint's state", f"{BEGUN}/train.partial/checkpoints/*/state.json", "json", (RESUME_BEGUN,)),
    Kind("checkpoint's tensors", f"{BEGUN}/train.partial/checkpoints/*/tensors.safetensors", "binary", (RESUME_BEGUN,)),
    Kind("evaluation.json", f"{A}/evaluate/*/evaluation.json", "json", (REPORT, STUDY, RESUME)),
    Kind("trajectories.jsonl", f"{A}/evaluate/*/trajectories.jsonl", "jsonl", (STUDY, REPORT)),
    Kind("metrics.json", f"{A}/evaluate/metrics.json", "json", (RESUME, REPORT)),
    Kind("study", "study.yaml", "yaml", (STUDY, "compare study.yaml --dvc"), other="sweep.yaml"),
    Kind("sweep", "sweep.yaml", "yaml", ("sweep sweep.yaml --join --direct",), other="study.yaml"),
    Kind("re-evaluations", "plan.yaml", "yaml", (REEVALUATE,), other="sweep.yaml"),
    Kind("re-evaluations' history", "reevaluations/a.jsonl", "jsonl", (REEVALUATE,), other=f"{A}/train/metrics.jsonl"),
    Kind("conf/config.yaml", "conf/config.yaml", "yaml", ("config", "play --index 0"), other="plan.yaml", same=False),
    Kind("conf/GROUP/*.yaml", "conf/[!er]*/*.yaml", "yaml", ("config GROUP", "play GROUP"), other="plan.yaml"),
    Kind("conf/experiment", "conf/experiment/smoke.yaml", "yaml", ("config experiment=smoke", STUDY), other="plan.yaml", same=False),
    Kind("WebShop products", "shop/items_shuffle*.json", "json", (SHOP, SHOP_BENCH), other="shop/items_ins_v2.json", same=False),
    Kind("WebShop attributes", "shop/items_ins_v2*.json", "json", (SHOP, SHOP_BENCH), other="case.json", same=False),
    Kind(
        "WebShop instructions",
        "shop/items_human_ins.json",
        "json",
        (f"{SHOP} webshop.human=true webshop.test=0 webshop.valid=0",),
        other="case.json",
        same=False,
    ),
    Kind("WebShop recordings", "recording.jsonl", "jsonl", (SHOP_BENCH,), other="reevaluations/a.jsonl"),
    Kind("WebShop cache, arrays", "cache/webshop/[0-9]*-*/*.npy", "binary", (SHOP,), other="case.json", same=False),
    Kind("WebShop cache, labels", "cache/webshop/[0-9]*-*/*.json", "json", (SHOP,), other="case.json", same=False),
    Kind("WebShop cache, digests", "cache/webshop/digests/*.json", "json", (SHOP,), other="case.json", same=False),
    Kind("recorded advantages", "case.json", "json", ("benchmark hae --conformance case.json",), other="plan.yaml"),
)


def other_of(kind: Kind, file: str, place: Path) -> Path:
    """What `swap` puts in the place of a file of the ground at `place`."""
    if kind.other is not None:
        return place / kind.other
    same = place / (file.replace(A, B) if A in file else file.replace(f"{BEGUN}/train.partial", f"{B}/train"))
    if same.is_file():
        return same
    return next(path for path in sorted(place.glob(kind.files.replace(A, B))) if path != place / file)  # games have names of their own
