"""Whatever a folder may be called can be a class: it passes through every picture, table and page."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.compare import compare
from pipeline.config.params import load_params
from pipeline.tracking.pictures import confusion_matrix, draw
from tests.pipeline.synthetic_runs import write_inputs

NAMES = (
    "$5_to_$10", "$", "\\frac{a}{b} & c % # ~ ^ {", "<script>alert('x')</script>", "&amp; \"quoted\"",
    "a|b|c", "*bold* _it_ `code` [link](x)", "写真", "café 🐝", "-rf", "=1+1", "x" * 200, "{{ 7 * 7 }}",
    "%s %d", "None",
)  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path, classes=NAMES, test_images=150)
    return tmp_path


def test_a_picture_shows_each_name_as_it_is_written(tmp_path: Path) -> None:
    labels = np.arange(len(NAMES))
    figure = confusion_matrix(labels, labels, NAMES)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(NAMES)
    figure.savefig(tmp_path / "matrix.png")
    assert Image.open(tmp_path / "matrix.png").size[0] > 400


def test_the_pictures_of_a_training(project: Path) -> None:
    results = project / "results" / "finetune-all-0"
    draw(results, project / "pictures")
    for name in ("curves.png", "confusion_matrix.png"):
        assert Image.open(project / "pictures" / name).size[0] > 400


def test_the_page_and_the_tables(project: Path) -> None:
    compare(load_params())
    page = (project / "reports" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    for name in ("$5_to_$10", "写真", "café 🐝", "{{ 7 * 7 }}", "x" * 200):
        assert name in page
