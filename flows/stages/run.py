"""Runs one stage: `dvc repro --single-item` in a process group of its own, its output in the run's log."""

import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from flows.stages.process_groups import Ended, ProcessGroups
from flows.stages.progress import StageProgress
from flows.stages.slots import Slots

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

LINES_KEPT = 50  # of output, to find in it why a stage failed
ERROR = re.compile(r"[\w.]+(Error|Exception): ")


@task(name="stage", task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(stage: str, slots: Slots, groups: ProcessGroups, force: bool) -> "State[Any]":
    """Run a stage as soon as a slot is free; DVC skips it where nothing has changed.

    Returns:
        Completed, called Skipped or Restored where DVC did not have to run the command; Failed with a
        sentence; or Cancelled when the flow ends before the stage does.
    """
    # --wait-for-lock: stages run side by side, and DVC holds its lock while it plans and hashes.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    command += ["--force"] if force else []
    logger = get_run_logger()
    kept: deque[str] = deque(maxlen=LINES_KEPT)
    try:
        with slots.take() as slot, groups.start(command, _environment(slot)) as process:
            progress = StageProgress(stage)
            assert process.stdout is not None
            for line in process.stdout:
                if line := line.rstrip():
                    logger.info("%s", line)
                    kept.append(line)
                    progress.read(line)
            code = process.wait()
    except Ended:
        return Cancelled(message=f"{stage} was not started: the flow run was ended")
    if groups.ended:
        return Cancelled(message=f"{stage} was ended with the flow run; it continues at its last checkpoint")
    if code:
        return Failed(message=f"{stage} failed: {reason(kept)}")
    progress.finish()
    return _completed(stage, kept)


def reason(lines: Iterable[str]) -> str:
    """Why a command failed: the stage's own sentence, or the error under a traceback, or the last line."""
    candidates = list(lines) or ["it printed nothing"]
    sentences = [line.removeprefix("error: ") for line in candidates if line.startswith("error: ")]
    errors = [line for line in candidates if ERROR.match(line)]
    return (sentences or errors or candidates)[-1]


def _completed(stage: str, lines: Iterable[str]) -> "State[Any]":
    for line in lines:
        if line == f"Stage '{stage}' didn't change, skipping":
            return Completed(name="Skipped", message=f"{stage} didn't change")
        if line.startswith(f"Stage '{stage}' is cached - skipping run"):
            return Completed(name="Restored", message=f"{stage} was taken from DVC's cache")
    return Completed(message=f"{stage} ran")


def _environment(slot: Mapping[str, str]) -> dict[str, str]:
    """What the command sees: `python` is this one, lines come when they are printed, the slot's variables."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", **slot}
