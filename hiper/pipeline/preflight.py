"""What a run needs of its machine, looked at before its first stage: what is missing is named at once, not after an hour of demonstrations.

Only what the named stages will use is looked at, and nothing heavy is imported for what they will not: a run of the tiny model on a CPU is
looked through in milliseconds.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from hiper.config import RunConfig, WandbMode
from hiper.errors import ConfigError, HiperError
from hiper.runs.plan import has_sft
from hiper.runs.stage import STAGES, Stage
from hiper.runtime.packages import how_to_install
from hiper.suites import splits_of, suite_of

TIMEOUT = 10.0
"""Seconds a hub has for an answer."""

_INDEX = "model.safetensors.index.json"


def check(cfg: RunConfig, stages: Sequence[str]) -> None:
    """See that this machine has what stages of a run need, other than the files of the stages before them.

    Args:
        cfg: everything.
        stages: names of the stages that are to be done, as in `hiper.runs.stage.STAGES`.

    Raises:
        ConfigError: something is missing; the message lists all of it.
    """
    problems = list(dict.fromkeys(problem for look in _CHECKS for problem in look(cfg, stages)))
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError(f"this machine lacks {len(problems)} things that the run needs:\n" + "\n".join(f"  - {one}" for one in problems))


def _packages(cfg: RunConfig, stages: Sequence[str]) -> Iterator[str]:
    for modules, what, advice in suite_of(cfg).packages(cfg, [stage for stage in stages if _own(cfg, stages, stage)]):
        yield from _missing(modules, what, advice)
    if _own(cfg, stages, "sft"):
        tuning = ("trl", "datasets", "accelerate")
        yield from _missing(tuning, "the warm start", how_to_install(tuning))
    if "train" in stages and cfg.tracking.wandb is not WandbMode.off:
        yield from _missing(
            ("wandb",), f"tracking.wandb={cfg.tracking.wandb.value}", f"{how_to_install(['wandb'])}, or set tracking.wandb=off"
        )


def _wandb_login(cfg: RunConfig, stages: Sequence[str]) -> Iterator[str]:
    if "train" not in stages or cfg.tracking.wandb is not WandbMode.online or os.environ.get("WANDB_API_KEY"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    named = os.environ.get("NETRC")
    for file in [Path(named)] if named else [Path("~/.netrc").expanduser(), Path("~/_netrc").expanduser()]:
        try:
            if netrc.netrc(file).authenticators(host) is not None:
                return
        except (OSError, netrc.NetrcParseError):
            continue
    yield "tracking.wandb=online needs a key: `wandb login`, or WANDB_API_KEY. tracking.wandb=offline needs none."


def _device(cfg: RunConfig, stages: Sequence[str]) -> Iterator[str]:
    if cfg.device == "cpu" or not _any(stages, _computes):
        return
    training = cfg.trainer.processes if "train" in stages else 1
    tuning = cfg.sft.processes if _own(cfg, stages, "sft") else 1
    playing = cfg.evaluate.processes if "evaluate" in stages else 1
    if cfg.device == "auto" and training == tuning == playing == 1:
        return  # whatever is there will do, so torch need not be asked
    from hiper.runtime.device import uses_cuda
    from hiper.runtime.distributed import check_cpu, check_processes

    yield from _said(lambda: check_processes("trainer.processes", training, uses_cuda(cfg)))
    if tuning > 1:
        yield from _said(lambda: check_cpu("sft.processes", tuning, uses_cuda(cfg)))
    if playing > 1:
        yield from _said(lambda: check_cpu("evaluate.processes", playing, uses_cuda(cfg)))


def _settings(cfg: RunConfig, stages: Sequence[str]) -> Iterator[str]:
    """Settings that only a later stage would find to contradict each other."""
    suite, splits = suite_of(cfg), splits_of(cfg)
    known = suite.splits
    watched = splits[:1] if "evaluate" not in stages and cfg.trainer.eval_every > 0 else splits
    unknown = [split for split in watched if split not in known]
    if unknown and _any(stages, _plays):
        yield f"evaluate.splits={unknown}: env.name={cfg.env.name} has {', '.join(known)}."
    if _own(cfg, stages, "demos"):
        yield from _said(lambda: suite.check(cfg))


def _model(cfg: RunConfig, stages: Sequence[str]) -> Iterator[str]:
    """The base model, but for the numbers in its weights."""
    path = cfg.model.path
    loads = _own(cfg, stages, "sft") if has_sft(cfg) else "train" in stages
    if path is None or not loads or find_spec("transformers") is None:
        return
    problem = None if Path(path).is_dir() else _hub_problem(path)
    if problem is not None:
        yield problem
        return
    from hiper.model.actor import check_lm, load_tokenizer

    yield from _said(lambda: check_lm(path))
    yield from _said(lambda: load_tokenizer(path))


def _hub_problem(name: str) -> str | None:
    """Why a model's weights can be had neither from the cache nor from the hub."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError

    try:
        if _cached(name):
            return None
    except HFValidationError:
        return f"model.path={name!r} is neither a directory nor the id of a hub's model (OWNER/NAME)."
    if constants.HF_HUB_OFFLINE:
        return f"model.path={name!r} is not a directory, nor whole in the cache, and HF_HUB_OFFLINE is set. Fetch it first, or unset that."
    try:
        files = [file.rfilename for file in HfApi().model_info(name, timeout=TIMEOUT).siblings or ()]
    except Exception as error:  # the hub's own errors and those of the network below it: each means that there is no model to be had
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        return f"model.path={name!r} is not a directory, nor whole in the cache, and cannot be had from the hub: {why}"
    if not any(file.endswith(".safetensors") for file in files):
        return f"model.path={name!r} has no weights in safetensors; pickled ones are not read."
    return None


def _cached(name: str) -> bool:
    """Whether config and weights of a hub's model are here."""
    from huggingface_hub import try_to_load_from_cache

    def here(file: str) -> str | None:
        found = try_to_load_from_cache(name, file)
        return found if isinstance(found, str) else None

    if here("config.json") is None:
        return False
    if here("model.safetensors") is not None:
        return True
    index = here(_INDEX)
    if index is None:
        return False
    from hiper.model.folder import read_object

    parts = read_object(Path(index)).get("weight_map")
    return isinstance(parts, dict) and all(here(str(part)) is not None for part in set(parts.values()))


def _own(cfg: RunConfig, stages: Sequence[str], stage: str) -> bool:
    """Whether a stage is done here, and not taken from `paths.base`."""
    return stage in stages and not (STAGES[stage].shared and cfg.paths.base is not None)


def _any(stages: Sequence[str], what: Callable[[Stage], bool]) -> bool:
    return any(what(STAGES[name]) for name in stages)


def _computes(stage: Stage) -> bool:
    return stage.gpu


def _plays(stage: Stage) -> bool:
    return stage.plays


def _missing(modules: Sequence[str], what: str, advice: str) -> Iterator[str]:
    absent = [module for module in modules if find_spec(module) is None]
    if absent:
        yield f"{what} needs the package {' and '.join(absent)}, which is not installed: {advice}."


def _said(look: Callable[[], object]) -> Iterator[str]:
    try:
        look()
    except HiperError as error:
        yield str(error)


_CHECKS: tuple[Callable[[RunConfig, Sequence[str]], Iterator[str]], ...] = (_settings, _packages, _device, _wandb_login, _model)
