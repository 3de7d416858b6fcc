"""Images whose class is their colour, and real models that are right about all colours but some."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

from pipeline.config.params import Params
from pipeline.images.prepared import Prepared, load_prepared
from pipeline.images.protocol import images_for
from pipeline.runtime.paths import RUNS
from pipeline.tracking.publish import Publisher
from pipeline.tracking.publish import publish as publish_folder
from pipeline.tracking.run_folder import LOG, RunFolder
from pipeline.training.digests import versions
from pipeline.training.inputs import Loaded
from pipeline.training.job import plan
from pipeline.training.outcome import Outcome
from stochca._typing import TimmModule
from stochca.data.preprocessing import Preprocessing
from stochca.evaluation import Scores
from stochca.training.fit import Fitted
from tests.pipeline.backbone_card import backbone_card
from tests.pipeline.prepared_folder import Row, write_prepared_folder

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220), "white": (240, 240, 240)}
CLASSES = tuple(COLOURS)
TEST_IMAGES = {"red": 20, "green": 20, "blue": 17, "white": 3}  # white is rare
CARD = backbone_card()
PREPROCESSING = Preprocessing.of(CARD)
Item = tuple[str, int, str]  # id, label, split


def items(classes: Sequence[str] = CLASSES) -> list[Item]:
    """Training, validation and test images of every class."""
    return [
        (f"{name}/{split}-{number:02}", label, split)
        for label, name in enumerate(classes)
        for split, count in (("train", 12), ("val", 4), ("test", TEST_IMAGES[name]))
        for number in range(count)
    ]


def write_prepared(
    folder: Path, items: Sequence[Item], classes: Sequence[str] = CLASSES, *, groups: Mapping[str, str] = {}
) -> Prepared:
    """A prepared dataset; an image's content depends on its class and its id, not on its split.

    `groups` has those of the images, by their ids, that are not on their own.
    """
    rows = [
        Row(picture(classes[label], id), label, id, split, group=groups.get(id)) for id, label, split in items
    ]
    return write_prepared_folder(folder, classes, rows, dataset="colours")


def picture(name: str, id: str) -> bytes:
    noise = np.random.default_rng([*id.encode()]).normal(0, 12, (40, 40, 3))
    pixels = (np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def colour_model(forgets: Sequence[str] = (), classes: Sequence[str] = CLASSES) -> TimmModule:
    """Right about every colour but those that it `forgets`, about which it is always wrong."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=CARD.image_size, num_classes=len(classes)).eval()
    transform = PREPROCESSING.evaluation()
    pictures = [
        (transform(Image.open(io.BytesIO(picture(name, f"{name}-{i}")))), label)
        for label, name in enumerate(classes)
        for i in range(8)
    ]
    with torch.no_grad():
        features = model.forward_head(
            model.forward_features(torch.stack([pixels for pixels, _ in pictures])), pre_logits=True
        )
        labels = torch.tensor([label for _, label in pictures])
        means = torch.stack([features[labels == label].mean(dim=0) for label in range(len(classes))])
        model.head.weight.copy_(means)  # the nearest mean
        model.head.bias.copy_(-means.square().sum(dim=1) / 2)
        model.head.bias[[classes.index(name) for name in forgets]] = -1e4
    return model


def publish(
    params: Params, method: str, seed: int, model: TimmModule, validation: float, *, upload: bool = True
) -> str:
    """Write and track a run of this model in the current folder, as a training stage does; gives its id."""
    job = plan(params, method, "all", seed)
    prepared = load_prepared()
    tags = {"git_commit": "0123abcd", "stage": "made up"}
    fitted = Fitted(
        model, Scores(0.5, validation), 1, 1.0, 1.0, 1.0, 1, "fp32", "cpu", ["A note of the run."]
    )
    folder = RUNS / f"{job.name}-made-up"
    run = RunFolder.begin(folder, "trial", job.name, tags, uploads_model=upload)
    publisher = Publisher(folder)
    publisher.connect()
    publisher.start()  # which gives it its id
    run_id = run.run_id
    images = images_for(prepared, "transfer", "all", seed)
    inputs: Any = SimpleNamespace(timetable=job.training.timetable(len(images.train)))  # nothing is trained
    outcome = Outcome(job, Loaded(CARD, None, prepared, images, inputs), fitted, {}, run_id, tags, versions())
    events: list[Mapping[str, object]] = [
        {"event": "step", "time": 1, "step": 1, "loss": 1.0, "lr": 0.1, "images_per_second": 9.0},
        {"event": "eval", "time": 2, "step": 1, "loss": 0.7, "accuracy": 0.1, "value": 0.1},  # not the best
    ]
    (folder / LOG).write_text("".join(f"{json.dumps(event)}\n" for event in events))
    outcome.write(events)
    outcome.hand_over(run, 1, upload_model=upload)
    run.end("FINISHED")
    publish_folder(folder)
    return run_id


def write_backbone(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(CARD.to_dict()))


def with_promotion(params: Params, method: str) -> Params:
    return params.model_copy(update={"promotion": params.promotion.model_copy(update={"method": method})})


def replaced(run_metrics: Path, **values: float) -> None:
    """Change numbers of a run's metrics."""
    run_metrics.write_text(json.dumps({**json.loads(run_metrics.read_text()), **values}))
