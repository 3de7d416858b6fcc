"""Prefect's runner, which cancels the runs that are under way before it stops.

By itself it would kill them on SIGTERM, and they would be shown as running for ever.
"""

import asyncio
import logging
import signal
from typing import Any

from prefect.runner import Runner


class CancellingRunner(Runner):
    """Runs what is started from its deployments, until Ctrl-C or SIGTERM; then their schedules rest too."""

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


def run_until_interrupted(runner: CancellingRunner) -> None:
    asyncio.run(runner.serve())
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.flush()  # while there still is a server
