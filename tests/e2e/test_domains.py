"""Leaving one domain out, through real DVC; tests/e2e/test_tuned.py has shares of the training images."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.images.prepared import load_prepared
from pipeline.images.seen_images import read_seen, was_seen
from tests.e2e.workspace import Workspace, make_images

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
DOMAINS = ("dark", "grey", "light")


def make_domains(root: Path) -> None:
    """The images of the workspace in three brightnesses."""
    shutil.rmtree(root)
    for place, domain in enumerate(DOMAINS):
        make_images(root / domain, per_class=8)
        for path in (root / domain).rglob("*.png"):
            pixels = np.asarray(Image.open(path)).astype(np.int16) + 60 * (place - 1)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def test_leaving_one_domain_out_ends_in_the_table(tmp_path: Path) -> None:
    workspace = Workspace.prepared(tmp_path / "project")
    make_domains(workspace.folder / "photos")

    def edit(raw: dict[str, Any]) -> None:
        raw["training"].update(steps=4, batch_size=8, warmup=0.0, evaluations=2, checkpoints=1)
        raw["protocol"].update(
            name="leave_one_domain_out", targets=["dark", "light"], seeds=[1], baseline=[], combined=[]
        )
        raw["compare"].update(reference="stochca", analysed=["stochca"])

    workspace.edit_params(edit)
    workspace.run("dvc", "repro", "compare")
    prepared = load_prepared(workspace.folder / "data" / "prepared")
    for target in ("dark", "light"):
        results = workspace.folder / "results" / f"stochca-{target}-1"
        metrics = json.loads((workspace.folder / "metrics" / f"{results.name}.json").read_text())
        assert metrics["test_accuracy_oracle"] >= max(metrics["test_accuracy"], metrics["test_accuracy_last"])
        images = json.loads((results / "run.json").read_text())["dataset"]["images"]
        assert images == {"train": 36, "val": 12, "test": 24}  # 80/20 of 2 x 24, and all of the target
        seen = was_seen(prepared.select(range(len(prepared.table))), read_seen(results / "seen_images.npy"))
        domains = {domain for domain, known in zip(prepared.domains, seen, strict=True) if known}
        assert domains == set(DOMAINS) - {target}
    with (workspace.folder / "reports" / "table.csv").open() as file:
        cells = {(row["method"], row["target"], row["selection"]): row for row in csv.DictReader(file)}
    assert {target for _, target, _ in cells} >= {"dark", "light", "average"}
    table = (workspace.folder / "reports" / "table.md").read_text()
    assert all(name in table for name in ("training-domain validation", "oracle", "last step"))
    assert not list((workspace.folder / "work").glob("runs/*/evaluated"))
