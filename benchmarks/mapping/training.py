"""One training of the map, and what is kept of it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mapping.grid import Blocks, Cell
from benchmarks.mapping.packed import PackedSet
from stochca.config import LpFt, Method, StochasticCrossAttention
from stochca.config.training import Augmentation, Training
from stochca.evaluation import predict
from stochca.training.fit import fit
from stochca.training.inputs import Inputs

BATCH = 16
EVALUATIONS = 4


def method_of(cell: Cell, depth: int) -> Method:
    halves: dict[Blocks, tuple[int, ...] | None] = {
        "all": None,
        "lower": tuple(range(depth // 2)),
        "upper": tuple(range(depth // 2, depth)),
    }
    parts: dict[str, Any] = {"phases": LpFt()} if cell.first_phase == "lp_ft" else {}
    if cell.prob:
        parts["attention"] = StochasticCrossAttention(prob=cell.prob, blocks=halves[cell.blocks])
    return Method(**parts)


def settings_of(cell: Cell) -> Training:
    """As params.yaml has them; after a first phase the head has learned already, and takes the same rate."""
    return Training(
        epochs=cell.epochs,
        batch_size=BATCH,
        lr=cell.lr,
        head_lr_scale=30.0 if cell.first_phase == "none" else 1.0,
        warmup=0.1,
        clip_grad=1.0,
        evaluations=EVALUATIONS,
        workers=0,
        augmentation=Augmentation(scale=(0.6, 1.0)),
    )


def train(folder: Path, cell: Cell, device: str) -> dict[str, Any]:
    """Train, and answer the test images.

    Returns:
        Scores on validation of the weights that are kept, and of every test image whether the answer was
        right ("1" or "0") and its log loss in nats, so that any mean and interval can be made of them.
    """
    packed = PackedSet.of(folder, cell.set)
    student = packed.model(folder, cell.seed)
    images = packed.parts[f"train_{cell.share}"]
    settings = settings_of(cell)
    fitted = fit(
        Inputs(
            student,
            images,
            packed.parts["validation"],
            method=method_of(cell, len(student.blocks)),
            settings=settings,
            preprocessing=packed.preprocessing,
            seed=cell.seed,
        ),
        device=torch.device(device),
    )
    assert fitted.validation is not None
    logits, labels = predict(
        fitted.model,
        packed.parts["test"],
        packed.preprocessing,
        device=torch.device(device),
        precision=fitted.precision,
    )
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return {
        "images": len(images),
        "steps": settings.timetable(len(images)).steps,
        "selected_step": fitted.selected_step,
        "validation_accuracy": fitted.validation.accuracy,
        "validation_loss": fitted.validation.loss,
        "test_accuracy": (logits.argmax(1) == labels).double().mean().item(),
        "test_loss": losses.double().mean().item(),
        "right": "".join("1" if right else "0" for right in logits.argmax(1) == labels),
        "losses": [round(float(loss), 3) for loss in losses],
        "confidences": [round(float(c), 3) for c in np.asarray(logits.softmax(1).amax(1))],
        "seconds": round(fitted.train_seconds, 1),
        "device": fitted.device,
        "precision": fitted.precision,
    }
