"""How far a stage is, as an artifact in Prefect's UI, read from the lines that its command prints."""

import re
import time
from uuid import UUID

SECONDS_BETWEEN_UPDATES = 5.0
COUNT = re.compile(r"\b(\d[\d,]*) of (\d[\d,]*)\b")


def percent(line: str) -> float | None:
    """50.0 for ``stochca-all-0: step 1,000 of 2,000, ...``; None for a line that says no such thing."""
    match = COUNT.search(line)
    if match is None:
        return None
    done, total = (int(number.replace(",", "")) for number in match.groups())
    return 100 * done / total if 0 <= done <= total and total else None


class StageProgress:
    """A progress artifact of the current task run."""

    def __init__(self, stage: str) -> None:
        from prefect.artifacts import create_progress_artifact

        key = re.sub(r"[^a-z0-9]+", "-", stage.lower()).strip("-")
        created = create_progress_artifact(progress=0.0, key=key, description=stage)
        assert isinstance(created, UUID)  # not a coroutine, which it is in an event loop
        self.artifact = created
        self.sent = time.monotonic()

    def read(self, line: str) -> None:
        """Take a line of output; Prefect hears of it every few seconds at most."""
        progress = percent(line)
        if progress is not None and time.monotonic() - self.sent > SECONDS_BETWEEN_UPDATES:
            self.sent = time.monotonic()
            self._update(progress)

    def finish(self) -> None:
        self._update(100.0)

    def _update(self, progress: float) -> None:
        from prefect.artifacts import update_progress_artifact

        update_progress_artifact(self.artifact, progress=progress)
