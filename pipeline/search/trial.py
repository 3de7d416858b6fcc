"""One trial: the same method trained once per seed, all seeds in lockstep from rung to rung.

What counts is the mean over the seeds, so that one lucky seed does not choose.
"""

import json
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import Any

import ray
import torch
from ray import tune

from pipeline.images.prepared import FOLDER, load_prepared
from pipeline.images.protocol import images_of_trials
from pipeline.runtime.files import write_json
from pipeline.search.data import BACKBONE, scratch
from pipeline.search.records import REACHED, Rung
from pipeline.search.task import Task, device_of_trials, threads_of_trials
from pipeline.training.inputs import make_inputs
from stochca.compute.checkpoint import CHECKPOINT, PREVIOUS
from stochca.config.selection import SELECTIONS
from stochca.data.images import keep_in_memory
from stochca.errors import UserError
from stochca.training.callbacks import Callback, JsonLines, read_events
from stochca.training.fit import fit, precisions_of
from stochca.training.inputs import Inputs

LOG = "log.jsonl"
EVALUATIONS = "evaluations"  # how many there have been; what the stopper counts in


class Trial(tune.Trainable):
    """What Ray Tune runs, a rung per `step`; restarted, it goes through the rungs on record at once."""

    def setup(self, config: dict[str, Any], task: Task, sent: list[ray.ObjectRef]) -> None:
        torch.set_num_threads(threads_of_trials(task.tune.resources))
        device = device_of_trials(task.tune.resources)
        root = task.data.root((lambda: ray.get(sent[0])) if sent else None)
        prepared = load_prepared(root / FOLDER)
        images = images_of_trials(prepared, task.protocol, task.target, task.tune.seeds)
        decoded = cache(keep_in_memory)  # once, where seeds share their images
        reads = len(task.tune.seeds) * task.timetable.steps * task.training.batch_size
        self.task = task
        self.rungs: list[Rung] = []
        self.seconds = 0.0
        self.is_shared = task.folder.exists()  # the search's own folder, which survives this machine
        base = task.folder if self.is_shared else scratch() / task.name
        self.folder = base / "trials" / self.trial_id
        # Restarted on a machine that computes in another precision, it begins anew.
        precisions = "-".join(precisions_of(task.method(config), task.settings(config), device).split())
        self.runs = [
            SeedRun(
                self.folder / f"seed-{seed}-{precisions}",
                partial(
                    make_inputs,
                    root / BACKBONE,
                    prepared.classes,
                    decoded(images[seed].train, reads),
                    decoded(images[seed].validation),
                    method=task.method(config),
                    settings=task.settings(config),
                    domains=images[seed].domains,
                    selection=task.selection,
                    seed=seed,
                ),
                device,
            )
            for seed in task.tune.seeds
        ]

    def step(self) -> dict[str, Any]:
        """Train every seed up to the next rung."""
        rung = self.task.rungs[len(self.rungs)]
        try:
            reached = [run.advance(rung) for run in self.runs]
        except UserError as error:  # training diverged: a result of this rate, no reason to try again
            worst = [self.task.metric.worst] * len(self.runs)
            return {**self._report(rung, worst), "problem": str(error), "done": True}
        self.seconds += sum(one["seconds"] for one in reached)
        report = self._report(rung, [one["value"] for one in reached])
        return {**report, "problem": None, "done": rung == self.task.timetable.steps}

    def _report(self, step: int, values: list[float]) -> dict[str, Any]:
        self.rungs.append(Rung(step, values))
        # The machine, and Ray's name for it, which tells two on one machine apart.
        node = f"{socket.gethostname()}-{ray.get_runtime_context().get_node_id()[:6]}"
        return {
            REACHED: self.rungs[-1].mean,
            "step": step,
            EVALUATIONS: self.task.evaluations(step),
            "rungs": [asdict(rung) for rung in self.rungs],
            "seconds": self.seconds,
            "node": node,
        }

    def cleanup(self) -> None:
        """Leave the records, which are small, where they can be found again; nothing elsewhere."""
        for run in self.runs:
            run.discard_checkpoints()
        if not self.is_shared:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # other trials are there
                self.folder.parent.rmdir()
                self.folder.parent.parent.rmdir()


@dataclass(frozen=True)
class SeedRun:
    """A training run of one seed. What it reached at a rung is kept in its folder and not trained again."""

    folder: Path
    inputs: Callable[[], Inputs]  # new ones, for training changes them
    device: torch.device

    def advance(self, step: int) -> dict[str, float]:
        """Train until `step`; from the last checkpoint, where there is one.

        Gives the value of the metric that selects, on validation - the best so far; at the end, of the
        selected weights - and the seconds of training since the rung before.

        Raises:
            UserError: training diverged, or the device does not suit the settings.
        """
        record = self.folder / f"step-{step}.json"
        if not record.exists():
            started = monotonic()
            value = self._train(step)
            write_json(record, {"value": value, "seconds": monotonic() - started})
        reached: dict[str, float] = json.loads(record.read_text())
        return reached

    def _train(self, step: int) -> float:
        inputs, log = self.inputs(), self.folder / LOG
        pause = [PauseAt(step)] if step < inputs.timetable.steps else []
        try:
            fitted = fit(
                inputs,
                work_folder=self.folder,
                callbacks=[JsonLines(log), *pause],
                device=self.device,
            )
        except Paused:
            evaluations = (event for event in read_events(log) if event["event"] == "eval")
            values = (event["value"] for event in evaluations if event["step"] <= step)
            return float(max(values, key=SELECTIONS[inputs.selection].merit))
        assert fitted.validation is not None  # it is, unless one refits
        return fitted.validation.value

    def discard_checkpoints(self) -> None:
        """Free the disk; what was reached stays on record."""
        for name in (CHECKPOINT, PREVIOUS):
            (self.folder / name).unlink(missing_ok=True)


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
