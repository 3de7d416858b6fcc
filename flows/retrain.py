"""The flow `retrain`: when data or code have changed, train anew; promote what is better.

python -m flows.retrain [--slots N]
"""

from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.flow import argument_parser, run, workspace_flow
from flows.stages.graph import DEFAULT_TARGETS, changed_stages, needed_stages
from flows.stages.workspace import held_workspace
from flows.train import run_stages

REASONS_SHOWN = 5


@workspace_flow
def retrain(slots: int | None = None) -> Any:
    """Train and compare what has changed, then let the better model be the champion.

    A model that was trained before, whose promotion failed or was not asked for, has its turn too.

    Args:
        slots: How many stages run side by side; empty for one per GPU, or one without GPUs.
    """
    logger = get_run_logger()
    with held_workspace() as params:
        changed = changed_stages(DEFAULT_TARGETS)
        for stage, reasons in changed.items():
            more = [f"and {len(reasons) - REASONS_SHOWN} more"] if len(reasons) > REASONS_SHOWN else []
            logger.info("%s has to run: %s", stage, ", ".join(reasons[:REASONS_SHOWN] + more))
        from pipeline.registry.promote import is_decided, promote  # heavy, and only this flow needs it

        if not changed and is_decided(params):
            return Completed(message="nothing changed")
        state = run_stages(needed_stages(DEFAULT_TARGETS), params.workers, slots)
        if not state.is_completed():
            return state
        # Compares the challenger with the champion on the same test images, and promotes it if it is better.
        as_task = task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
        decision = as_task(promote)(params)
    logger.info("%s", decision.reason)
    create_markdown_artifact(
        key="promotion", markdown=decision.markdown, description="Which model is the champion, and why"
    )
    return Completed(message=decision.reason)


if __name__ == "__main__":
    run(retrain, argument_parser("flows.retrain", __doc__))
