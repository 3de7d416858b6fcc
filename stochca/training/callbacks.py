"""What the training loop tells the world: tracking, progress bars and searches listen here."""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stochca.config.selection import Selection


@dataclass(frozen=True)
class StepEvent:
    """One optimiser step; `step` counts from 1, `loss` is the training loss of its batch."""

    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float


@dataclass(frozen=True)
class EvalEvent:
    """One evaluation on the validation split after `step` steps."""

    step: int
    steps: int
    loss: float
    accuracy: float
    is_best: bool  # so far, by the metric that chooses the weights
    selection: Selection  # that metric
    value: float  # of it


class Callback:
    """Listens to a run; override what is of interest, or `hand_on`, which gets whatever is not overridden."""

    def on_start(self, first_step: int, steps: int) -> None:
        """Training starts, or continues, after `first_step` steps."""
        self.hand_on("on_start", first_step, steps)

    def on_step(self, event: StepEvent) -> None:
        self.hand_on("on_step", event)

    def on_eval(self, event: EvalEvent) -> None:
        self.hand_on("on_eval", event)

    def on_checkpoint(self, path: Path, step: int) -> None:
        self.hand_on("on_checkpoint", path, step)

    def on_note(self, note: str) -> None:
        """Something worth telling a person."""
        self.hand_on("on_note", note)

    def on_end(self) -> None:
        self.hand_on("on_end")

    def hand_on(self, event: str, *arguments: Any) -> None:
        """A call of the method with the name `event`."""


class Callbacks(Callback):
    """Hands every event to several callbacks, in order."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self.callbacks = list(callbacks)

    def hand_on(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)


class JsonLines(Callback):
    """Writes one JSON object per event; a resumed run continues as if it had never stopped.

    Each holds what the event tells, and `time`, the milliseconds since 1970 at which it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, first_step: int, steps: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = [event for event in read_events(self.path) if event["step"] <= first_step]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text("".join(json.dumps(event) + "\n" for event in kept))
        temporary.replace(self.path)

    def on_step(self, event: StepEvent) -> None:
        self._append({"event": "step", **asdict(event)})

    def on_eval(self, event: EvalEvent) -> None:
        self._append({"event": "eval", **asdict(event)})

    def _append(self, event: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({**event, "time": time.time_ns() // 1_000_000}) + "\n")


def read_events(path: Path) -> list[dict[str, Any]]:
    """The events of a log, without a last line that a kill cut off."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events
