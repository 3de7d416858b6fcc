"""The stages one after the other, in one process; tests/e2e/test_language.py runs them as DVC does."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM

from examples.language import backbone, compare, prepare, pretune, train, untuned
from examples.language.paths import DECODERS, MODELS, OUTCOME, PRETUNED, REPORTS, RESULTS
from examples.language.settings import load_settings
from examples.language.training.fitting import BEGUN
from pipeline.runtime.exclusive import exclusive
from pipeline.training.interrupted import DECIDES
from stochca.errors import UserError
from stochca.language import TOAST
from tests.examples.language.workspace import make_workspace, params, write_params


@pytest.mark.slow
def test_the_stages_end_with_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = params()
    raw["compare"].update(methods=["finetune", "toast_lite"], seeds=[3])
    monkeypatch.chdir(make_workspace(tmp_path, raw))
    settings = load_settings()
    for stage in (backbone, prepare, pretune, untuned):
        stage.main()
    with exclusive("language-finetune-3"), pytest.raises(UserError, match="another process is at work"):
        train.train("finetune", 3, settings)
    interrupted = Path(f"work/runs/language-finetune-3-{'0' * 16}")  # of other settings
    (interrupted / BEGUN.replace("*", "3")).mkdir(parents=True)
    (interrupted / DECIDES).write_text("{}")
    for name in settings.compare.methods:
        train.train(name, 3, settings)
    assert "finetune-3: starts over: since it was interrupted, " in capsys.readouterr().out
    shutil.rmtree(interrupted)
    compare.main()
    page = (REPORTS / "index.html").read_text()
    for name in (*settings.compare.methods, "untuned"):
        assert name in page
    outcome = json.loads((RESULTS / "toast_lite-3" / OUTCOME).read_text())
    assert len(outcome["losses"]) == settings.training.steps
    assert outcome["numbers"]["trainable_parameters"] > 0
    # One file, which fetches nothing; with the picture of what the second pass attends to.
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert page.count("data:image/png;base64,") == 1
    table = pd.read_csv(REPORTS / "comparison.csv")
    assert set(table["method"]) == {"finetune", "toast_lite", "untuned"}
    card = TOAST.from_pretrained(AutoModelForCausalLM.from_pretrained("tiny"), MODELS / "toast_lite-3")
    assert card.rank == 4
    # MLflow has every run, and nothing waits for it.
    (experiment,) = (each for each in MlflowClient().search_experiments() if each.name == "stochca-language")
    runs = MlflowClient().search_runs([experiment.experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == dict.fromkeys(
        ("finetune-3", "toast_lite-3", "pretune", "comparison"), "FINISHED"
    )
    (own,) = (run for run in runs if run.info.run_name == "finetune-3")
    history = MlflowClient().get_metric_history(own.info.run_id, "train_loss")
    assert [point.step for point in history] == list(range(1, settings.training.steps + 1))
    assert list(Path("work/runs").iterdir()) == []

    decoders = (PRETUNED / DECODERS).read_bytes()
    (PRETUNED / DECODERS).write_bytes(b"others")
    with pytest.raises(UserError, match=r"^finetune-3 was run with decoders [0-9a-f]{64}, but now it is "):
        compare.main()
    (PRETUNED / DECODERS).write_bytes(decoders)

    # What is edited while a stage works is not recorded for what it has worked with.
    for stage, last, key in ((compare, "why_it_waits", "answers"), (untuned, "write_json", "new_tokens")):

        def edit(*_: Any, key: str = key) -> None:
            raw["compare"][key] += 1
            write_params(Path(), raw)

        monkeypatch.setattr(stage, last, edit)
        with pytest.raises(
            UserError, match=r"params\.yaml was changed while the stage (untuned|compare) was"
        ):
            stage.main()


def test_a_method_that_is_not_defined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_workspace(tmp_path))
    with pytest.raises(UserError, match="no method 'lorra'; defined are finetune, lora"):
        train.train("lorra", 0, load_settings())
