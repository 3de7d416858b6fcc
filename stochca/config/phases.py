"""What happens before the training loop."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Phases
from stochca.config.training import require


@dataclass(frozen=True)
class SinglePhase(Phases):
    """Train everything that trains, from the first step."""

    name: Literal["single"] = "single"


@dataclass(frozen=True)
class LpFt(Phases):
    """Linear probing, then fine-tuning (Kumar et al., ICLR 2022).

    The head is first fitted to frozen features by logistic regression, its strength `C` chosen on
    the validation split; training then starts from that head.
    """

    name: Literal["lp_ft"] = "lp_ft"
    C: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)

    def __post_init__(self) -> None:
        require(
            len(self.C) > 0 and min(self.C) > 0, f"C needs one or more values above 0, found {list(self.C)}"
        )


@dataclass(frozen=True)
class ZeroShot(Phases):
    """The head of a CLIP backbone is first made from the names of the classes (Radford et al., ICML 2021).

    Each class's weights are the text features of `template` with its name in place of {}.
    """

    name: Literal["zero_shot"] = "zero_shot"
    template: str = "a photo of a {}."
    text_encoder: str | None = None  # a model of open_clip, such as ViT-B-16/openai; None: the backbone's own

    def __post_init__(self) -> None:
        require(
            self.template.count("{}") == 1,
            f"template must hold {{}} once, where the name of a class goes, found {self.template!r}",
        )
        require(
            self.text_encoder is None or "/" in self.text_encoder,
            "text_encoder must be ARCHITECTURE/WEIGHTS of open_clip, such as ViT-B-16/openai, or "
            f"hf-hub:OWNER/NAME, found {self.text_encoder!r}",
        )
