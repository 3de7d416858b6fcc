"""CLIP's zero-shot head."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Phases
from stochca.config.registry import register
from stochca.config.training import require


@dataclass(frozen=True)
class ZeroShot(Phases):
    """The head of a CLIP backbone is first made from the names of the classes (Radford et al., ICML 2021).

    Each class's weights are the text features of `template` with its name in place of {}.
    """

    needs_class_texts = True
    name: Literal["zero_shot"] = "zero_shot"
    template: str = "a photo of a {}."
    text_encoder: str | None = None  # of open_clip, as ViT-B-16-quickgelu/openai; None: the backbone's own

    def __post_init__(self) -> None:
        require(
            self.template.count("{}") == 1,
            f"template must hold {{}} once, where the name of a class goes, found {self.template!r}",
        )
        require(
            self.text_encoder is None or "/" in self.text_encoder,
            "text_encoder must be ARCHITECTURE/WEIGHTS of open_clip, such as ViT-B-16-quickgelu/openai, or "
            f"hf-hub:OWNER/NAME, found {self.text_encoder!r}",
        )


register(ZeroShot, "stochca.phases.zero_shot:NamedClasses")
