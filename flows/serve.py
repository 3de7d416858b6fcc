"""Serves the deployments of prefect.yaml on this machine, with servers of Prefect and MLflow beside them.

python -m flows.serve

PREFECT_API_URL and MLFLOW_TRACKING_URI choose servers that run elsewhere; PREFECT_PORT (4200) and MLFLOW_PORT
(5000) are where they are started otherwise. Ctrl-C ends everything that this started.
"""

import asyncio
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

from flows.deployments import Deployment, read_deployments, to_serve
from flows.process_groups import listen_to_ctrl_c
from flows.servers import HOME, check_prefect_server, mlflow_server, prefect_server, running
from pipeline import boundary
from pipeline.params import load_params

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

QUIET = {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


def main() -> None:
    listen_to_ctrl_c()
    signal.signal(signal.SIGTERM, _leave)
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    params = load_params()
    deployments = read_deployments()
    check_prefect_server()
    # What runs here, runs included, finds the servers in these variables; Prefect reads them when imported.
    own = []
    if not os.environ.get("PREFECT_API_URL"):
        os.environ.setdefault("PREFECT_HOME", str(HOME.resolve()))
        own.append(prefect_server())
        os.environ["PREFECT_API_URL"] = f"{own[-1].url}/api"
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        own.append(mlflow_server())
        os.environ["MLFLOW_TRACKING_URI"] = own[-1].url
    to_be_served = [to_serve(deployment) for deployment in deployments]
    with running(own):
        from pipeline.tracking import connect

        connect(params.tracking.experiment)  # the experiment is there before two runs can make it at once
        serve(deployments, to_be_served)


def serve(deployments: list[Deployment], to_be_served: "list[RunnerDeployment]") -> None:
    """Serve until Ctrl-C or SIGTERM; runs that are under way are ended then, and schedules rest."""

    from flows import alerts, runner, zombies

    alerts.register()
    zombies.register()
    show(deployments, to_be_served)
    runner.serve(to_be_served)


def show(deployments: list[Deployment], to_be_served: "list[RunnerDeployment]") -> None:
    """Say where to look, what runs when, and how to start a run."""
    from flows.alerts import NAME

    api = os.environ["PREFECT_API_URL"]
    print(f"\nThe flows' runs: {api.removesuffix('/api')}")
    print(f"The trainings:   {os.environ['MLFLOW_TRACKING_URI']}")
    print(f"Messages about runs that fail: fill in the block {NAME} in Prefect's UI\n")
    for deployment, served in zip(deployments, to_be_served, strict=True):
        print(f"{served.full_name:18} {_next_run(deployment)}")
    print(f"\nStart a run:     PREFECT_API_URL={api} prefect deployment run {to_be_served[0].full_name}")
    print("Ctrl-C ends all of this.\n", flush=True)


def _next_run(deployment: Deployment) -> str:
    from prefect.server.schemas.schedules import CronSchedule

    times = [
        asyncio.run(CronSchedule(cron=schedule.cron, timezone=schedule.timezone).get_dates(1))[0]
        for schedule in deployment.schedules
        if schedule.active
    ]
    return f"runs next at {min(times):%Y-%m-%d %H:%M %Z}" if times else "runs on demand"


def _leave(number: int, frame: FrameType | None) -> None:
    """SIGTERM, like Ctrl-C, unwinds what has been started."""
    sys.exit(128 + number)


if __name__ == "__main__":
    boundary.run(main)
