"""How much the images of each class count in the loss."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.nn import functional

from stochca.config.training import ClassWeights
from stochca.errors import UserError


def class_weights(
    wanted: ClassWeights,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    evenly: bool = False,
    domains: Sequence[str] | None = None,
) -> tuple[float, ...] | None:
    """A weight per class such that their mean over the images that are shown is 1; None: all count the same.

    `balanced` gives every class the same sum. A class without images keeps 1 there.

    Args:
        wanted: as `Training.class_weights` has it.
        labels: of the training images (N,).
        names: of the classes, in the order of the labels.
        evenly: whether batches show all classes equally often, whatever the labels.
        domains: of the training images, where batches show all of them equally often.

    Raises:
        UserError: as `check_class_weights`.
    """
    relative = check_class_weights(wanted, names)
    if wanted == "none":
        return None
    shown: np.ndarray = np.bincount(labels, minlength=len(names))
    if domains is not None:
        its_domain, images = np.unique(domains, return_inverse=True, return_counts=True)[1:]
        shown = np.bincount(labels, 1 / images[its_domain], len(names))
    if relative is None:
        relative = [1 / often if often else 0.0 for often in shown]
    if evenly:
        shown = (shown > 0).astype(int)
    scaled = np.array(relative) * shown.sum() / np.dot(relative, shown)
    return tuple(np.where(scaled > 0, scaled, 1.0).tolist())


def check_class_weights(wanted: ClassWeights, names: Sequence[str]) -> list[float] | None:
    """The weights of a table or a tuple, not scaled yet; None: they depend on the images.

    A table need not name every class: the others count 1.

    Raises:
        UserError: there is no such class, or not one weight for each.
    """
    if isinstance(wanted, str):
        return None
    if isinstance(wanted, dict):
        if unknown := [name for name in wanted if name not in names]:
            raise UserError(
                f"training.class_weights names {unknown[0]!r}, which is no class of the images; the classes "
                f"are {', '.join(names)}"
            )
        return [float(wanted.get(name, 1.0)) for name in names]
    if len(wanted) != len(names):
        raise UserError(f"training.class_weights has {len(wanted)} weights for {len(names)} classes")
    return [float(weight) for weight in wanted]


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Its mean over the images, a scalar; `weights` (classes,) are those of torch's cross-entropy.

    torch divides by the sum of a batch's weights, unless targets are probabilities. Divided by the number of
    images it is the same for both, and the mean over the parts of a batch is that of the whole.
    """
    if weights is None:
        return functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    losses = functional.cross_entropy(
        logits, targets, weight=weights, label_smoothing=label_smoothing, reduction="none"
    )
    return losses.mean()
