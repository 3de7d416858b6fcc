"""What every script of a peer is given, and what it gives back. Needs torch, timm and torchvision alone.

The images lie in FOLDER/train, FOLDER/val and FOLDER/test, a folder per class; the backbone in
FOLDER/backbone, as timm loads it from `local-dir:FOLDER/backbone`.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.datasets import ImageFolder

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Task:
    folder: Path  # absolute
    epochs: int
    seed: int
    work: Path  # for whatever the peer writes

    @property
    def backbone(self) -> str:
        return f"local-dir:{self.folder / 'backbone'}"

    @property
    def architecture(self) -> str:
        return str(self._config["architecture"])

    @property
    def size(self) -> int:
        """Of the images, in pixels."""
        return int(self._config["model_args"]["img_size"])

    @property
    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.folder / "backbone" / "config.json").read_text())
        return config

    def images(self, part: str) -> ImageFolder:
        return ImageFolder(self.folder / part)


Train = Callable[[Task], tuple[Tensor, Tensor]]  # gives logits (N, classes) and labels (N,) of the test


def main(train: Train) -> None:
    """Run the script on the task that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path, help="gets scores.json")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    task = Task(arguments.folder.resolve(), arguments.epochs, arguments.seed, arguments.work.resolve())
    task.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(task.seed)
    started = time.perf_counter()
    logits, labels = train(task)
    seconds = time.perf_counter() - started
    losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    scores = {
        "accuracy": float((logits.argmax(1) == labels).double().mean()),
        "log_loss": float(losses.double().mean()),
        "right": "".join("1" if right else "0" for right in logits.argmax(1) == labels),
        "losses": [round(float(loss), 3) for loss in losses],
        "seconds": seconds,  # with the evaluations and the answers to the test images, without imports
        "images": task.epochs * len(task.images("train")),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
    (task.work / "scores.json").write_text(json.dumps(scores))
