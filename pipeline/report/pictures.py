"""The pictures inside the page: test images on which two methods disagree, and what `analyse` has drawn."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline.images.prepared import PreparedImages
from pipeline.report.results import Run
from pipeline.runtime.paths import BLOCKS

SIDE = 112  # pixels; larger pictures are scaled down
LIMIT = 24


@dataclass(frozen=True)
class Answer:
    """What a method said about an image."""

    method: str
    class_name: str
    confidence: float
    right: bool


@dataclass(frozen=True)
class Picture:
    """A test image."""

    id: str
    true_class: str
    data_url: str
    width: int
    height: int
    answers: tuple[Answer, Answer]


@dataclass(frozen=True)
class Analysed:
    """What the stage `analyse` has drawn of one method."""

    method: str
    blocks: str  # data URL
    attention: str | None  # likewise; None where the model has no attention maps


@dataclass(frozen=True)
class Gallery:
    """Where `first` and `second` disagree: how often, and some of the pictures."""

    first: str
    second: str
    seed: int
    test_images: int
    only_first_right: int
    only_second_right: int
    both_wrong: int
    pictures: list[Picture]

    @property
    def total(self) -> int:
        return self.only_first_right + self.only_second_right + self.both_wrong


def disagreements(first: Run, second: Run, images: PreparedImages, limit: int = LIMIT) -> Gallery:
    """Compare two runs on the same images, which are among `images`.

    The surest disagreements of each kind are shown, taking turns.
    """
    both = first.predictions.merge(second.predictions, on=["id", "label"], suffixes=("_first", "_second"))
    both = both[both["prediction_first"] != both["prediction_second"]]
    rights = [both["label"] == both[f"prediction_{which}"] for which in ("first", "second")]
    both = both.assign(
        kind=np.select(rights, [0, 1], 2),  # the first alone is right, the second alone, neither
        sureness=both["confidence_first"] + both["confidence_second"],
    )
    both = both.sort_values(["sureness", "id"], ascending=[False, True])
    both = both.assign(turn=both.groupby("kind").cumcount()).sort_values(["turn", "kind"])
    disputed = set(both["id"])
    places = {id: place for place, id in enumerate(images.ids) if id in disputed}
    pictures: dict[str, Picture] = {}  # the same picture under several names is shown once
    row: Any
    for row in both.itertuples():
        picture = _picture(row, first, second, images[places[row.id]][0])
        pictures.setdefault(picture.data_url, picture)
        if len(pictures) == limit:
            break
    only_first, only_second, neither = (int((both["kind"] == kind).sum()) for kind in range(3))
    return Gallery(
        first=first.method,
        second=second.method,
        seed=first.seed,
        test_images=len(first.predictions),
        only_first_right=only_first,
        only_second_right=only_second,
        both_wrong=neither,
        pictures=list(pictures.values()),
    )


def _picture(row: Any, first: Run, second: Run, image: Image.Image) -> Picture:
    """Of a row of `disagreements`."""
    image.thumbnail((SIDE, SIDE))
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", quality=85)

    def answer(run: Run, prediction: int, confidence: float) -> Answer:
        return Answer(run.method, run.classes[prediction], confidence, prediction == row.label)

    return Picture(
        row.id,
        first.classes[row.label],
        _data_url("webp", encoded.getvalue()),
        image.width,
        image.height,
        (
            answer(first, row.prediction_first, row.confidence_first),
            answer(second, row.prediction_second, row.confidence_second),
        ),
    )


def read_analysed(methods: Sequence[str]) -> list[Analysed]:
    """Those of `methods` that have been analysed, in this order."""

    def drawn(method: str, name: str) -> str | None:
        path = BLOCKS / method / name
        return _data_url("png", path.read_bytes()) if path.exists() else None

    return [
        Analysed(method, blocks, drawn(method, "attention.png"))
        for method in methods
        if (blocks := drawn(method, "blocks.png")) is not None
    ]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
