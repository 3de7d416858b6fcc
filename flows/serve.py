"""Serves the deployments of prefect.yaml on this machine, with servers of Prefect and MLflow beside them.

python -m flows.serve

PREFECT_API_URL and MLFLOW_TRACKING_URI choose servers that run elsewhere; PREFECT_PORT (4200) and MLFLOW_PORT
(5000) are where they are started otherwise. Ctrl-C ends everything that this started.
"""

import os
import signal
import sys
from types import FrameType

from flows.serving.servers import HOME, check_prefect_server, mlflow_server, prefect_server, running
from flows.stages.process_groups import listen_to_ctrl_c
from pipeline.config.params import load_params
from pipeline.runtime import boundary

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
    from flows.serving.deployments import read_deployments
    from flows.serving.runner import serve
    from pipeline.tracking.server import connect

    deployments = read_deployments()
    with running(own):
        connect(params.tracking.experiment)  # the experiment is there before two runs can make it at once
        serve(deployments)


def _leave(number: int, frame: FrameType | None) -> None:
    """SIGTERM, like Ctrl-C, unwinds what has been started."""
    sys.exit(128 + number)


if __name__ == "__main__":
    boundary.run(main)
