"""params.yaml of the example: what is wrong in it is one sentence."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.language.paths import PARAMS_FILE
from examples.language.settings import Settings, load_settings, settings_kept
from stochca.errors import UserError
from tests.examples.language.workspace import params, write_params
from tests.imports import ROOT


def test_the_file_as_it_comes() -> None:
    settings = load_settings(ROOT / PARAMS_FILE)
    assert set(settings.compare.methods) == set(settings.methods)
    assert {method.adapt for method in settings.methods.values()} == {"full", "lora", "toast", "stochca"}


def test_what_the_docs_write_for_the_papers_setting() -> None:
    """Put into the file it is valid, and its commands train all that is compared."""
    text = (ROOT / "docs/language.md").read_text()
    (block,) = re.findall(r"```yaml\n(backbone:.*?)```", text, re.DOTALL)
    raw = yaml.safe_load((ROOT / PARAMS_FILE).read_text()) | yaml.safe_load(block)
    compare = Settings.model_validate(raw).compare
    trained = re.findall(r"^CUDA.* -m examples\.language\.train (\w+) (\d+) &", text, re.MULTILINE)
    assert set(trained) == {(name, str(seed)) for name in compare.methods for seed in compare.seeds}


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda raw: raw["data"].update(sistem="x"), "unknown key 'data.sistem'; did you mean 'system'?"),
        (
            lambda raw: raw["methods"]["lora"].update(rnk=2),
            "unknown key 'methods.lora.rnk'; did you mean 'rank'?",
        ),
        (lambda raw: raw["methods"]["lora"].update(adapt="vpt"), "must be one of full, lora, toast, stochca"),
        (lambda raw: raw["training"].pop("steps"), "the key 'training.steps' is missing"),
        (lambda raw: raw["training"].update(batch_size=4, accumulate=3), "accumulate must divide batch_size"),
        (
            lambda raw: raw["backbone"].update(model="smol"),
            "must be wheel:NAME==VERSION, folder:PATH or hub:",
        ),
        (lambda raw: raw["backbone"].update(sha256="ab"), "is that of a wheel, but model is folder:tiny"),
        (lambda raw: raw["data"].update(source="csv"), "must be wheel:chatterbot-corpus==VERSION or jsonl"),
        (lambda raw: raw["compare"].update(reference="vpt"), "compare.reference 'vpt' is not compared"),
        (lambda raw: raw["compare"].update(methods=["vpt"]), "names 'vpt', which methods does not define"),
        (lambda raw: raw["compare"].update(seeds=[0, 0]), "must all differ"),
        (lambda raw: raw["pretune"].update(decoders="x", steps=3), "pretune.steps must be 0 beside decoders"),
        (lambda raw: raw["methods"].update(untuned={"adapt": "full", "lr": 1}), "rename the method"),
    ],
)
def test_mistakes(edit: Callable[[dict[str, Any]], Any], sentence: str, tmp_path: Path) -> None:
    raw = params()
    edit(raw)
    write_params(tmp_path, raw)
    with pytest.raises(UserError) as error:
        load_settings(tmp_path / PARAMS_FILE)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_that_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, raw := params())
    settings = load_settings()
    with settings_kept(settings, lambda now: now.data, "the stage prepare"):
        raw["training"]["steps"] = 3
        write_params(tmp_path, raw)  # of another stage
    raw["data"]["test"] = 0.5
    with (
        pytest.raises(UserError, match="changed while the stage prepare was under way"),
        settings_kept(settings, lambda now: now.data, "the stage prepare"),
    ):
        write_params(tmp_path, raw)
