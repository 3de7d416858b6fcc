"""What a method took for what, on made-up runs."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.report.confusion import Confusion
from pipeline.report.results import read_runs
from tests.pipeline.synthetic_runs import write_inputs


def test_every_image_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = read_runs(write_inputs(tmp_path).protocol)[0]
    confusion = Confusion.of(run)
    assert confusion.counts.sum() == 60
    assert np.trace(confusion.counts) == run.correct.sum()
    assert confusion.counts.sum(axis=1).tolist() == np.bincount(run.predictions["label"]).tolist()
    first = confusion.mistakes[0]
    actual, predicted = run.classes.index(first.actual), run.classes.index(first.predicted)
    wrong = confusion.counts - np.diag(np.diag(confusion.counts))
    assert wrong[actual, predicted] == wrong.max() == first.images
