"""A model card: the README.md with which a trained model is shared, as the hub of Hugging Face reads it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from pipeline.images.prepared import load_prepared
from pipeline.report import sentences
from pipeline.report.contributions import contributions
from pipeline.report.documents import TEMPLATES
from pipeline.report.intervals import metric_interval
from pipeline.runtime.paths import RESULTS
from pipeline.training.metrics import calibration_error
from pipeline.training.saved_model import TrainedModel
from stochca.config.selection import SELECTIONS, Metric
from stochca.errors import UserError
from stochca.evaluation import measure

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

FILE = "README.md"
TASK = "image-classification"
CONFIDENCE = 0.95
# Of those that the hub has a name for, the ones of timm's weights; it wants others as `other`.
LICENSES = {
    *("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"),
    *("apple-ascl", "apple-amlr", "fair-noncommercial-research-license", "gemma", "unknown"),
}
TOLD = (  # of run.json
    *("mlflow_run_id", "config", "training", "selection", "protocol", "refit", "target", "dataset"),
    *("selected_step", "teacher", "notes", "seed", "precision", "device", "git_commit"),
)


@dataclass(frozen=True)
class Score:
    """A metric on the test images, and the interval that holds for other images like them."""

    metric: Metric
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Tested:
    """The run that made a model, as it lies in results/."""

    description: dict[str, Any]  # run.json
    predictions: pd.DataFrame

    @cached_property
    def probabilities(self) -> np.ndarray:
        return np.stack(self.predictions["probabilities"].tolist())

    @property
    def groups(self) -> np.ndarray:
        """Of the test images; runs from before these were noted have each image on its own."""
        return self.predictions.get("group", self.predictions.index.to_series()).to_numpy()

    @cached_property
    def scores(self) -> list[Score]:
        """Of all metrics that the test images can measure."""
        labels = self.predictions["label"].to_numpy()
        predicted = self.predictions["prediction"].to_numpy()
        scores = []
        for name, metric in SELECTIONS.items():
            value = measure(name, labels, self.probabilities)
            if np.isfinite(value):
                added = contributions(name, labels, predicted, self.probabilities)
                interval = metric_interval(metric, [added[np.newaxis]], [labels], CONFIDENCE, [self.groups])
                scores.append(Score(metric, value, interval))
        return scores

    @property
    def calibration_error(self) -> float:
        return calibration_error(self.probabilities, self.predictions["label"].to_numpy())


def run_of(trained: TrainedModel) -> Tested:
    """What results/ has of the very run that made a model.

    Raises:
        UserError: it is not there, is damaged, or another run of the same name has taken its place.
    """
    folder = RESULTS / trained.card["name"]
    try:
        description = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if absent := [key for key in TOLD if key not in description]:
            raise ValueError(f"run.json has no {absent[0]}")
        tested = Tested(description, pd.read_parquet(folder / "predictions.parquet"))
        if not tested.scores:
            raise ValueError("its predictions can't be scored")
    except OSError as error:
        raise UserError(f"{error.filename or folder} can't be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is damaged ({' '.join(str(error).split())})") from None
    if description["mlflow_run_id"] != trained.card["mlflow_run_id"]:
        raise UserError(f"{folder} is of another run than the model")
    return tested


def model_card(trained: TrainedModel, tested: Tested | None) -> str:
    """The text of the card; without scores and settings where the run is not at hand."""
    return TEMPLATES.get_template("model_card.md").render(
        head=_head(trained, tested),
        card=trained.card,
        classes=trained.classes,
        levels=trained.levels,
        source_of=_source,
        license=trained.card["backbone"]["license"],
        tested=tested,
        run=None if tested is None else tested.description,
        cross_attends=tested is not None and _cross_attends(tested.description["config"]["attention"]),
        images_by=_origin_of_images(tested),
        settings=None if tested is None else _settings(tested.description),
        confidence=CONFIDENCE,
        words=sentences,
    )


def _cross_attends(attention: Mapping[str, Any]) -> bool:
    """Whether a block ever did: a search may have found that none should."""
    return attention["name"] == "stochca" and bool(np.any(attention["prob"]))


def _head(trained: TrainedModel, tested: Tested | None) -> str:
    """What the hub reads, as YAML."""
    from huggingface_hub import ModelCardData

    card = trained.card
    license = (card["backbone"]["license"] or "unknown").lower()
    of_hub = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)", card["backbone"]["source"])
    return ModelCardData(
        library_name="timm",
        pipeline_tag=TASK,
        license=license if license in LICENSES else "other",
        license_name=None if license in LICENSES else re.sub(r"[^\w.-]+", "-", license),
        tags=[TASK, "timm", "stochca"],
        base_model=of_hub[1] if of_hub else None,
        model_name=card["name"],
        eval_results=None if tested is None else _results(tested),
    ).to_yaml()


def _results(tested: Tested) -> "list[EvalResult]":
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=TASK,
            dataset_type=tested.description["dataset"]["name"],
            dataset_name=tested.description["dataset"]["name"],
            dataset_split="test",
            metric_type=score.metric.name,
            metric_name=score.metric.title,
            metric_value=round(score.value, 4),
        )
        for score in tested.scores
    ]


def _source(source: str) -> str:
    """Where the pretrained weights come from, without the folders of this machine."""
    kind, _, location = source.partition(":")
    return f"{kind}:{PurePath(location).name}" if kind == "file" else source


def _origin_of_images(tested: Tested | None) -> str | None:
    """License and attribution of the images, where the prepared ones are those of the run."""
    try:
        manifest = load_prepared().manifest
    except UserError:
        return None
    if tested is None or manifest.get("fingerprint") != tested.description["dataset"]["fingerprint"]:
        return None
    told = [manifest.get("license"), manifest.get("attribution")]
    return ": ".join(" ".join(text.split()) for text in told if text) or None


def _settings(description: dict[str, Any]) -> str:
    """What decided the weights, as in params.yaml."""
    method = {key: value for key, value in description["config"].items() if key != "training"}
    settings = {"method": method, "training": description["training"]}
    return yaml.safe_dump(json.loads(json.dumps(settings)), sort_keys=False, allow_unicode=True, width=100)
