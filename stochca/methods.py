"""A fine-tuning method is a composition of independent choices (see the table in README.md).

>>> Method()                                                   # plain fine-tuning
>>> Method(attention=StochasticCrossAttention(prob=0.1))       # StochCA
>>> Method(attention=StochasticCrossAttention(), average=Swad())  # a combination
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from stochca.settings import require

_STRICT: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True)
class SelfAttention:
    """Every block attends to itself: ordinary fine-tuning."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["self"] = "self"


@dataclass(frozen=True)
class Schedule:
    """How the probability of cross-attention changes while training; a function of the step alone.

    constant: it does not (the paper's). linear, cosine: from `prob` at the first step to `end` at the last,
    so that training finishes in the state that evaluation uses. warmup: from 0 up to `prob` over the first
    `share` of the steps, so that a fresh head first learns from undisturbed features.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["constant", "linear", "cosine", "warmup"] = "constant"
    end: float | None = None  # of linear and cosine; None: 0
    share: float | None = None  # of warmup; None: 0.1

    def __post_init__(self) -> None:
        for name, value, owners in (
            ("end", self.end, ("linear", "cosine")),
            ("share", self.share, ("warmup",)),
        ):
            require(
                value is None or self.name in owners,
                f"{name} belongs to the schedule {' or '.join(owners)}, found {self.name}; leave it out",
            )
        require(
            self.end is None or 0 <= self.end <= 1,
            f"end is a probability between 0 and 1, found {self.end}",
        )
        require(
            self.share is None or 0 < self.share <= 1,
            f"share of the steps must be above 0 and at most 1, found {self.share}",
        )


@dataclass(frozen=True)
class StochasticCrossAttention:
    """Each block, with probability `prob`, attends to the frozen pretrained model (arXiv 2402.16092).

    The defaults are the paper's; what goes beyond it is off.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["stochca"] = "stochca"
    prob: float | tuple[float, ...] = 0.1  # one value, or one per block
    granularity: Literal["block", "sample"] = "block"  # one draw for the batch, or one per image: less noise
    blocks: tuple[int, ...] | None = None  # those that may cross-attend, from 0; None: all
    schedule: Schedule = field(default_factory=Schedule)
    teacher: str | None = None  # a name in `teachers` of params.yaml; None: the backbone itself

    def __post_init__(self) -> None:
        require(self.blocks != (), "blocks must name one block or more, found none; null means all")
        require(
            min(self.blocks or (0,)) >= 0,
            f"blocks are counted from 0, found {list(self.blocks or ())}",
        )
        require(self.prob != (), "prob must be one probability, or one per block, found none")
        for prob in self.prob if isinstance(self.prob, tuple) else (self.prob,):
            require(0 <= prob <= 1, f"prob must be between 0 and 1, found {prob}")


@dataclass(frozen=True)
class SinglePhase:
    """Train everything that trains, from the first step."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["single"] = "single"


@dataclass(frozen=True)
class LpFt:
    """Linear probing, then fine-tuning (Kumar et al., ICLR 2022).

    The head is first fitted to frozen features by logistic regression, its strength `C` chosen on
    the validation split; training then starts from that head.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["lp_ft"] = "lp_ft"
    C: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)

    def __post_init__(self) -> None:
        require(
            len(self.C) > 0 and min(self.C) > 0, f"C needs one or more values above 0, found {list(self.C)}"
        )


@dataclass(frozen=True)
class ZeroShot:
    """The head of a CLIP backbone is first made from the names of the classes (Radford et al., ICML 2021).

    Each class's weights are the text features of `template` with its name in place of {}.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
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


@dataclass(frozen=True)
class NoAverage:
    """Keep the weights that were best on the validation split."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["none"] = "none"


@dataclass(frozen=True)
class Ema:
    """Exponential moving average of the weights; its own best on the validation split is kept."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["ema"] = "ema"
    decay: float = 0.99

    def __post_init__(self) -> None:
        require(0 < self.decay < 1, f"decay must be between 0 and 1, both excluded, found {self.decay}")


@dataclass(frozen=True)
class Swa:
    """Uniform mean of the weights over the last part of training (Izmailov et al., UAI 2018)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["swa"] = "swa"
    start: float = 0.75  # the share of the steps after which averaging starts

    def __post_init__(self) -> None:
        require(0 <= self.start < 1, f"start must be at least 0 and below 1, found {self.start}")


@dataclass(frozen=True)
class Swad:
    """Dense mean of the weights inside the loss valley (Cha et al., NeurIPS 2021)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["swad"] = "swad"
    n_converge: int = 3
    n_tolerance: int = 6
    tolerance_ratio: float = 0.3

    def __post_init__(self) -> None:
        for name in ("n_converge", "n_tolerance"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be 1 or more, found {value}")
        require(self.tolerance_ratio >= 0, f"tolerance_ratio must be 0 or more, found {self.tolerance_ratio}")


@dataclass(frozen=True)
class WiseFt:
    """Between the weights at the first step and the fine-tuned ones (Wortsman et al., CVPR 2022).

    `alpha` 0 gives the start, 1 what fine-tuning alone would keep. Of several, the best on the validation
    split is kept. It makes models that hold where images differ from the training images, and needs a head
    that a first phase has made.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["wise_ft"] = "wise_ft"
    alpha: float | tuple[float, ...] = 0.5

    @property
    def alphas(self) -> tuple[float, ...]:
        return self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)

    def __post_init__(self) -> None:
        require(self.alphas != (), "alpha must be one value or more, found none")
        for alpha in self.alphas:
            require(0 <= alpha <= 1, f"alpha must be between 0 and 1, found {alpha}")


Attention = SelfAttention | StochasticCrossAttention
Phases = SinglePhase | LpFt | ZeroShot
Average = NoAverage | Ema | Swa | Swad | WiseFt

# The registry: what a name in params.yaml stands for. A new value of a choice is added here.
CHOICES: dict[str, dict[str, type]] = {
    "attention": {"self": SelfAttention, "stochca": StochasticCrossAttention},
    "phases": {"single": SinglePhase, "lp_ft": LpFt, "zero_shot": ZeroShot},
    "average": {"none": NoAverage, "ema": Ema, "swa": Swa, "swad": Swad, "wise_ft": WiseFt},
}


@dataclass(frozen=True)
class Method:
    """One value per choice; what is not set stays as in plain fine-tuning.

    Raises:
        ValueError: the choices contradict each other; the sentence says why.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    attention: Attention = field(default_factory=SelfAttention)
    train: Literal["all", "head"] = "all"
    phases: Phases = field(default_factory=SinglePhase)
    average: Average = field(default_factory=NoAverage)
    training: dict[str, Any] = field(default_factory=dict)  # overrides of the common training settings

    def __post_init__(self) -> None:
        if self.train == "head":
            require(
                self.attention.name != "stochca",
                "attention 'stochca' with train 'head' makes no sense: nothing that attends is trained; "
                "use train 'all' or attention 'self'",
            )
            require(
                self.phases.name != "lp_ft",
                "phases 'lp_ft' with train 'head' makes no sense: its second phase trains the whole model; "
                "use train 'all' or phases 'single'",
            )
        if self.average.name == "wise_ft":
            require(
                self.phases.name != "single",
                "average 'wise_ft' with phases 'single' makes no sense: it would go halfway back to a head "
                "of random weights; use phases 'lp_ft', or 'zero_shot' with a CLIP backbone",
            )
            require(
                self.train in ("all", "head"),
                f"average 'wise_ft' with train {self.train!r} makes no sense: an adapter's weights between "
                "two points are not the model between them; use train 'all'",
            )
