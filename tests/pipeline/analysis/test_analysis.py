"""A trained model beside its backbone, with a real MLflow database."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure
from mlflow.tracking import MlflowClient
from PIL import Image
from safetensors.torch import save_file

from pipeline.analysis import pictures
from pipeline.analysis.analysis import analyse_model
from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone
from pipeline.tracking.server import connect
from pipeline.training.saved_model import load_trained, save_trained
from stochca._typing import TimmModule
from stochca.backbones.loading import load_backbone
from stochca.errors import UserError
from tests.pipeline.small_model import picture
from tests.pipeline.synthetic_runs import write_prepared

MODEL = Path("models/stochca-all-0")
CLASSES = ["a", "b"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, new_database: Path) -> Path:
    """A project's folder: a backbone, a model whose second block moved by half, 12 test images, its run."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(new_database, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        torch.manual_seed(0)
        save_file(timm.create_model("test_vit", num_classes=0).state_dict(), "weights.safetensors")
        source = Backbone(name="test_vit", weights="file:weights.safetensors")
        card = make_backbone(source, 64, Path("data/backbone"))
        labels = np.arange(12) % 2
        write_prepared(Path("data/prepared"), CLASSES, [f"{i}" for i in range(12)], labels)
        connect("trial")
        mlflow.set_experiment("trial")
        with mlflow.start_run() as run:
            run_id = run.info.run_id
        student = moved(load_backbone(Path("data/backbone"), num_classes=2))
        MODEL.mkdir(parents=True)
        save_trained(
            MODEL, student, card, name=MODEL.name, method="stochca", classes=CLASSES, mlflow_run_id=run_id
        )
        results = Path("results") / MODEL.name / "run.json"
        results.parent.mkdir(parents=True)
        crossed = [0.0] + [0.25] * (card.blocks - 1)
        results.write_text(json.dumps({"mlflow_run_id": run_id, "cross_attended": crossed}))
    return folder


def analyse(images: Sequence[Path] = (), **options: Any) -> list[str]:
    return list(analyse_model(load_trained(MODEL), Path("reports/analysis") / MODEL.name, images, **options))


def moved(student: TimmModule) -> TimmModule:
    with torch.no_grad():
        for parameter in student.blocks[1].parameters():
            parameter.mul_(1.5)
    return student


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_what_is_found_is_what_was_done_to_the_model() -> None:
    lines = analyse()
    target = Path("reports/analysis") / MODEL.name
    found = json.loads((target / "analysis.json").read_text())
    assert found["weight_distance"][:2] == pytest.approx([0, 0.5])
    assert found["weight_distance"][2:] == pytest.approx([0] * (len(found["weight_distance"]) - 2))
    assert found["cka_class_token"][0] == pytest.approx(1)
    assert found["cka_patches"][0] == pytest.approx(1)
    assert max(found["cka_patches"][1:]) < 1 - 1e-6
    assert found["cross_attended"][:2] == [0.0, 0.25]
    assert (found["images"], found["shown"], found["attention_maps"]) == (12, ["0", "3", "6", "9"], None)
    assert len(lines) == 1 + len(found["weight_distance"]) + 2
    assert "50.00%" in lines[2]
    for name, rows in (("blocks.png", 1), ("attention.png", 8)):
        with Image.open(target / name) as image:
            assert image.format == "PNG"
            assert image.height > 100 * rows
            assert len(set(image.convert("RGB").resize((200, 200)).getdata())) > 50  # something is drawn


def test_without_a_class_token_nothing_is_said_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model with a register and the mean of its patches; no server is told."""
    wheres: list[str] = []
    attention = pictures.attention

    def drawn(*arguments: Any) -> Figure:
        figure = attention(*arguments)
        wheres.append(figure.get_suptitle())
        return figure

    monkeypatch.setattr(pictures, "attention", drawn)
    monkeypatch.setattr(pictures, "MOST_BLOCKS", 1)  # each costs time
    monkeypatch.setattr("pipeline.analysis.analysis.BACKBONE", tmp_path / "backbone")
    monkeypatch.setattr("pipeline.analysis.analysis._tell_mlflow", lambda *arguments: "")
    save_file(timm.create_model("test_vit2", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    source = Backbone(name="test_vit2", weights=f"file:{tmp_path / 'w.safetensors'}")
    card = make_backbone(source, 64, tmp_path / "backbone")
    student = load_backbone(tmp_path / "backbone", num_classes=2)
    (tmp_path / "model").mkdir()
    save_trained(
        tmp_path / "model", student, card, name="m", method="finetune", classes=CLASSES, mlflow_run_id="none"
    )
    lines = list(analyse_model(load_trained(tmp_path / "model"), tmp_path / "out", compared=4, shown=1))
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert (found["cka_class_token"], len(found["cka_patches"])) == ([], card.blocks)
    assert lines[0] == "block  CKA patches  weights moved"
    assert wheres == ["Attention of all patches, on average"]
    (features, _) = pictures.blocks(found).axes
    legend = features.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["mean of the patches"]


def test_the_run_in_mlflow_has_it() -> None:
    *_, line = analyse(shown=1)
    run_id = json.loads((MODEL / "model.json").read_text())["mlflow_run_id"]
    assert line == f"logged with the MLflow run {run_id}, under analysis/"
    logged = {Path(file.path).name for file in MlflowClient().list_artifacts(run_id, "analysis")}
    assert logged == {"analysis.json", "attention.png", "blocks.png"}


def test_a_run_that_mlflow_lacks_is_named(
    new_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a model that was trained elsewhere; its pictures wait for the server that has the run."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(new_database, tmp_path)}")
    *_, line = analyse(shown=1)
    run_id = json.loads((MODEL / "model.json").read_text())["mlflow_run_id"]
    assert line == (
        f"not logged with MLflow: MLflow has no run {run_id} here; set MLFLOW_TRACKING_URI to the server "
        "that the model was tracked with; for that run: stochca sync"
    )


def test_own_images_are_shown(tmp_path: Path) -> None:
    picture(90, 70).save(tmp_path / "x.png")
    analyse([tmp_path])
    found = json.loads((Path("reports/analysis") / MODEL.name / "analysis.json").read_text())
    assert found["shown"] == [str(tmp_path / "x.png")]
    (tmp_path / "y.png").write_text("no image")
    with pytest.raises(UserError, match=r"y.png can't be used"):
        analyse([tmp_path])


def test_another_backbone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "other.safetensors")
    source = Backbone(name="test_vit", weights=f"file:{tmp_path / 'other.safetensors'}")
    make_backbone(source, 64, tmp_path / "backbone")
    monkeypatch.setattr("pipeline.analysis.analysis.BACKBONE", tmp_path / "backbone")
    with pytest.raises(UserError, match=r"stochca-all-0 was trained from test_vit .*run: dvc repro backbone"):
        analyse()
