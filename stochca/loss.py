"""The loss of a batch."""

from collections.abc import Callable

from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.randomness import Stream, derived_seed, isolated
from stochca.settings import Training


def make_loss(
    student: TimmModule, settings: Training, seed: int
) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
    """Cross-entropy of a model on a batch, with mixup, cutmix and label smoothing where they are set."""
    augmentation = settings.augmentation
    if not (augmentation.mixup or augmentation.cutmix):
        plain = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
        return lambda model, images, labels, step: plain(model(images).float(), labels)
    mix = Mixup(
        mixup_alpha=augmentation.mixup,
        cutmix_alpha=augmentation.cutmix,
        label_smoothing=settings.label_smoothing,
        num_classes=student.num_classes,
    )
    soft = SoftTargetCrossEntropy()

    def loss_of(model: nn.Module, images: Tensor, labels: Tensor, step: int) -> Tensor:
        with isolated(derived_seed(seed, Stream.MIX, step)):
            images, targets = mix(images, labels)
        return soft(model(images).float(), targets)

    return loss_of
