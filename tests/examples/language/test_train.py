"""The stages one after the other, in a process, but for DVC: tests/e2e/test_language.py has that."""

import json
from pathlib import Path

import pytest

from examples.language import backbone, compare, prepare, pretune, train, untuned
from examples.language.paths import OUTCOME, REPORTS, RESULTS
from examples.language.settings import load_settings
from stochca.errors import UserError
from tests.examples.language.workspace import make_workspace


def test_the_stages_end_with_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_workspace(tmp_path))
    settings = load_settings()
    for stage in (backbone, prepare, pretune, untuned):
        stage.main()
    for name in settings.compare.methods:
        for seed in settings.compare.seeds:
            train.train(name, seed, settings)
    compare.main()
    page = (REPORTS / "index.html").read_text()
    for name in (*settings.compare.methods, "untuned"):
        assert name in page
    outcome = json.loads((RESULTS / "toast-0" / OUTCOME).read_text())
    print(page[:10])
    assert len(outcome["losses"]) == settings.training.steps


def test_a_method_that_is_not_defined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_workspace(tmp_path))
    with pytest.raises(UserError, match="no method 'lorra'; defined are finetune, lora"):
        train.train("lorra", 0, load_settings())
