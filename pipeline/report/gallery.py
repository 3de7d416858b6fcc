"""The test images on which two methods disagree, as small pictures inside the page."""

import base64
import io
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pandas as pd
from PIL import Image

from pipeline.images.prepared import PreparedImages
from pipeline.report.results import Run

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
    id: str
    true_class: str
    data_url: str
    width: int
    height: int
    answers: tuple[Answer, Answer]


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
    sureness = both["confidence_first"] + both["confidence_second"]
    both = both.assign(sureness=sureness).sort_values(["sureness", "id"], ascending=[False, True])
    first_right = both["label"] == both["prediction_first"]
    second_right = both["label"] == both["prediction_second"]
    only_first, only_second = both[first_right], both[second_right]
    neither = both[~first_right & ~second_right]
    disputed = set(both["id"])
    places = {id: place for place, id in enumerate(images.ids) if id in disputed}
    pictures: dict[str, Picture] = {}  # the same picture under several names is shown once
    for row in _taking_turns([only_first, only_second, neither]):
        picture = _picture(row, first, second, images[places[row["id"]]][0])
        pictures.setdefault(picture.data_url, picture)
        if len(pictures) == limit:
            break
    return Gallery(
        first=first.method,
        second=second.method,
        seed=first.seed,
        test_images=len(first.predictions),
        only_first_right=len(only_first),
        only_second_right=len(only_second),
        both_wrong=len(neither),
        pictures=list(pictures.values()),
    )


def _taking_turns(tables: Sequence[pd.DataFrame]) -> Iterator[Mapping[Hashable, Any]]:
    for rows in zip_longest(*(table.itertuples(index=False, name=None) for table in tables)):
        for table, row in zip(tables, rows, strict=True):
            if row is not None:
                yield dict(zip(table.columns, row, strict=True))


def _picture(row: Mapping[Hashable, Any], first: Run, second: Run, image: Image.Image) -> Picture:
    image.thumbnail((SIDE, SIDE))
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", quality=85)
    answers = [
        Answer(
            run.method,
            run.classes[row[f"prediction_{which}"]],
            row[f"confidence_{which}"],
            row[f"prediction_{which}"] == row["label"],
        )
        for run, which in ((first, "first"), (second, "second"))
    ]
    return Picture(
        row["id"],
        first.classes[row["label"]],
        f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}",
        image.width,
        image.height,
        (answers[0], answers[1]),
    )
