"""The flow `pipeline`: DVC's stages as tasks.

Prefect loads a flow's file under its own name: pipeline.py would hide the package `pipeline`.

python -m flows.train [TARGET ...] [--slots N] [--force]
"""

import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.futures import PrefectFuture, wait
from prefect.states import Completed, Failed

from flows.flow import argument_parser, run, workspace_flow
from flows.stages.graph import DEFAULT_TARGETS, needed_stages
from flows.stages.process_groups import ProcessGroups, listen_to_ctrl_c
from flows.stages.run import run_stage
from flows.stages.slots import gpus_of_training, slot_environments
from flows.stages.workspace import held_workspace
from pipeline.config.sections import Workers
from pipeline.runtime.paths import TUNE

COMPARISON = Path("reports/comparison.md")


@workspace_flow
def pipeline(
    targets: list[str] = ["compare"],  # noqa: B006 (never changed; Prefect's forms show it)
    slots: int | None = None,
    force: bool = False,
) -> Any:
    """Run the stages that have changed.

    Args:
        targets: Stages of dvc.yaml, or groups of them such as `baseline`; what they need runs too.
        slots: How many stages run side by side; empty for one per GPU, or one without GPUs.
        force: Also run stages that have not changed.
    """
    with held_workspace() as params:
        return run_stages(needed_stages(targets), params.workers, slots, force)


def run_stages(
    stages: Mapping[str, list[str]], workers: Workers, slots: int | None, force: bool = False
) -> Any:
    """Run stages, each as soon as its upstream is done and a slot is free; to be called in a flow.

    A stage that fails takes those with it that depend on it; the others go on. However this is left, no
    command that it started is running any more.

    Args:
        stages: The stages that must have run before each, which come before it.
        workers: Those of each training, whose GPUs a slot holds.
        slots: How many stages run side by side, as `slot_environments` has it.
        force: Also run stages that have not changed.

    Returns:
        A Completed state, or a Failed one that names the stages that failed and those that did not run.
    """
    free: queue.Queue[Mapping[str, str]] = queue.Queue()
    for environment in slot_environments(slots, gpus_of_training(workers)):
        free.put(environment)
    listen_to_ctrl_c()
    groups = ProcessGroups()
    futures: dict[str, PrefectFuture[Any]] = {}
    try:
        # All at once: a waiting task costs a thread, and holds no slot.
        for stage, upstream in stages.items():
            futures[stage] = run_stage.submit(
                stage, free, groups, force, return_state=False, wait_for=[futures[name] for name in upstream]
            )
        wait(list(futures.values()))
    finally:
        groups.end_all()
    states = {name: future.state for name, future in futures.items()}
    completed = [name for name, state in states.items() if state.is_completed()]
    if "compare" in completed:
        publish_comparison()
    if "tune" in completed:
        publish_search()
    if len(completed) == len(states):
        ran = [name for name in completed if states[name].name == "Completed"]
        return Completed(message=f"ran {', '.join(ran)}" if ran else "nothing changed, no stage ran")
    failed = [
        state.message or name for name, state in states.items() if state.is_failed() or state.is_crashed()
    ]
    not_run = [name for name, state in states.items() if not state.is_final()]
    sentence = "; ".join(failed)
    return Failed(message=sentence + (f"; not run because of that: {', '.join(not_run)}" if not_run else ""))


def publish_comparison() -> None:
    """The comparison's table, as the artifact `comparison`."""
    page = COMPARISON.with_name("index.html").resolve()
    create_markdown_artifact(
        key="comparison",
        markdown=f"{COMPARISON.read_text()}\n\nThe page with all of it: `{page}`\n",
        description="The methods side by side",
    )


def publish_search() -> None:
    """What the search found, as the artifact `search`, and all its trials, as the table `trials`."""
    import pandas

    from pipeline.config.tuned import BEST

    parts = [f"```yaml\n{BEST.read_text().strip()}\n```"]
    parts += [f"Picture: `{picture.resolve()}`" for picture in sorted(TUNE.glob("*.png"))]
    create_markdown_artifact(
        key="search", markdown="\n\n".join(parts) + "\n", description="What the search found"
    )
    trials = TUNE / "trials.csv"
    if trials.exists():
        rows: Any = pandas.read_csv(trials).to_dict("records")
        create_table_artifact(key="trials", table=rows, description="The trials of the search")


if __name__ == "__main__":
    parser = argument_parser("flows.train", __doc__)
    parser.add_argument("targets", nargs="*", default=list(DEFAULT_TARGETS), help="stages, or groups of them")
    parser.add_argument("--force", action="store_true", help="also run stages that have not changed")
    run(pipeline, parser)
