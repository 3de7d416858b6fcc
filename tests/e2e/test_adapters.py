"""LoRA, VPT and TOAST as their users run them: DVC pre-tunes decoders first, and MLflow serves the models."""

import json
from pathlib import Path

import pytest

from tests.e2e.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DECODERS = "data/pretuned/decoders.safetensors"
METHODS = ("lora", "vpt", "toast")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.prepared(tmp_path_factory.mktemp("adapters") / "project")

    def edit(raw: dict[str, dict[str, object]]) -> None:
        raw["protocol"].update(baseline=["finetune", *METHODS], toast_after=DECODERS)
        raw["pretune"].update(training={"steps": 6, "lr": 1e-3, "head_lr_scale": 1})
        raw["training"].update(steps=4, evaluations=2)
        raw["tracking"].update(log_model=True)

    workspace.edit_params(edit)
    output = workspace.run("dvc", "repro", *(f"baseline@{name}-all-0" for name in METHODS))
    stages = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
    assert set(stages) == {"pretune", *(f"baseline@{name}-all-0" for name in METHODS)}
    assert stages.index("pretune") < stages.index("baseline@toast-all-0")
    assert "pretune: step 6 of 6, reconstruction loss" in output
    return workspace


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_kept(trained: Workspace) -> None:
    models = trained.folder / "models"
    assert files(models / "lora-all-0") == ["model.json", "model.safetensors"]
    for name in ("vpt", "toast"):
        assert files(models / f"{name}-all-0") == ["adapter.safetensors", "model.json"]
        run = json.loads((trained.folder / "results" / f"{name}-all-0" / "run.json").read_text())
        assert run["notes"] == []
    assert (models / "vpt-all-0" / "adapter.safetensors").stat().st_size < 200_000
    assert files(trained.folder / "data" / "pretuned") == ["card.json", "decoders.safetensors"]
    assert "up to date" in trained.run("dvc", "repro", *(f"baseline@{name}-all-0" for name in METHODS))


def test_each_predicts(trained: Workspace) -> None:
    photo = next((trained.folder / "photos" / "red").iterdir())
    script = (
        "import sys; from pipeline.cli import app\n"
        "for model in sys.argv[2:]: app(['predict', model, sys.argv[1]], standalone_mode=False)"
    )
    models = [f"models/{name}-all-0" for name in METHODS]
    output = trained.run("python", "-c", script, str(photo), *models)  # torch is loaded once
    assert output.count("red") >= len(METHODS)


def test_mlflow_serves_an_adapter_with_its_backbone(trained: Workspace) -> None:
    (served,) = trained.folder.glob("mlruns/**/vpt-all-0")
    assert files(served) == ["adapter.safetensors", "backbone", "model.json"]
    script = (
        "import mlflow, numpy, sys; model = mlflow.pyfunc.load_model(sys.argv[1]);"
        "print(model.predict(numpy.full((2, 32, 32, 3), 90, numpy.uint8)).shape)"
    )
    logged = served.parent.parent
    assert "(2, 3)" in trained.run("python", "-c", script, str(logged))
