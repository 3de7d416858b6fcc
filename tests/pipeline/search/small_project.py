"""A project whose trials take about a second: a transformer of 0.3 million parameters, 78 images."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone, Params, load_params
from tests.imports import ROOT
from tests.pipeline.prepared_folder import Row, write_prepared_folder

CLASSES = ("red", "green", "blue")
SPLITS = {"train": 48, "val": 30, "test": 6}
STEPS = 8


def write_project(folder: Path, tune: dict[str, Any]) -> Params:
    """Fill `folder` with params.yaml, a backbone and images; what is in the test split is no image."""
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["image_size"] = 32
    values["backbone"] = {"name": "test_vit", "weights": "file:weights.safetensors"}
    values["training"].update(
        epochs=None, steps=STEPS, warmup=0.0, evaluations=4, batch_size=8, lr=1e-3, head_lr_scale=1,
        precision="fp32",
    )  # fmt: skip
    values["tune"].update({"lr": None, "training": {}, "grace": 0.25, "reduction": 2, "trials": 4, **tune})
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(timm.create_model("test_vit", num_classes=0).state_dict(), folder / "weights.safetensors")
    source = Backbone(name="test_vit", weights=f"file:{folder / 'weights.safetensors'}")
    make_backbone(source, 32, folder / "data" / "backbone")
    write_images(folder / "data" / "prepared")
    return load_params(folder / "params.yaml")


def write_images(folder: Path) -> None:
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    rows = [
        Row(b"no image" if split == "test" else coloured(label, number), label, f"image-{number}", split)
        for number, split in enumerate(splits)
        for label in [number % len(CLASSES)]
    ]
    write_prepared_folder(folder, CLASSES, rows)


def coloured(label: int, number: int) -> bytes:
    """Noise with a little more of its class's colour."""
    random = np.random.default_rng(number)
    pixels = random.normal(100, 40, (32, 32, 3)) + 60 * np.eye(3)[label] * random.random()
    encoded = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def environment(**more: str) -> dict[str, str]:
    """As a user would have it, with the code of this checkout."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))
    }
    own = {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "RAY_worker_niceness": "0",  # Ray's 15 lets its workers wait for the tests beside them
    }
    return {**inherited, **own, **more}


def start_search(folder: Path) -> subprocess.Popen[str]:
    """`python -m pipeline.tune` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.tune"],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run_search(folder: Path, *, expect: int = 0, timeout: float = 240) -> str:
    """The same, to its end; gives what it printed."""
    process = start_search(folder)
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == expect, f"ended with {process.returncode}:\n{output}"
    return output
