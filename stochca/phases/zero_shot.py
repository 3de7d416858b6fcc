"""The first phase of a CLIP backbone: a head made from the names of the classes, without any training.

CLIP's logits of an image are scale · cos(P f, t_c), with the image's pooled features f, the projection P
that CLIP's own head is, and the text features t_c of each class. Up to the length of P f, which is
positive and the same for all classes of an image, that is linear in f: one linear head gives CLIP's own
predictions. Its logits are as sharp as CLIP's for images whose P f has the mean length.
"""

import torch
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.data.examples import Examples
from stochca.errors import UserError
from stochca.phases.first_phase import ClassTexts, FirstPhase
from stochca.phases.linear_head import features, linear_heads


class NamedClasses(FirstPhase):
    """The choice `phases: zero_shot`."""

    def check(self, student: TimmModule, class_texts: ClassTexts | None) -> None:
        if class_texts is None:
            raise UserError("phases zero_shot needs the text features of the classes, but none were given")
        class_texts.check(student)

    @torch.no_grad()
    def run(
        self, student: TimmModule, examples: Examples, class_texts: ClassTexts | None, *, refit: bool
    ) -> str:
        """Replace the head by the one that `class_texts` stand for, as sharp as on the validation images."""
        self.check(student, class_texts)
        assert class_texts is not None
        (head,) = linear_heads(student)
        rows, labels = features(student, examples.validation, examples)
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
