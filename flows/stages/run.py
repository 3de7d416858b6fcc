"""Runs one stage: `dvc repro --single-item` in a process group of its own, its output in the run's log."""

import os
import queue
import re
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from flows.stages.process_groups import Ended, ProcessGroups

LINES_KEPT = 50  # of output, to find in it why a stage failed
ERROR = re.compile(r"[\w.]+(Error|Exception): ")
COUNT = re.compile(r"\b(\d[\d,]*) of (\d[\d,]*)\b")
SECONDS_BETWEEN_UPDATES = 5.0  # of the artifact that shows in Prefect's UI how far a stage is


@task(name="stage", task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(
    stage: str, free_slots: queue.Queue[Mapping[str, str]], groups: ProcessGroups, force: bool
) -> Any:
    """Run a stage as soon as a slot is free; DVC skips it where nothing has changed.

    Returns:
        Completed, called Skipped or Restored where DVC did not have to run the command; Failed with a
        sentence; or Cancelled when the flow ends before the stage does.
    """
    # --wait-for-lock: stages run side by side, and DVC holds its lock while it plans and hashes.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    command += ["--force"] if force else []
    slot = free_slots.get()
    try:
        with groups.start(command, _environment(slot)) as process:
            assert process.stdout is not None
            artifact = _progress_artifact(stage)
            lines = _follow(process.stdout, artifact)
            code = process.wait()
    except Ended:
        return Cancelled(message=f"{stage} was not started: the flow run was ended")
    finally:
        free_slots.put(slot)
    if groups.ended:
        return Cancelled(message=f"{stage} was ended with the flow run; it continues at its last checkpoint")
    if code:
        return Failed(message=f"{stage} failed: {reason(lines)}")
    update_progress_artifact(artifact, progress=100.0)
    for line in lines:
        if line == f"Stage '{stage}' didn't change, skipping":
            return Completed(name="Skipped", message=f"{stage} didn't change")
        if line.startswith(f"Stage '{stage}' is cached - skipping run"):
            return Completed(name="Restored", message=f"{stage} was taken from DVC's cache")
    return Completed(message=f"{stage} ran")


def _progress_artifact(stage: str) -> UUID:
    key = re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")
    created = create_progress_artifact(progress=0.0, key=key, description=stage)
    assert isinstance(created, UUID)  # not a coroutine, which it is in an event loop
    return created


def _follow(output: Iterable[str], artifact: UUID) -> list[str]:
    """Log what a command prints until it ends, and show how far it is; returns its last lines."""
    logger = get_run_logger()
    kept: deque[str] = deque(maxlen=LINES_KEPT)
    sent = time.monotonic()
    for line in map(str.rstrip, output):
        if not line:
            continue
        logger.info("%s", line)
        kept.append(line)
        done = percent(line)
        if done is not None and time.monotonic() - sent > SECONDS_BETWEEN_UPDATES:
            sent = time.monotonic()
            update_progress_artifact(artifact, progress=done)
    return list(kept)


def percent(line: str) -> float | None:
    """50.0 for ``stochca-all-0: step 1,000 of 2,000, ...``; None for a line that says no such thing."""
    match = COUNT.search(line)
    if match is None:
        return None
    done, total = (int(number.replace(",", "")) for number in match.groups())
    return 100 * done / total if 0 <= done <= total and total else None


def reason(lines: list[str]) -> str:
    """Why a command failed: the stage's own sentence, or the error under a traceback, or the last line."""
    sentences = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    errors = [line for line in lines if ERROR.match(line)]
    return (sentences or errors or lines or ["it printed nothing"])[-1]


def _environment(slot: Mapping[str, str]) -> dict[str, str]:
    """What the command sees: `python` is this one, lines come when they are printed, the slot's variables."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1", **slot}
