import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image
from scipy import stats
from sklearn import metrics

from pipeline.commands.export import export_model
from pipeline.config.params import load_params
from pipeline.report.documents import in_code
from pipeline.report.model_card import model_card, run_of
from pipeline.runtime.files import write_json
from pipeline.training.saved_model import TrainedModel, load_trained
from stochca.config import Method, StochasticCrossAttention, Swa
from stochca.errors import UserError
from tests.imports import ROOT
from tests.pipeline.backbone_card import backbone_card
from tests.pipeline.small_model import CLASSES, picture, save_small_model
from tests.pipeline.synthetic_runs import write_prepared

NAME = "stochca-all-0"


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainedModel:
    """A model whose run left its results, in the working folder."""
    monkeypatch.chdir(tmp_path)
    save_small_model(Path("models", NAME))
    write_results(Path("results", NAME))
    return load_trained(Path("models", NAME))


def write_results(folder: Path, **changes: Any) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, len(CLASSES), 50)
    probabilities = random.dirichlet(np.ones(len(CLASSES)), 50)
    probabilities[np.arange(50), labels] += 0.4
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    params = load_params(ROOT / "params.yaml")
    folder.mkdir(parents=True)
    columns = {"label": labels, "prediction": probabilities.argmax(axis=1)}
    pd.DataFrame({**columns, "probabilities": list(probabilities)}).to_parquet(folder / "predictions.parquet")
    description = {
        "mlflow_run_id": "none",
        "config": dataclasses.asdict(params.methods["stochca"]),
        "training": dataclasses.asdict(params.training),
        "selection": "macro_f1",
        "protocol": "transfer",
        "refit": False,
        "selected_step": 160,
        "teacher": None,
        "target": "all",
        "seed": 7,
        "notes": ["the head was fitted first"],
        "precision": "bf16",
        "device": "a device",
        "git_commit": "0123",
        "dataset": {
            "name": "image_folder",
            "fingerprint": "5e" * 32,
            "domains": ["photo"],
            "images": {"train": 1_200, "val": 30, "test": 50},
        },
    }
    write_json(folder / "run.json", {**description, **changes})


def card_of(trained: TrainedModel) -> str:
    return model_card(trained, run_of(trained))


def head(card: str) -> Any:
    """As the hub reads it."""
    return ModelCard(card).data


def row(card: str, metric: str) -> list[float]:
    """The numbers of a line of the table."""
    (line,) = re.findall(rf"^\| {metric} \|(.*)\|$", card, re.MULTILINE)
    return [float(number) for number in re.findall(r"[\d.]+", line)]


def test_scores_are_those_of_the_predictions(trained: TrainedModel) -> None:
    card = card_of(trained)
    table = pd.read_parquet(Path("results", NAME, "predictions.parquet"))
    labels, predicted = table["label"], table["prediction"]
    probabilities = np.stack(table["probabilities"].tolist())
    expected = {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "macro-F1": metrics.f1_score(labels, predicted, average="macro"),
        "log loss": metrics.log_loss(labels, probabilities),
        "AUROC": metrics.roc_auc_score(labels, probabilities, multi_class="ovr"),
    }
    read = {result.metric_name: result for result in head(card).eval_results}
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        assert read[name].metric_value == pytest.approx(value, abs=1e-4)
        assert (read[name].dataset_name, read[name].dataset_split) == ("image_folder", "test")
        shown, low, high = row(card, name)
        assert shown == pytest.approx(value if name == "log loss" else 100 * value, abs=0.051)
        assert low < shown < high
    # Two right and two wrong images more, and Student's t.
    right = np.concatenate([labels == predicted, [1, 1, 0, 0]]).astype(float)
    margin = stats.t.ppf(0.975, len(right) - 1) * right.std(ddof=1) / len(right) ** 0.5
    ends = [100 * (right.mean() - margin), 100 * (right.mean() + margin)]
    assert row(card, "accuracy")[1:] == pytest.approx(ends, abs=0.051)


def test_what_it_tells_of_the_run(trained: TrainedModel) -> None:
    card = card_of(trained)
    for told in (
        "This model tells 3 classes of images apart.",
        "1,200 for training, 30 for validation, 50 for the test",
        "by macro f1 on the validation images",
        "the head was fitted first",
        "seed 7, bf16 on a device, commit 0123",
        "stochastic cross-attention to its pretrained self (",
    ):
        assert told in card
    settings = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)[0])
    description = json.loads(Path("results", NAME, "run.json").read_text())
    assert settings["training"] == description["training"]
    assert settings["method"]["attention"] == description["config"]["attention"]
    assert "Origin of the images" not in card
    description["config"]["attention"]["prob"] = [0.0, 0.0]  # which a search may find
    write_json(Path("results", NAME, "run.json"), description)
    assert "stochastic cross-attention to" not in card_of(trained)


def test_images_are_attributed_where_they_are_those_of_the_run(trained: TrainedModel) -> None:
    write_prepared(Path("data", "prepared"), CLASSES, ["a"], np.array([0]))
    assert "CC0: Drawn by a test." in card_of(trained)
    trained.card["mlflow_run_id"] = "another"
    write_results(Path("results", "other"), mlflow_run_id="another", dataset={
        "name": "x", "fingerprint": "aa", "domains": [], "images": {"train": 1, "val": 0, "test": 50}
    })  # fmt: skip
    trained.card["name"] = "other"
    card = card_of(trained)
    assert "Drawn by a test" not in card
    assert "none, there were no validation images" in card


def test_validation_images_that_were_trained_on_chose_nothing(trained: TrainedModel) -> None:
    trained.card["name"] = "refit"
    write_results(Path("results", "refit"), refit=True)
    card = card_of(trained)
    assert "1,200 for training, 30 for validation, then for training too, 50 for the test" in card
    assert "**Choice of the weights**: none, they are those of the last step" in card
    assert "by macro f1 on the validation images" not in card


def test_an_average_and_another_teacher_are_told(trained: TrainedModel) -> None:
    trained.card["name"] = "stochca+swa"
    method = Method(attention=StochasticCrossAttention(teacher="dino", blocks=(0,)), average=Swa())
    teacher = backbone_card(
        architecture="vit_small_patch14_dinov2", source="file:/home/someone/dino.pth", license="CC BY-NC 4.0"
    ).to_dict()
    changes = {"config": dataclasses.asdict(method), "selected_step": None, "teacher": teacher}
    write_results(Path("results", "stochca+swa"), **changes)
    card = card_of(trained)
    assert "**Choice of the weights**: they are the average of several, as `average` in the settings" in card
    assert (
        yaml.safe_load(re.findall(r"```yaml\n(.*?)```", card, re.DOTALL)[0])["method"]["average"]["name"]
        == "swa"
    )
    assert "on the validation images" not in card
    assert "cross-attention to another frozen model, `vit_small_patch14_dinov2` (" in card
    assert "`vit_small_patch14_dinov2` from `file:dino.pth`, license CC BY-NC 4.0." in card
    assert "someone" not in card.split("## Settings")[0]


def test_a_held_out_domain_is_named(trained: TrainedModel) -> None:
    trained.card["name"] = "finetune-sketch-0"
    write_results(Path("results", "finetune-sketch-0"), protocol="leave_one_domain_out", target="sketch")
    assert "The test images are the domain `sketch`, of which training saw nothing." in card_of(trained)


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("MIT", ("mit", None)),
        (None, ("unknown", None)),
        ("Our License, 2nd", ("other", "our-license-2nd")),
        ("dinov3-license", ("other", "dinov3-license")),
    ],
)
def test_license(trained: TrainedModel, license: str | None, expected: tuple[str, str | None]) -> None:
    trained.card["backbone"]["license"] = license
    card = card_of(trained)
    data = head(card)
    assert (data.license, data.get("license_name")) == expected
    assert f"license {license or 'unknown'}." in card


def test_the_origin_of_the_weights(trained: TrainedModel) -> None:
    trained.card["backbone"]["source"] = "file:/home/someone/secret/weights.pth"
    card = card_of(trained)
    assert "`file:weights.pth`" in card
    assert "someone" not in card
    assert "base_model" not in card
    trained.card["backbone"]["source"] = "hub:timm/vit_base_patch16_224.augreg_in21k"
    assert head(card_of(trained)).base_model == "timm/vit_base_patch16_224.augreg_in21k"


def test_what_it_says_to_do_works(
    trained: TrainedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = export_model(Path("models", NAME), "timm", tmp_path / "for the hub")
    assert sentence.endswith(f"share it with: hf upload USER/NAME '{tmp_path / 'for the hub'}'")
    assert "no scores" not in sentence
    card = Path("for the hub", "README.md").read_text(encoding="utf-8")
    assert card == card_of(trained)
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    picture(50, 40).save("photo.jpg", quality=95)
    exec(code.replace("hf-hub:USER/NAME", "local-dir:for the hub"), {})
    image = trained.preprocessing.evaluation()(Image.open("photo.jpg").convert("RGB"))
    with torch.inference_mode():
        best = trained.model(image[None]).softmax(dim=1)[0].max(dim=0)
    name, probability = capsys.readouterr().out.rsplit(" ", 1)
    assert name == CLASSES[int(best.indices)]
    assert float(re.findall(r"[\d.]+", probability)[0]) == pytest.approx(best.values.item(), abs=1e-3)


def test_without_the_run_it_tells_no_scores(trained: TrainedModel) -> None:
    def exported() -> str:
        sentence = export_model(Path("models", NAME), "timm", None)
        card = Path("models", f"{NAME}-timm", "README.md").read_text(encoding="utf-8")
        data = head(card)
        assert (data.license, data.eval_results) == ("mit", None)
        assert "Unknown: the results of its training run were not at hand" in card
        assert "## Settings" not in card
        return sentence

    folder = Path("results", NAME)
    description = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", {**description, "mlflow_run_id": "later"})
    assert f"README.md tells no scores, because {folder} is of another run than the model; " in exported()
    del description["seed"]
    write_json(folder / "run.json", description)
    assert f"because {folder} is damaged (run.json has no seed); " in exported()
    (folder / "run.json").unlink()
    assert f"because {folder / 'run.json'} can't be read (No such file or directory); " in exported()


def test_damaged_predictions(trained: TrainedModel) -> None:
    Path("results", NAME, "predictions.parquet").write_bytes(b"nothing")
    with pytest.raises(UserError, match=f"results/{NAME} is damaged"):
        run_of(trained)


@pytest.mark.parametrize(
    "text", ["Animals & Nature", "a|b", "**c**", "<b>", "`", "``x", "a ` b `` c", "[x](y)", "1. &amp;"]
)
def test_names_mean_nothing_in_markdown(text: str) -> None:
    inline = MarkdownIt().parseInline(f"one {in_code(text)}, two")[0].children
    assert inline is not None
    assert [(part.type, part.content) for part in inline] == [
        ("text", "one "), ("code_inline", text), ("text", ", two")
    ]  # fmt: skip


def test_grey_levels_are_told(trained: TrainedModel) -> None:
    assert "more than 8 bits" not in card_of(trained)
    trained.card["levels"] = {"black": 0, "white": 4095}
    assert "more than 8 bits" in card_of(trained)
