"""What a training run is made from: a model, its images, a method and settings."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from stochca._typing import TimmModule
from stochca.config import Method
from stochca.config.training import Training
from stochca.data.batches import images_of_step
from stochca.data.images import Images, joined_images, keep_in_memory, names_of
from stochca.data.preprocessing import Preprocessing
from stochca.phases.class_texts import ClassTexts


@dataclass(frozen=True)
class Inputs:
    """What `fit` trains, on which images, and how.

    With `refit` the validation images, on which everything has been chosen, are trained on too: nothing is
    evaluated any more, and the weights of the last step are kept.
    """

    student: TimmModule  # of timm, with a fresh head; it is trained in place
    train: Images
    validation: Images  # what the weights are chosen by, and nothing else is
    method: Method
    settings: Training
    preprocessing: Preprocessing
    source_head: nn.Linear | None = None  # the classifier that the backbone was pretrained with
    # The model that `attention.teacher` names; frozen in place, its projections in what it computes in.
    teacher: TimmModule | None = None
    class_texts: ClassTexts | None = None  # what the first phase `zero_shot` makes a head of
    domains: Sequence[str] | None = None  # of each image trained on; batches hold equally many of each
    refit: bool = False
    seed: int = 0

    @property
    def learned_from(self) -> Images:
        """The images that batches are drawn from."""
        return joined_images(self.train, self.validation) if self.refit else self.train

    def names_of_step(self, step: int) -> list[str]:
        """Which images all ranks together see in `step`, counted from 1."""
        parts = (self.train, self.validation) if self.refit else (self.train,)
        number = len(self.learned_from)
        shown = images_of_step(number, self.settings, domains=self.domains, seed=self.seed, step=step)
        return names_of(parts, shown)

    def decoded(self) -> "Inputs":
        """The same with images in memory, where they fit."""
        reads = self.settings.steps * self.settings.batch_size
        return dataclasses.replace(
            self, train=keep_in_memory(self.train, reads), validation=keep_in_memory(self.validation)
        )
