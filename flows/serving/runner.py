"""Serves deployments until Ctrl-C or SIGTERM, and cancels the runs that are under way before it stops.

By itself Prefect's runner would kill them on SIGTERM, and they would be shown as running for ever.
"""

import asyncio
import logging
import os
import signal
import time
from typing import Any

from prefect.client.orchestration import get_client
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from flows.serving import alerts

SECONDS_TO_PLAN = 20.0


class CancellingRunner(Runner):
    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    async def serve(self) -> None:
        interrupted = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
        running = asyncio.create_task(self.start())
        waiting = asyncio.create_task(interrupted.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not running.done() and self.started:
            print("Ending the runs that are under way", flush=True)
            await self.cancel_all()
            await self.astop()
        await running


def serve(deployments: list[RunnerDeployment]) -> None:
    """Serve until Ctrl-C or SIGTERM; runs that are under way are cancelled then, and schedules rest."""
    alerts.register_block()
    alerts.register_automation()
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
    asyncio.run(runner.serve())
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.flush()  # while there still is a server


def planned(deployment: Any) -> str:
    """When the server will start the deployment by itself; it plans a few seconds after it heard of it."""
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
