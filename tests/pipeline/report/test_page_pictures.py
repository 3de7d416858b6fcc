"""The test images on which two methods disagree."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.config.params import Params
from pipeline.images.prepared import load_prepared
from pipeline.report.page import disagreements
from pipeline.report.results import Run, read_runs
from tests.pipeline.synthetic_runs import write_inputs


def test_the_gallery_counts_and_shows_disagreements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = write_inputs(tmp_path, test_images=120)
    first, second = runs_of(params, "stochca", "finetune")
    images = load_prepared().images("test")
    gallery = disagreements(first, second, images, limit=10)
    a, b = (run.predictions.set_index("id") for run in (first, second))
    truth = a["label"]
    differ = a["prediction"] != b["prediction"]
    assert gallery["total"] == differ.sum() > 10
    assert gallery["only_first_right"] == (differ & (a["prediction"] == truth)).sum()
    assert gallery["only_second_right"] == (differ & (b["prediction"] == truth)).sum()
    assert len(gallery["pictures"]) == 10
    assert len({picture["id"] for picture in gallery["pictures"]}) == 10
    kinds = {
        (picture["answers"][0]["right"], picture["answers"][1]["right"]) for picture in gallery["pictures"]
    }
    assert kinds == {(True, False), (False, True), (False, False)}
    for picture in gallery["pictures"]:
        assert picture["true_class"] == first.classes[truth[picture["id"]]]
        assert picture["answers"][0]["class_name"] == first.classes[a["prediction"].to_dict()[picture["id"]]]
        assert picture["answers"][1]["class_name"] == second.classes[b["prediction"].to_dict()[picture["id"]]]
        shown = Image.open(io.BytesIO(base64.b64decode(picture["data_url"].split(",")[1])))
        original = images[images.ids.index(picture["id"])][0]
        assert shown.size == original.size
        distance = sum(
            abs(p - q)
            for p, q in zip(shown.convert("L").tobytes(), original.convert("L").tobytes(), strict=True)
        )
        assert distance / (48 * 48) < 12  # the same picture, but for compression


def runs_of(params: Params, *methods: str) -> list[Run]:
    runs = {run.method: run for run in read_runs(params.protocol)}
    return [runs[method] for method in methods]


def test_all_shown_when_there_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = runs_of(write_inputs(tmp_path), "stochca", "finetune")
    gallery = disagreements(first, second, load_prepared().images("test"), limit=1000)
    assert len(gallery["pictures"]) == gallery["total"]
    assert disagreements(first, first, load_prepared().images("test"))["total"] == 0


def test_one_picture_under_many_names_is_shown_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = runs_of(write_inputs(tmp_path), "stochca", "finetune")

    class Same:
        ids = load_prepared().images("test").ids

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return Image.new("RGB", (20, 20), "red"), 0

    images: Any = Same()
    gallery = disagreements(first, second, images)
    assert len(gallery["pictures"]) == 1
    assert gallery["total"] > 1
