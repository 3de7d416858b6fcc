"""Fine-tuning by the settings that `stochca new` writes.

Two commands are what a user gives, `make new FOLDER=...` and `make repro`; this calls what they train with.
"""

import dataclasses

import timm
import torch
from torch import Tensor

from benchmarks.peer_scripts.task import MEAN, STD, Task, main
from stochca.config import Method
from stochca.config.training import Augmentation, Training
from stochca.data.preprocessing import Preprocessing
from stochca.evaluation import predict
from stochca.training.fit import fit
from stochca.training.inputs import Inputs

SETTINGS = Training(
    epochs=1,
    batch_size=16,
    lr=1e-5,
    head_lr_scale=30,
    warmup=0.1,
    clip_grad=1.0,
    evaluations=10,
    augmentation=Augmentation(scale=(0.6, 1.0)),
)


def train(task: Task, method: Method | None = None) -> tuple[Tensor, Tensor]:
    parts = {part: task.images(part) for part in ("train", "val", "test")}
    model = timm.create_model(task.backbone, pretrained=True, num_classes=len(parts["train"].classes))
    preprocessing = Preprocessing(task.size, MEAN, STD)
    fitted = fit(
        Inputs(
            model,
            parts["train"],
            parts["val"],
            method=method or Method(),
            settings=dataclasses.replace(SETTINGS, epochs=task.epochs),
            preprocessing=preprocessing,
            seed=task.seed,
        ),
        device=torch.device("cpu"),
    )
    return predict(
        fitted.model, parts["test"], preprocessing, device=torch.device("cpu"), precision=fitted.precision
    )


if __name__ == "__main__":
    main(train)
