"""The flow `retrain`: when data or code have changed, train anew; promote what is better.

python -m flows.retrain [--slots N]
"""

from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.artifacts import mistakes_in_a_sentence
from flows.command import argument_parser, run
from flows.serving.alerts import HOOKS
from flows.stages.graph import DEFAULT_TARGETS, changed_stages, needed_stages
from flows.stages.slots import Slots
from flows.stages.workspace import held_workspace
from flows.train import run_stages
from pipeline.config.params import Params

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from pipeline.registry.champion import Decision

REASONS_SHOWN = 5


@flow(name="retrain", **HOOKS)
@mistakes_in_a_sentence
def retrain(slots: int | None = None) -> "State[Any]":
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
        from pipeline.registry.promote import is_decided  # heavy, and promoting needs it anyway

        if not changed and is_decided(params):
            return Completed(message="nothing changed")
        state = run_stages(needed_stages(DEFAULT_TARGETS), Slots(slots))
        if not state.is_completed():
            return state
        decision = promote_challenger(params)
    logger.info("%s", decision.reason)
    create_markdown_artifact(
        key="promotion", markdown=decision.markdown, description="Which model is the champion, and why"
    )
    return Completed(message=decision.reason)


@task(name="promote", task_run_name="promote", cache_policy=NO_CACHE, persist_result=False)
def promote_challenger(params: Params) -> "Decision":
    """Compare the challenger with the champion on the same test images, and promote it if it is better."""
    from pipeline.registry.promote import promote

    return promote(params)


def main() -> None:
    run(retrain, vars(argument_parser("flows.retrain", __doc__).parse_args()))


if __name__ == "__main__":
    main()
