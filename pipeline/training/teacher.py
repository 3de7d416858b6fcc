"""Another pretrained model as teacher: `attention: {name: stochca, teacher: NAME}`."""

from pathlib import Path
from typing import TYPE_CHECKING

from stochca.backbones.card import CARD_FILE, BackboneCard, teacher_folder
from stochca.backbones.loading import load_backbone
from stochca.config import Method, StochasticCrossAttention
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.timm_models.normalisation import renormalise

if TYPE_CHECKING:
    from stochca._typing import TimmModule


def teacher_card(method: Method, backbone: Path) -> BackboneCard | None:
    """The card of the teacher that the method names; None where the backbone teaches itself."""
    if not isinstance(method.attention, StochasticCrossAttention) or method.attention.teacher is None:
        return None
    return BackboneCard.from_file(teacher_folder(backbone, method.attention.teacher) / CARD_FILE)


def load_teacher(method: Method, backbone: Path, preprocessing: Preprocessing) -> "TimmModule | None":
    """The teacher that the method names, which takes images as `preprocessing` gives them.

    Raises:
        UserError: its folder is incomplete, or it can't be made to take such images.
    """
    if (card := teacher_card(method, backbone)) is None:
        return None
    assert isinstance(method.attention, StochasticCrossAttention)
    assert method.attention.teacher is not None
    teacher = load_backbone(teacher_folder(backbone, method.attention.teacher), num_classes=0)
    try:
        renormalise(teacher, (card.mean, card.std), (preprocessing.mean, preprocessing.std))
    except UserError as error:
        raise UserError(f"teachers.{method.attention.teacher}: {error}") from None
    return teacher
