"""All stages in a plain call, without Prefect."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from hiper.config import RunConfig
from hiper.evaluation import read_evaluation
from hiper.pipeline.stages import STAGES, StageResult, begun_run
from hiper.pipeline.state import up_to_date
from hiper.runs.plan import stages_of
from hiper.runs.stage import REPORT_FILE
from hiper.runtime.progress import track

logger = logging.getLogger(__name__)


def run_stages(cfg: RunConfig, force: bool, settings: Callable[[], RunConfig] | None = None) -> list[StageResult]:
    """Do all stages, in order.

    Args:
        cfg: everything.
        force: do finished stages again.
        settings: gives the config as it stands once the run is held, where it is saved there.

    Raises:
        ConfigError: another process is at work in the run, or this machine lacks something; nothing was begun.
    """
    results = []
    with begun_run(Path(cfg.paths.run), settings or (lambda: cfg), list(STAGES), force=force) as cfg:
        for name in stages_of(cfg):
            with track(name) as progress:
                results.append(STAGES[name](cfg, progress, force=force))
            logger.info("%s", results[-1])
    return results


def finished(cfg: RunConfig) -> bool:
    """Whether all stages have finished under these settings, so that there is nothing to do but to verify them."""
    return all(up_to_date(cfg, name) for name in stages_of(cfg))


def outcome(run: Path) -> str:
    """What a finished run shows last: success by split, with the 95 % interval, and where the page lies."""
    lines = []
    for folder in sorted((path.parent for path in run.glob("evaluate/*/evaluation.json")), key=lambda path: path.name, reverse=True):
        for split, found in read_evaluation(folder)["splits"].items():
            rate, low, high = (100 * found[name] for name in ("success_rate", "wilson_low", "wilson_high"))
            share = f"{found['successes']} of {found['tasks']} tasks"
            share += f", mean score {found['score_mean']:.3f}" if found["score_mean"] != found["success_rate"] else ""
            lines.append(f"{folder.name.replace('_', ' '):<12}{split:<14}{rate:5.1f} %  (95 % interval {low:.1f}-{high:.1f}, {share})")
    return "\n".join([*lines, f"report: {run / 'report' / REPORT_FILE}"])
