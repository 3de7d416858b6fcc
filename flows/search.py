"""The flow `search`: the stage `tune`, and what takes over its result.

python -m flows.search [--slots N] [--force]
"""

from typing import Any

from flows.flow import argument_parser, run, workspace_flow
from flows.stages.graph import DEFAULT_TARGETS, needed_stages
from flows.stages.workspace import held_workspace
from flows.train import run_stages

SEARCH = "tune"


@workspace_flow
def search(slots: int | None = None, force: bool = False) -> Any:
    """Search the probability of cross-attention, then train and compare if a method waits for the result.

    Args:
        slots: How many stages run side by side; empty for one per GPU, or one without GPUs.
        force: Search again, and train again, although nothing has changed.
    """
    with held_workspace() as params:
        stages = needed_stages(DEFAULT_TARGETS)
        if SEARCH not in stages:  # protocol.stochca_after waits for something else
            stages = needed_stages([SEARCH])
        return run_stages(stages, params.workers, slots, force)


if __name__ == "__main__":
    parser = argument_parser("flows.search", __doc__)
    parser.add_argument("--force", action="store_true", help="search again although nothing has changed")
    run(search, parser)
