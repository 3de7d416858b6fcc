"""timm's training script, by its options for fine-tuning: --opt adamw --lr 5e-5 --weight-decay 0.05 --amp
--amp-dtype bfloat16 --smoothing 0.1 --warmup-epochs 3 -b 16, and the rest at its defaults.

The script is in none of timm's packages; its loop is stated again out of the public pieces that it has.
"""

import copy
from typing import Any

import timm
import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor

from benchmarks.peer_scripts.task import MEAN, STD, Task, main


def train(task: Task) -> tuple[Tensor, Tensor]:
    classes = len(task.images("train").classes)
    model = timm.create_model(task.backbone, pretrained=True, num_classes=classes)
    loaders = {
        part: create_loader(
            create_dataset("", root=str(task.folder), split=part, is_training=part == "train"),
            is_training=part == "train",
            color_jitter=0.4 if part == "train" else None,
            num_workers=2,
            crop_pct=1.0,
            persistent_workers=False,
            input_size=(3, task.size, task.size),
            batch_size=16,
            mean=MEAN,
            std=STD,
            device=torch.device("cpu"),
        )
        for part in ("train", "val", "test")
    }
    optimizer = create_optimizer_v2(model, opt="adamw", lr=5e-5, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=task.epochs,
        warmup_epochs=3,
        warmup_lr=1e-6,
        updates_per_epoch=len(loaders["train"]),
    )
    smoothed = LabelSmoothingCrossEntropy(0.1)
    best, kept = -1.0, model.state_dict()
    for epoch in range(task.epochs):
        model.train()
        for images, labels in loaders["train"]:
            with torch.autocast("cpu", torch.bfloat16):
                loss = smoothed(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        logits, labels = answers(model, loaders["val"])
        accuracy = float((logits.argmax(1) == labels).float().mean())
        schedule.step(epoch + 1, accuracy)
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    return answers(model, loaders["test"])


@torch.no_grad()
def answers(model: torch.nn.Module, loader: Any) -> tuple[Tensor, Tensor]:
    model.eval()
    logits, labels = [], []
    for images, of_batch in loader:
        with torch.autocast("cpu", torch.bfloat16):
            logits.append(model(images).float())
        labels.append(of_batch)
    return torch.cat(logits), torch.cat(labels)


if __name__ == "__main__":
    main(train)
