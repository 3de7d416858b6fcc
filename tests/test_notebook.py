"""docs/*.ipynb: newcomers run them from top to bottom, and so does this."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
import timm
import torch
from nbclient import NotebookClient
from safetensors.torch import load_file, save_file

from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone
from tests.imports import ROOT

NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_committed_without_outputs(notebook: Path) -> None:
    read = nbformat.read(notebook, as_version=4)
    nbformat.validate(read)
    code = [cell for cell in read.cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert read.metadata.kernelspec.name == "python3"


def run_first_steps(project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run it in the docs/ of a folder that stands for the project's; what it printed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # in which the folder has no code
    (project / "docs").mkdir()
    notebook = nbformat.read(ROOT / "docs" / "first-steps.ipynb", as_version=4)
    place: dict[str, Any] = {"metadata": {"path": str(project / "docs")}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    return "".join(output.get("text", "") for output in outputs)


def check_what_it_left(project: Path, printed: str) -> None:
    """By what is read from the files, without the notebook's help."""
    left = project / "work" / "first-steps"
    model = timm.create_model(f"local-dir:{left / 'model'}", pretrained=True).eval()
    assert model.pretrained_cfg["label_names"][:2] == ["Activities", "Animals & Nature"]
    assert "180 images for training, 540 for the test" in printed
    start = load_file(left / "backbone" / "model.safetensors")
    state = model.state_dict()
    moved = {name for name in start if name in state and not torch.equal(start[name], state[name])}
    assert {name for name in moved if name.endswith("qkv.weight")} == {
        f"blocks.{i}.attn.qkv.weight" for i in range(len(model.blocks))
    }


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small backbone, of random weights, where it would fetch one: offline, as all tests are."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), "weights.safetensors")
    small = Backbone(name="test_vit", weights="file:weights.safetensors", sha256=None, global_pool=None)
    make_backbone(small, 32, Path("work", "first-steps", "backbone"))
    check_what_it_left(tmp_path, run_first_steps(tmp_path, monkeypatch))
