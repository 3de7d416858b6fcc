"""The order of the trainings of peers, the epochs that fit into our time, and our script on a small task."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from benchmarks import peers
from benchmarks.mapping.packed import write_images, write_weights
from benchmarks.peers import OURS, PEERS, Run, epochs_that_fit, lines_of, missing, read, report

SECONDS = {"ours": 100.0, "ours_stochca": 110.0, "timm_script": 105.0, "trainer": 200.0, "lightly": 25.0}


def scores(run: Run) -> dict[str, Any]:
    return {
        "accuracy": 0.5 + run.seed / 10,
        "log_loss": 1.0,
        "seconds": SECONDS.get(run.peer, 100.0) * run.epochs / 28,
        "images": 280,
        "memory_mb": 700.0,
    }


def test_all_train_for_the_same_epochs_and_then_for_the_same_minutes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done: dict[Run, dict[str, Any]] = {}
    while run := next(missing(done, ["a"], 28, [0, 1]), None):
        assert run not in done
        done[run] = scores(run)
    same = [run for run in done if run.epochs == 28]
    assert [run.peer for run in same] == [*OURS, *PEERS] * 2
    assert {(run.peer, run.epochs) for run in done if run not in same} == {("trainer", 14), ("lightly", 112)}
    assert epochs_that_fit(done, "a", "timm_script", 28) == 28
    report(done)
    table = capsys.readouterr().out.splitlines()
    (theirs,) = [line for line in table if line.startswith("| LightlyTrain | 112")]
    assert "| 55.0 ± 7.1 |" in theirs
    assert theirs.endswith("| 2 |")


def test_lines_are_those_that_a_user_writes() -> None:
    text = (peers.SCRIPTS / "fastai_learner.py").read_text()
    body = text[text.index("def train") : text.index("if __name__")].strip().splitlines()
    imports = text[text.index("from fastai") : text.index("from benchmarks")].strip().splitlines()
    assert lines_of("fastai_learner") == len(body) + len(imports)


@pytest.mark.slow
def test_our_script_on_a_small_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.integers(0, 120, (60, 64, 64, 3)).astype(np.uint8)
    images[np.arange(60), ..., labels] += 100
    rows = {"train_15": np.arange(30), "validation": np.arange(30, 45), "test": np.arange(45, 60)}
    parts = {f"rows/{name}": found for name, found in rows.items()}
    packed, folder = tmp_path / "packed", tmp_path / "peers"
    packed.mkdir()
    write_images(packed, {"squares": {"images": images, "labels": labels, **parts}})
    weights = timm.create_model("test_vit", num_classes=0).state_dict()
    write_weights(packed, "test_vit", weights)
    monkeypatch.setattr(peers, "PEERS", {})
    monkeypatch.setattr(peers, "environment", lambda folder: "")
    peers.run_all(folder, tmp_path / "peers.jsonl", packed, ["squares"], epochs=1, seeds=[0])
    done = read(tmp_path / "peers.jsonl")
    assert [run.peer for run in done] == [*OURS]
    for record in done.values():
        assert record["images"] == 30
        assert record["accuracy"] == record["right"].count("1") / 15
    given = timm.create_model(f"local-dir:{folder}/squares/backbone", pretrained=True, num_classes=3)
    name = "blocks.0.attn.qkv.weight"
    torch.testing.assert_close(given.state_dict()[name], weights[name], atol=1e-3, rtol=1e-3)  # kept in half
    assert json.loads((folder / "squares/backbone/config.json").read_text())["architecture"] == "test_vit"
