"""The first phase of a CLIP backbone: a head made from the names of the classes, without any training.

CLIP's logits of an image are scale · cos(P f, t_c), with the image's pooled features f, the projection P
that CLIP's own head is, and the text features t_c of each class. Up to the length of P f, which is
positive and the same for all classes of an image, that is linear in f: one linear head gives CLIP's own
predictions. Its logits are as sharp as CLIP's for images whose P f has the mean length.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.data.images import Images
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.phases.linear_head import features, linear_heads


@dataclass(frozen=True)
class ClassTexts:
    """What a CLIP's text encoder makes of the classes, and how images get there."""

    texts: Tensor  # (classes, E), of any length
    projection: Tensor  # (E, D): the weight of the visual tower's head; D pooled features
    bias: Tensor | None = None  # (E,): its bias
    scale: float = 100.0  # CLIP's logit scale

    def check(self, student: TimmModule) -> None:
        """Raise `UserError` unless they suit the student's head."""
        (head, *others) = linear_heads(student)
        if others:
            raise UserError("phases zero_shot needs one head, found a distilled model with two")
        found = (len(self.texts), self.texts.shape[1], self.projection.shape[1])
        if found != (head.out_features, len(self.projection), head.in_features):
            raise UserError(
                f"phases zero_shot: {found[0]} texts of {found[1]} numbers and a projection from "
                f"{found[2]} to {len(self.projection)} don't suit a head from {head.in_features} features "
                f"to {head.out_features} classes; use the text encoder that belongs to the backbone"
            )


@torch.no_grad()
def make_head(
    student: TimmModule,
    class_texts: ClassTexts,
    images: Images,
    preprocessing: Preprocessing,
    **loading: Any,
) -> str:
    """Replace the student's head by the one that `class_texts` stand for; the lengths are those of `images`.

    Returns a sentence about it.

    Raises:
        UserError: the head is not linear, or the sizes don't match.
    """
    class_texts.check(student)
    (head,) = linear_heads(student)
    rows, labels = features(student, images, preprocessing, **loading)
    projection = class_texts.projection.detach().cpu().float()
    bias = torch.zeros(len(projection)) if class_texts.bias is None else class_texts.bias.detach().cpu()
    length = (rows @ projection.T + bias).norm(dim=1).mean()
    directions = functional.normalize(class_texts.texts.detach().cpu().float(), dim=1)
    directions *= class_texts.scale / length
    weight, offset = directions @ projection, directions @ bias.float()
    accuracy = ((rows @ weight.T + offset).argmax(dim=1) == labels).double().mean().item()
    head.weight.copy_(weight)
    head.bias.copy_(offset)
    return f"the head was made from the names of the classes: accuracy {accuracy:.3f} without training"
