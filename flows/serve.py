"""Serves the deployments of prefect.yaml on this machine, with servers of Prefect and MLflow beside them.

python -m flows.serve

PREFECT_API_URL and MLFLOW_TRACKING_URI choose servers that run elsewhere; PREFECT_PORT (4200) and MLFLOW_PORT
(5000) are where they are started otherwise. Ctrl-C ends everything that this started.
"""

import os
import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from flows.serving.deployments import read_deployments, to_serve
from flows.serving.servers import HOME, check_prefect_server, mlflow_server, prefect_server, running
from flows.stages.process_groups import listen_to_ctrl_c
from pipeline.config.params import load_params
from pipeline.runtime import boundary

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.deployments.runner import RunnerDeployment

SECONDS_TO_PLAN = 20.0
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
    described = read_deployments()
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
    deployments = [to_serve(deployment) for deployment in described]
    with running(own):
        from pipeline.tracking.server import connect

        connect(params.tracking.experiment)  # the experiment is there before two runs can make it at once
        serve(deployments)


def serve(deployments: "list[RunnerDeployment]") -> None:
    """Serve until Ctrl-C or SIGTERM; runs that are under way are cancelled then, and schedules rest."""
    from flows.serving import alerts, zombies
    from flows.serving.runner import CancellingRunner, run_until_interrupted

    alerts.register()
    zombies.register()
    runner = CancellingRunner(name="serve")
    ids: list[Any] = [runner.add_deployment(deployment) for deployment in deployments]
    api = os.environ["PREFECT_API_URL"]
    print(f"\nThe flows' runs: {api.removesuffix('/api')}")
    print(f"The trainings:   {os.environ['MLFLOW_TRACKING_URI']}")
    print(f"Messages about runs that fail: fill in the block {alerts.NAME} in Prefect's UI\n")
    for deployment, identity in zip(deployments, ids, strict=True):
        when = planned(identity) if deployment.schedules else "on demand"
        print(f"{deployment.full_name:18} {when}")
    print(f"\nStart a run:     PREFECT_API_URL={api} prefect deployment run {deployments[0].full_name}")
    print("Ctrl-C ends all of this.\n", flush=True)
    run_until_interrupted(runner)


def planned(deployment: "UUID") -> str:
    """When the server will start the deployment by itself; it plans a few seconds after it heard of it."""
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + SECONDS_TO_PLAN
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            runs = client.get_scheduled_flow_runs_for_deployments([deployment])
            times = [run.expected_start_time for run in runs if run.expected_start_time]
            if times:
                return f"next at {min(times):%Y-%m-%d %H:%M %Z}"
            time.sleep(0.5)
    return (
        "no run is planned: the schedule is not active, or the server's scheduler does not work (see its log)"
    )


def _leave(number: int, frame: FrameType | None) -> None:
    """SIGTERM, like Ctrl-C, unwinds what has been started."""
    sys.exit(128 + number)


if __name__ == "__main__":
    boundary.run(main)
