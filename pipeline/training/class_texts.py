"""The names of the classes, through the text encoder that belongs to a CLIP backbone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from safetensors import safe_open
from torch import Tensor

from stochca.backbones.card import CARD_FILE, WEIGHTS_FILE, BackboneCard
from stochca.config import Method
from stochca.errors import UserError, one_line
from stochca.phases.first_phase import ClassTexts


def class_texts_of(method: Method, classes: Sequence[str], backbone: Path) -> ClassTexts | None:
    """What the first phase makes a head of; None where the method has another first phase.

    Raises:
        UserError: the backbone holds no head of a CLIP, or the text encoder can't be had.
    """
    phases: Any = method.phases
    if not phases.needs_class_texts:
        return None
    card = BackboneCard.from_file(backbone / CARD_FILE)
    if not card.source_classes:
        raise UserError(
            f"phases {phases.name} needs a CLIP backbone with its projection, but {card.source} holds no "
            "head; use weights such as those of vit_base_patch16_clip_quickgelu_224.openai from the hub"
        )
    with safe_open(backbone / WEIGHTS_FILE, framework="pt") as file:
        names = set(file.keys())
        projection = file.get_tensor("head.weight")
        bias = file.get_tensor("head.bias") if "head.bias" in names else None
    texts = [phases.template.replace("{}", readable(name)) for name in classes]
    encoder = OpenClip(phases.text_encoder or _own_text_encoder(card.architecture))
    return ClassTexts(encoder.encode(texts), projection, bias, encoder.scale)


def readable(name: str) -> str:
    """The name of a class in words: `002.Laysan_Albatross` is Laysan Albatross."""
    return re.sub(r"^\d+[.]", "", name).replace("_", " ").strip()


def _own_text_encoder(architecture: str) -> str:
    """What open_clip calls the model whose image tower timm has under this name."""
    config = timm.get_pretrained_cfg(architecture)
    if "clip" not in architecture or config is None or not config.hf_hub_id:
        raise UserError(
            f"a text encoder needs a CLIP backbone, and {architecture} is none that timm has weights of; "
            "choose one such as vit_base_patch16_clip_quickgelu_224.openai, or name its text encoder in "
            "phases.text_encoder, such as ViT-B-16-quickgelu/openai"
        )
    return f"hf-hub:{config.hf_hub_id}"


class OpenClip:
    """A text encoder of open_clip: hf-hub:OWNER/NAME or ARCHITECTURE/WEIGHTS (ViT-B-16-quickgelu/openai)."""

    def __init__(self, name: str) -> None:
        try:
            import open_clip
        except ImportError:
            raise UserError(
                "a text encoder needs the package open_clip_torch; install it: pip install 'stochca[clip]'"
            ) from None
        architecture, weights = (name, None) if name.startswith("hf-hub:") else name.rsplit("/", 1)
        try:
            self.model, _ = open_clip.create_model_from_pretrained(architecture, pretrained=weights)
            self.tokenize = open_clip.get_tokenizer(architecture)
        except Exception as error:  # those of the hub's client and of open_clip, of many kinds
            reason = one_line(error)
            raise UserError(
                f"open_clip can't load the text encoder {name} ({reason}); set phases.text_encoder to one "
                "that it lists (open_clip.list_pretrained()), such as ViT-B-16-quickgelu/openai"
            ) from error
        self.scale = float(self.model.logit_scale.exp())  # of the logits

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Features (N, E) of the texts, of any length."""
        import torch

        with torch.inference_mode():
            return self.model.encode_text(self.tokenize(list(texts))).float().clone()
