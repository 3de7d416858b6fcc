"""fastai's vision_learner with the same timm model, as its tutorials fine-tune: one epoch of the head alone,
then everything, by discriminative rates and one cycle."""

from fastai.vision.all import (
    ImageDataLoaders,
    Resize,
    accuracy,
    aug_transforms,
    get_image_files,
    set_seed,
    vision_learner,
)
from torch import Tensor

from benchmarks.peer_scripts.task import Task, main


def train(task: Task) -> tuple[Tensor, Tensor]:
    set_seed(task.seed)
    loaders = ImageDataLoaders.from_folder(
        task.folder,
        train="train",
        valid="val",
        item_tfms=Resize(task.size),
        batch_tfms=aug_transforms(size=task.size),
        bs=16,
    )
    learner = vision_learner(loaders, task.backbone, metrics=accuracy, path=task.work)
    learner.fine_tune(task.epochs)
    files = get_image_files(task.folder / "test")
    test = loaders.test_dl(files, with_labels=True)
    probabilities, labels = learner.get_preds(dl=test)
    return probabilities.clamp_min(1e-12).log(), labels


if __name__ == "__main__":
    main(train)
