"""Accepted models evaluated again, on a schedule; the flow fails where one does worse."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

import hiper.experiments.reevaluate as library
from hiper.errors import DriftError
from hiper.experiments.reevaluate import Outcome, Plan, Watched, load_plan
from hiper.integrations.prefect.artifacts import progress_artifact
from hiper.runtime.progress import both, track


@task(name="reevaluate", task_run_name="{one.name}", cache_policy=NO_CACHE, persist_result=False)
def evaluate_again(plan: Plan, one: Watched, accept: bool = False) -> Outcome:
    """See `hiper.experiments.reevaluate.reevaluate`."""
    with track(one.name) as bar, progress_artifact(one.name.replace("_", "-").lower()) as artifact:
        return library.reevaluate(plan, one, accept, both(bar, artifact))


@flow(name="reevaluate", persist_result=False, validate_parameters=True)
def reevaluate(file: str = "conf/reevaluate/nightly.yaml", accept: bool = False) -> list[Outcome]:
    """Evaluate the models of a file of `conf/reevaluate/` again; each is evaluated whatever came of the others.

    Args:
        file: which models.
        accept: later evaluations are compared with this one.

    Raises:
        DriftError: the success of at least one fell significantly, or it could not be evaluated.
    """
    plan = load_plan(Path(file))
    outcomes = [evaluate_again(plan, one, accept) for one in plan.models]
    create_markdown_artifact("\n".join(f"* {_plain(outcome)}" for outcome in outcomes), key="reevaluation", description=file)
    bad = [outcome for outcome in outcomes if outcome.bad]
    if bad:
        raise DriftError("\n".join(map(str, bad)))
    return outcomes


def _plain(outcome: Outcome) -> str:
    """As text that Markdown leaves alone."""
    return f"`{str(outcome).replace('`', ' ')}`"
