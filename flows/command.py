"""Runs a flow from the command line."""

import argparse
import sys
from typing import Any

from pipeline.runtime import boundary


def argument_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("--slots", type=int, help="how many stages run side by side; default: one per GPU")
    return parser


def run(flow: Any, parameters: dict[str, Any]) -> None:
    """Run a flow here and now; ends the process with code 1, and the reason, unless it completes."""
    from flows.serving.servers import check_prefect_server

    def main() -> None:
        check_prefect_server()
        state = flow(**parameters, return_state=True)
        if not state.is_completed():
            sys.exit(f"error: {state.message}")

    boundary.run(main)
