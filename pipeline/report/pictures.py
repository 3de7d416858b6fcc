"""The pictures inside the page: test images on which two methods disagree, and what `analyse` has drawn."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.images.prepared import PreparedImages
from pipeline.report.results import Run
from pipeline.runtime.paths import BLOCKS

SIDE = 112  # pixels; larger pictures are scaled down
LIMIT = 24


def disagreements(first: Run, second: Run, images: PreparedImages, limit: int = LIMIT) -> dict[str, Any]:
    """Where two runs on the same images, which are among `images`, disagree: how often, and some pictures.

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
    pictures: dict[str, dict[str, Any]] = {}  # the same picture under several names is shown once
    row: Any
    for row in both.itertuples():
        image, _ = images[places[row.id]]
        image.thumbnail((SIDE, SIDE))
        encoded = io.BytesIO()
        image.save(encoded, "WEBP", quality=85)
        url = _data_url("webp", encoded.getvalue())
        answers = (
            (first.method, row.prediction_first, row.confidence_first),
            (second.method, row.prediction_second, row.confidence_second),
        )
        picture = {
            "id": row.id,
            "true_class": first.classes[row.label],
            "data_url": url,
            "width": image.width,
            "height": image.height,
            "answers": [
                {
                    "method": method,
                    "class_name": first.classes[prediction],
                    "confidence": confidence,
                    "right": prediction == row.label,
                }
                for method, prediction, confidence in answers
            ],
        }
        pictures.setdefault(url, picture)
        if len(pictures) == limit:
            break
    only_first, only_second, neither = (int((both["kind"] == kind).sum()) for kind in range(3))
    return {
        "first": first.method,
        "second": second.method,
        "seed": first.seed,
        "test_images": len(first.predictions),
        "total": len(both),
        "only_first_right": only_first,
        "only_second_right": only_second,
        "both_wrong": neither,
        "pictures": list(pictures.values()),
    }


def read_analysed(methods: Sequence[str]) -> list[dict[str, str | None]]:
    """What the stage `analyse` has drawn of those of `methods` that it was run for, in this order: data URLs.

    `attention` is None where the model has no attention maps.
    """

    def drawn(method: str, name: str) -> str | None:
        path = BLOCKS / method / name
        return _data_url("png", path.read_bytes()) if path.exists() else None

    return [
        {"method": method, "blocks": blocks, "attention": drawn(method, "attention.png")}
        for method in methods
        if (blocks := drawn(method, "blocks.png")) is not None
    ]


def _data_url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
