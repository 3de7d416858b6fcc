"""The flow `search`: the stage `tune`, and what takes over its result.

python -m flows.search [--slots N] [--force]
"""

from typing import TYPE_CHECKING, Any

from prefect import flow

from flows.artifacts import mistakes_in_a_sentence
from flows.command import argument_parser, run
from flows.serving.alerts import HOOKS
from flows.stages.graph import DEFAULT_TARGETS, needed_stages
from flows.stages.slots import Slots
from flows.stages.workspace import held_workspace
from flows.train import run_stages

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

SEARCH = "tune"


@flow(name="search", **HOOKS)
@mistakes_in_a_sentence
def search(slots: int | None = None, force: bool = False) -> "State[Any]":
    """Search the probability of cross-attention, then train and compare if a method waits for the result.

    Args:
        slots: How many stages run side by side; empty for one per GPU, or one without GPUs.
        force: Search again, and train again, although nothing has changed.
    """
    with held_workspace():
        stages = needed_stages(DEFAULT_TARGETS)
        if SEARCH not in {stage.name for stage in stages}:  # protocol.stochca_after waits for something else
            stages = needed_stages([SEARCH])
        return run_stages(stages, Slots(slots), force)


def main() -> None:
    parser = argument_parser("flows.search", __doc__)
    parser.add_argument("--force", action="store_true", help="search again although nothing has changed")
    run(search, vars(parser.parse_args()))


if __name__ == "__main__":
    main()
