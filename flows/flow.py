"""What the flows share: how they end, and the command line that runs one here and now."""

import argparse
import functools
import sys
from collections.abc import Callable
from typing import Any

import prefect
from prefect.logging import get_run_logger
from prefect.states import Failed

from flows.serving.alerts import alert
from pipeline.runtime import boundary
from stochca.errors import UserError


def workspace_flow(function: Callable[..., Any]) -> Any:
    """A flow of the function's name; a `UserError` ends a run as Failed with its sentence, no traceback.

    Runs that end badly are told to people.
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            get_run_logger().error("%s", error)
            return Failed(message=str(error))

    hooks: list[Any] = [alert]
    return prefect.flow(name=function.__name__, on_failure=hooks, on_crashed=hooks, on_cancellation=hooks)(
        guarded
    )


def argument_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--slots", type=int, help="how many stages run side by side; default: one per GPU")
    return parser


def run(flow: Any, parser: argparse.ArgumentParser) -> None:
    """Run a flow with what it is told; the process ends with code 1, and the reason, unless it completes."""
    from flows.serving.servers import check_prefect_server

    parameters = vars(parser.parse_args())

    def main() -> None:
        check_prefect_server()
        state = flow(**parameters, return_state=True)
        if not state.is_completed():
            sys.exit(f"error: {state.message}")

    boundary.run(main)
