"""The flow `pipeline`: DVC's stages as tasks.

Prefect loads a flow's file under its own name: pipeline.py would hide the package `pipeline`.

python -m flows.train [TARGET ...] [--slots N] [--force]
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed

from flows.artifacts import mistakes_in_a_sentence, publish_comparison, publish_search
from flows.command import argument_parser, run
from flows.serving.alerts import HOOKS
from flows.stages.graph import DEFAULT_TARGETS, Stage, needed_stages
from flows.stages.process_groups import ProcessGroups, listen_to_ctrl_c
from flows.stages.run import run_stage
from flows.stages.slots import Slots
from flows.stages.workspace import held_workspace

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="pipeline", **HOOKS)
@mistakes_in_a_sentence
def pipeline(
    targets: list[str] = ["compare"],  # noqa: B006 (never changed; Prefect's forms show it)
    slots: int | None = None,
    force: bool = False,
) -> "State[Any]":
    """Run the stages that have changed.

    Args:
        targets: Stages of dvc.yaml, or groups of them such as `baseline`; what they need runs too.
        slots: How many stages run side by side; empty for one per GPU, or one without GPUs.
        force: Also run stages that have not changed.
    """
    with held_workspace():
        return run_stages(needed_stages(targets), Slots(slots), force)


def run_stages(stages: Sequence[Stage], slots: Slots, force: bool = False) -> "State[Any]":
    """Run stages, each as soon as its upstream is done and a slot is free; to be called in a flow.

    A stage that fails takes those with it that depend on it; the others go on. However this is left, no
    command that it started is running any more.

    Returns:
        A Completed state, or a Failed one that names the stages that failed and those that did not run.
    """
    listen_to_ctrl_c()
    groups = ProcessGroups()
    futures: dict[str, PrefectFuture[Any]] = {}
    try:
        # All at once: a waiting task costs a thread, and holds no slot.
        for stage in stages:
            upstream = [futures[name] for name in stage.upstream]
            futures[stage.name] = run_stage.submit(
                stage.name, slots, groups, force, return_state=False, wait_for=upstream
            )
        wait(list(futures.values()))
    finally:
        groups.end_all()
    states = {name: future.state for name, future in futures.items()}
    _publish({name for name, state in states.items() if state.is_completed()})
    return _conclude(states)


def _publish(completed: set[str]) -> None:
    if "compare" in completed:
        publish_comparison()
    if "tune" in completed:
        publish_search()


def _conclude(states: "dict[str, State[Any]]") -> "State[Any]":
    if all(state.is_completed() for state in states.values()):
        ran = [name for name, state in states.items() if state.name == "Completed"]
        return Completed(message=f"ran {', '.join(ran)}" if ran else "nothing changed, no stage ran")
    failed = [
        state.message or name for name, state in states.items() if state.is_failed() or state.is_crashed()
    ]
    not_run = [name for name, state in states.items() if not state.is_final()]
    sentence = "; ".join(failed)
    return Failed(message=sentence + (f"; not run because of that: {', '.join(not_run)}" if not_run else ""))


def main() -> None:
    parser = argument_parser("flows.train", __doc__)
    parser.add_argument("targets", nargs="*", default=list(DEFAULT_TARGETS), help="stages, or groups of them")
    parser.add_argument("--force", action="store_true", help="also run stages that have not changed")
    run(pipeline, vars(parser.parse_args()))


if __name__ == "__main__":
    main()
