"""One training run that is driven from rung to rung, with a pause at each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import torch

from pipeline.runtime.files import write_json
from pipeline.training.inputs import make_inputs
from stochca.compute.checkpoint import CHECKPOINT, PREVIOUS
from stochca.config import Method
from stochca.config.training import Training
from stochca.data.images import Images
from stochca.training.callbacks import Callback, JsonLines, read_events
from stochca.training.fit import fit

LOG = "log.jsonl"


class Paused(Exception):
    """The rung is reached; the checkpoint is on disk."""


class PauseAt(Callback):
    """Ends `fit` at a step, once its checkpoint is written; the next `fit` in that folder continues."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_start(self, first_step: int, steps: int) -> None:
        if first_step >= self.step:  # killed between its checkpoint and its record
            raise Paused

    def on_checkpoint(self, path: Path, step: int) -> None:
        if step >= self.step:
            raise Paused


@dataclass(frozen=True)
class Reached:
    """Where a run stands at a rung."""

    accuracy: float  # on validation: the best so far; at the end, of the selected weights
    seconds: float  # of training since the rung before


@dataclass(frozen=True)
class SeedRun:
    """A training run of one seed. What it reached at a rung is kept in its folder and not trained again."""

    folder: Path
    backbone: Path
    classes: Sequence[str]
    train: Images
    validation: Images
    domains: Sequence[str] | None  # of the training images, where all domains count the same
    method: Method
    settings: Training
    seed: int
    device: torch.device

    def advance(self, step: int) -> Reached:
        """Train until `step`; from the last checkpoint, where there is one.

        Raises:
            UserError: training diverged, or the device does not suit the settings.
        """
        record = self.folder / f"step-{step}.json"
        if not record.exists():
            write_json(record, vars(self._train(step)))
        return Reached(**json.loads(record.read_text()))

    def _train(self, step: int) -> Reached:
        started = monotonic()
        log = self.folder / LOG
        last = step == self.settings.steps
        try:
            fitted = fit(
                make_inputs(
                    self.backbone,
                    self.classes,
                    self.train,
                    self.validation,
                    method=self.method,
                    settings=self.settings,
                    domains=self.domains,
                    seed=self.seed,
                ),
                work_folder=self.folder,
                callbacks=[JsonLines(log), *([] if last else [PauseAt(step)])],
                device=self.device,
            )
            assert fitted.validation is not None  # it is, unless one refits
            accuracy = fitted.validation.accuracy
        except Paused:
            evaluations = [
                event for event in read_events(log) if event["event"] == "eval" and event["step"] <= step
            ]
            accuracy = max(evaluation["accuracy"] for evaluation in evaluations)
        return Reached(accuracy, monotonic() - started)

    def discard_checkpoints(self) -> None:
        """Free the disk; what was reached stays on record."""
        for name in (CHECKPOINT, PREVIOUS):
            (self.folder / name).unlink(missing_ok=True)
