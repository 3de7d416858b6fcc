"""LightlyTrain's train_image_classification at its own settings."""

import lightly_train
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.peer_scripts.task import MEAN, STD, Task, main


def train(task: Task) -> tuple[Tensor, Tensor]:
    backbone = task.work / "backbone.pt"  # which is how it reads weights of one's own
    torch.save(load_file(task.folder / "backbone" / "model.safetensors"), backbone)
    classes = task.images("train").classes
    lightly_train.train_image_classification(
        out=task.work / "lightly",
        data={
            "train": task.folder / "train",
            "val": task.folder / "val",
            "classes": dict(enumerate(classes)),
        },
        model=f"timm/{task.architecture}",
        model_args={"backbone_weights": str(backbone), "backbone_args": {"img_size": task.size}},
        transform_args={"image_size": (task.size, task.size), "normalize": {"mean": MEAN, "std": STD}},
        steps=task.epochs * len(task.images("train")) // 16,
        batch_size=16,
        accelerator="cpu",
        seed=task.seed,
        overwrite=True,
    )
    model = lightly_train.load_model(task.work / "lightly" / "exported_models" / "exported_best.pt")
    images = task.images("test")
    probabilities = torch.zeros(len(images), len(classes))
    for row, (path, _) in zip(probabilities, images.samples, strict=True):
        found = model.predict(path, topk=len(classes))
        row[found["labels"]] = found["scores"]
    return probabilities.clamp_min(1e-12).log(), torch.tensor(images.targets)


if __name__ == "__main__":
    main(train)
