"""What a training run came to: the test split is read once, and everything is written down."""

import copy
import csv
import dataclasses
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file

from pipeline.images.seen_images import FILE as SEEN_IMAGES
from pipeline.images.seen_images import write_seen
from pipeline.runtime.files import replace_folder, write_json
from pipeline.runtime.paths import EXTENSIONS, METRICS, MODELS, RESULTS
from pipeline.tracking.run_folder import RunFolder
from pipeline.training.inputs import Loaded
from pipeline.training.job import Job
from pipeline.training.metrics import calibration_error
from pipeline.training.saved_model import BACKBONE, adapter_module, save_trained
from stochca._typing import TimmModule
from stochca.backbones.card import OWN_BACKBONE
from stochca.compute.devices import default_device
from stochca.config.selection import SELECTIONS, Selection
from stochca.data.preprocessing import Preprocessing
from stochca.evaluation import measure, predict
from stochca.training.fit import Fitted


@dataclass(frozen=True)
class Outcome:
    """A finished run and all that it was made from."""

    job: Job
    loaded: Loaded
    fitted: Fitted
    evaluated: Mapping[int, Path]  # the weights at some evaluations, by step, in order
    mlflow_run_id: str
    tags: Mapping[str, str]
    versions: Mapping[str, str]  # of the libraries in which it was computed

    @cached_property
    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, classes) and labels (N,) of the test images; computed once."""
        return self._predict_test(self.fitted.model)

    @cached_property
    def other_choices(self) -> dict[str, float]:
        """What selects, on the test images: of the last step's weights, and of those that they would choose.

        Empty where none were kept. Computed once, after everything has been chosen.
        """
        if not self.evaluated:
            return {}
        model = copy.deepcopy(self.fitted.model).to(default_device())
        selection = self.job.protocol.selection
        values = []
        for step, path in self.evaluated.items():
            if step == self.fitted.selected_step:  # those weights have been tested
                values.append(self.tested(selection))
                continue
            model.load_state_dict(load_file(path))
            probabilities, labels = self._predict_test(model)
            values.append(measure(selection, labels, probabilities))
        choices = {f"test_{selection}_last": values[-1]}
        if self.job.protocol.oracle:
            best = max(self.tested(selection), *values, key=SELECTIONS[selection].merit)
            choices[f"test_{selection}_oracle"] = best
        return choices

    def tested(self, metric: Selection) -> float:
        """A metric on the test images; NaN for the AUROC where they lack a class."""
        probabilities, labels = self.test
        return measure(metric, labels, probabilities)

    def _predict_test(self, model: TimmModule) -> tuple[np.ndarray, np.ndarray]:
        logits, labels = predict(
            model,
            self.loaded.images.test,
            Preprocessing.of(self.loaded.card),
            device=default_device(),
            precision=self.fitted.precision,
        )
        return torch.softmax(logits, dim=1).numpy(), labels.numpy()

    @property
    def metrics(self) -> dict[str, float | None]:
        probabilities, labels = self.test
        validation = self.fitted.validation
        tested = {f"test_{name}": self.tested(name) for name in SELECTIONS}
        return {
            **{name: None if math.isnan(value) else value for name, value in tested.items()},
            "test_calibration_error": calibration_error(probabilities, labels),
            **self.other_choices,
            "validation_accuracy": validation.accuracy if validation else None,
            "validation_loss": validation.loss if validation else None,
            **({f"validation_{validation.selection}": validation.value} if validation else {}),
            "train_seconds": round(self.fitted.train_seconds, 2),
            "images_per_second": round(self.fitted.images_per_second, 2),
            "peak_memory_mb": round(self.fitted.peak_memory_mb, 1),
            "trainable_parameters": self.fitted.trainable_parameters,
        }

    @property
    def description(self) -> dict[str, Any]:
        manifest = self.loaded.prepared.manifest
        return {
            "name": self.job.name,
            "method": self.job.method_name,
            "target": self.job.target,
            "seed": self.job.seed,
            "config": dataclasses.asdict(self.job.method),
            "training": {
                **dataclasses.asdict(self.job.training),
                "steps": self.loaded.inputs.timetable.steps,
            },
            "mlflow_run_id": self.mlflow_run_id,
            "selected_step": self.fitted.selected_step,
            "selection": self.job.protocol.selection,
            "notes": self.fitted.notes,
            "classes": self.loaded.prepared.classes,
            "backbone": self.loaded.card.to_dict(),
            "teacher": self.loaded.teacher.to_dict() if self.loaded.teacher else None,
            "cross_attended": self.fitted.cross_attended,
            "dataset": {
                "name": manifest["dataset"],
                "fingerprint": self.loaded.prepared.fingerprint,
                "domains": manifest["domains"],
                "images": {
                    "train": len(self.loaded.images.train),
                    "val": len(self.loaded.images.validation),
                    "test": len(self.loaded.images.test),
                },
            },
            "protocol": self.job.protocol.name,
            "refit": self.job.protocol.refit,
            "device": self.fitted.device,
            "precision": self.fitted.precision,
            "versions": dict(self.versions),
            "git_commit": self.tags["git_commit"],
            "stage": self.tags["stage"],
        }

    def write(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Put models/NAME, results/NAME and metrics/NAME.json in place, each whole or not at all."""
        with replace_folder(MODELS / self.job.name) as folder:
            save_trained(
                folder,
                self.fitted.model,
                self.loaded.card,
                name=self.job.name,
                method=self.job.method_name,
                classes=self.loaded.prepared.classes,
                mlflow_run_id=self.mlflow_run_id,
                levels=self.loaded.prepared.levels,
            )
        with replace_folder(RESULTS / self.job.name) as folder:
            write_json(folder / "run.json", self.description)
            write_curves(folder / "curves.csv", events)
            self.predictions().to_parquet(folder / "predictions.parquet")
            write_seen(folder / SEEN_IMAGES, self.loaded.images.train, self.loaded.images.validation)
        write_json(METRICS / f"{self.job.name}.json", self.metrics)

    def predictions(self) -> pd.DataFrame:
        """One row per test image."""
        probabilities, labels = self.test
        images = self.loaded.images.test
        return pd.DataFrame(
            {
                "id": images.ids,
                "label": labels,
                "prediction": probabilities.argmax(axis=1),
                "confidence": probabilities.max(axis=1),
                "domain": images.domains,
                "group": images.groups,
                "probabilities": list(probabilities),
            }
        )

    def hand_over(self, run: RunFolder, last_step: int, *, upload_model: bool) -> None:
        """Final numbers and files, for MLflow.

        The numbers come behind the last step: MLflow shows, and sorts by, what is last of a name, and some
        have the names of curves.
        """
        run.log({key: value for key, value in self.metrics.items() if value is not None}, last_step + 1)
        shutil.copytree(RESULTS / self.job.name, run.artifacts / RESULTS, dirs_exist_ok=True)
        if self.fitted.notes:
            run.add_tags({"mlflow.note.content": "\n\n".join(self.fitted.notes)})
        if upload_model:
            run.add_model(MODELS / self.job.name, self.example, beside(self.fitted.model))

    @property
    def example(self) -> np.ndarray:
        """Two test images, uint8 (2, height, width, 3)."""
        images = self.loaded.images.test
        size = images[0][0].size
        return np.stack([np.asarray(images[i][0].resize(size)) for i in range(min(2, len(images)))])


def beside(model: TimmModule) -> dict[str, Path]:
    """What a model is worth nothing without elsewhere, by the folder in its own."""
    module = adapter_module(model)
    if module is None:
        return {}
    own = module.startswith(f"{EXTENSIONS}.")
    return {OWN_BACKBONE: BACKBONE, **({str(EXTENSIONS): EXTENSIONS} if own else {})}


def write_curves(path: Path, events: Sequence[Mapping[str, Any]]) -> None:
    """The log as a table: a row per step, with validation where it was evaluated, skipped steps too."""
    steps, evaluations = (
        {event["step"]: event for event in events if event["event"] == kind} for kind in ("step", "eval")
    )
    columns = {"validation_loss": "loss", "validation_accuracy": "accuracy", "validation_selection": "value"}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train_loss", "lr", *columns])
        for step in sorted(steps.keys() | evaluations.keys()):
            trained, evaluation = steps.get(step, {}), evaluations.get(step, {})
            validation = [evaluation.get(name, "") for name in columns.values()]
            writer.writerow([step, trained.get("loss", ""), trained.get("lr", ""), *validation])
