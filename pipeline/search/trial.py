"""One trial: the same method trained once per seed, all seeds in lockstep from rung to rung.

What counts is the mean over the seeds, so that one lucky seed does not choose.
"""

import shutil
import socket
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Any

import ray
from ray import tune

from pipeline.search.inputs import BACKBONE, scratch
from pipeline.search.records import METRIC, Rung
from pipeline.search.seed_run import SeedRun
from pipeline.search.task import Task
from stochca.errors import UserError


class Trial(tune.Trainable):
    """What Ray Tune runs, a rung per `step`; restarted, it goes through the rungs on record at once."""

    def setup(self, config: dict[str, Any], task: Task, sent: list[ray.ObjectRef]) -> None:
        import torch

        from pipeline.images.prepared import FOLDER, load_prepared
        from pipeline.images.protocol import images_of_trials
        from stochca.compute.devices import default_device
        from stochca.data.images import keep_in_memory

        torch.set_num_threads(max(1, int(task.tune.resources.cpu)))
        # With gpu: 0 Ray leaves the GPUs visible.
        device = default_device() if task.tune.resources.gpu else torch.device("cpu")
        root = task.inputs.root((lambda: ray.get(sent[0])) if sent else None)
        prepared = load_prepared(root / FOLDER)
        images = images_of_trials(prepared, task.protocol, task.target, task.tune.seeds)
        decoded = cache(keep_in_memory)  # once, where seeds share their images
        reads = len(task.tune.seeds) * task.training.steps * task.training.batch_size
        self.task = task
        self.rungs: list[Rung] = []
        self.seconds = 0.0
        self.is_shared = task.folder.exists()  # the search's own folder, which survives this machine
        base = task.folder if self.is_shared else scratch() / task.name
        self.folder = base / "trials" / self.trial_id
        self.runs = [
            SeedRun(
                folder=self.folder / f"seed-{seed}",
                backbone=root / BACKBONE,
                classes=prepared.classes,
                train=decoded(images[seed].train, reads),
                validation=decoded(images[seed].validation),
                domains=images[seed].domains,
                method=task.method(config),
                settings=task.settings(config),
                seed=seed,
                device=device,
            )
            for seed in task.tune.seeds
        ]

    def step(self) -> dict[str, Any]:
        """Train every seed up to the next rung."""
        rung = self.task.rungs[len(self.rungs)]
        try:
            reached = [run.advance(rung) for run in self.runs]
        except UserError as error:  # training diverged: a result of this rate, no reason to try again
            return {**self._report(rung, [0.0] * len(self.runs)), "problem": str(error), "done": True}
        self.seconds += sum(one.seconds for one in reached)
        report = self._report(rung, [one.accuracy for one in reached])
        return {**report, "problem": None, "done": rung == self.task.training.steps}

    def _report(self, step: int, accuracies: list[float]) -> dict[str, Any]:
        self.rungs.append(Rung(step, accuracies))
        return {
            METRIC: self.rungs[-1].mean,
            "step": step,
            "rungs": [asdict(rung) for rung in self.rungs],
            "seconds": self.seconds,
            "node": node(),
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


def node() -> str:
    """The machine, and Ray's name for it, which tells two on one machine apart."""
    return f"{socket.gethostname()}-{ray.get_runtime_context().get_node_id()[:6]}"
