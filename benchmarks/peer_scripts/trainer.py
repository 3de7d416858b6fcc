"""Hugging Face's Trainer by the recipe of its image-classification example: AdamW at 2e-5 with a linear
schedule, batches of 8, random resized crops and flips, the best model on validation."""

from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision import transforms
from torchvision.datasets import ImageFolder
from transformers import (
    EvalPrediction,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    Trainer,
    TrainingArguments,
)

from benchmarks.peer_scripts.task import MEAN, STD, Task, main


class Examples(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, images: ImageFolder, transform: transforms.Compose) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, label = self.images[index]
        return {"pixel_values": self.transform(image.convert("RGB")), "labels": label}


def accuracy(given: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(given.predictions.argmax(1) == given.label_ids))}


def train(task: Task) -> tuple[Tensor, Tensor]:
    normalise = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    flips = [transforms.RandomResizedCrop(task.size), transforms.RandomHorizontalFlip(), *normalise]
    still = [transforms.Resize(task.size), transforms.CenterCrop(task.size), *normalise]
    examples = {
        part: Examples(task.images(part), transforms.Compose(flips if part == "train" else still))
        for part in ("train", "val", "test")
    }
    config = TimmWrapperConfig(
        architecture=task.architecture,
        num_labels=len(task.images("train").classes),
        model_args={"img_size": task.size},
    )
    model = TimmWrapperForImageClassification(config)
    weights = load_file(task.folder / "backbone" / "model.safetensors")
    missing = model.timm_model.load_state_dict(weights, strict=False).missing_keys
    assert all(name.startswith("head.") for name in missing), missing
    arguments = TrainingArguments(
        output_dir=str(task.work / "trainer"),
        learning_rate=2e-5,
        num_train_epochs=task.epochs,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=8,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=3,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        logging_strategy="epoch",
        seed=task.seed,
        use_cpu=True,
        report_to="none",
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=examples["train"],
        eval_dataset=examples["val"],
        compute_metrics=accuracy,
    )
    trainer.train()
    given = trainer.predict(examples["test"])
    return torch.tensor(given.predictions), torch.tensor(given.label_ids)


if __name__ == "__main__":
    main(train)
