"""A fine-tuning method is a composition of independent choices (see the table in README.md).

>>> Method()                                                   # plain fine-tuning
>>> Method(attention=StochasticCrossAttention(prob=0.1))       # StochCA
>>> Method(attention=StochasticCrossAttention(), average=Swad())  # a combination
>>> Method(train=Lora(rank=4), phases=LpFt())                     # another
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
class TrainAll:
    """Every parameter learns."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    changes_backbone: ClassVar[bool] = True  # whether the backbone's own weights end up different
    name: Literal["all"] = "all"


@dataclass(frozen=True)
class TrainHead:
    """Linear probing: the head alone learns."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    changes_backbone: ClassVar[bool] = False
    name: Literal["head"] = "head"


@dataclass(frozen=True)
class Lora:
    """Low-rank updates of some linear layers, and the head (Hu et al., ICLR 2022, arXiv 2106.09685)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    changes_backbone: ClassVar[bool] = True
    name: Literal["lora"] = "lora"
    rank: int = 8
    alpha: float = 16.0  # the update counts alpha / rank
    dropout: float = 0.0  # of the update's input
    targets: tuple[str, ...] = ("qkv",)  # ends of the layers' names, such as qkv, attn.proj or mlp.fc1

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank must be 1 or more, found {self.rank}")
        require(self.alpha > 0, f"alpha must be above 0, found {self.alpha}")
        require(0 <= self.dropout < 1, f"dropout must be at least 0 and below 1, found {self.dropout}")
        require(len(self.targets) > 0, "targets must name one layer or more, found none")


@dataclass(frozen=True)
class Vpt:
    """Visual prompt tuning: prompt tokens and the head learn (Jia et al., ECCV 2022, arXiv 2203.12119)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    changes_backbone: ClassVar[bool] = False
    name: Literal["vpt"] = "vpt"
    tokens: int = 5
    deep: bool = True  # new prompts before every block; false: before the first alone
    dropout: float = 0.0  # of the prompts

    def __post_init__(self) -> None:
        require(self.tokens >= 1, f"tokens must be 1 or more, found {self.tokens}")
        require(0 <= self.dropout < 1, f"dropout must be at least 0 and below 1, found {self.dropout}")


@dataclass(frozen=True)
class Toast:
    """Top-down attention: decoders, a task vector and the head learn (Shi et al., arXiv 2305.15542)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    changes_backbone: ClassVar[bool] = False
    name: Literal["toast"] = "toast"
    decoders: str | None = None  # a file of pre-tuned decoders; None: they start at random


@dataclass(frozen=True)
class ToastLite:
    """TOAST-Lite: low-rank updates of the decoders, the task vector, its transform and the head learn."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    changes_backbone: ClassVar[bool] = False
    name: Literal["toast_lite"] = "toast_lite"
    decoders: str | None = None  # as for `Toast`
    rank: int = 4
    alpha: float = 4.0  # the update counts alpha / rank

    def __post_init__(self) -> None:
        require(self.rank >= 1, f"rank must be 1 or more, found {self.rank}")
        require(self.alpha > 0, f"alpha must be above 0, found {self.alpha}")


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
class L2Sp:
    """Stay near the pretrained weights (Li et al., ICML 2018); takes the place of weight decay."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["l2sp"] = "l2sp"
    weight: float = 0.01  # of half the squared distance of the backbone from its start
    head_weight: float = 0.01  # of half the squared norm of the head

    def __post_init__(self) -> None:
        _require_weights(self, "weight", "head_weight")


@dataclass(frozen=True)
class Delta:
    """Keep the block outputs of the pretrained model (Li et al., ICLR 2019, applied to a transformer)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["delta"] = "delta"
    weight: float = 0.01
    attention: bool = True  # channels without which the loss would rise more count more
    images: int = 256  # training images by which the attention is found

    def __post_init__(self) -> None:
        _require_weights(self, "weight")
        require(self.images >= 1, f"images must be 1 or more, found {self.images}")


@dataclass(frozen=True)
class Bss:
    """Suppress the smallest singular values of a batch's features (Chen et al., NeurIPS 2019)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["bss"] = "bss"
    weight: float = 0.001  # its scale depends on the batch size
    k: int = 1  # how many singular values

    def __post_init__(self) -> None:
        _require_weights(self, "weight")
        require(self.k >= 1, f"k must be 1 or more, found {self.k}")


@dataclass(frozen=True)
class CoTuning:
    """Train the source classifier too, on source labels that suit the target's (You et al., NeurIPS 2020)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["cotuning"] = "cotuning"
    weight: float = 2.3

    def __post_init__(self) -> None:
        _require_weights(self, "weight")


@dataclass(frozen=True)
class Miro:
    """Keep the mutual information with the pretrained features (Cha et al., ECCV 2022)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: Literal["miro"] = "miro"
    weight: float = 0.1  # from 0.01 to 1 by dataset
    lr_scale: float = 10.0  # the learning rate of the variances is lr times this

    def __post_init__(self) -> None:
        _require_weights(self, "weight", "lr_scale")


def _require_weights(config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value >= 0, f"{name} must be 0 or more, found {value}")


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
Train = TrainAll | TrainHead | Lora | Vpt | Toast | ToastLite
Phases = SinglePhase | LpFt | ZeroShot
Average = NoAverage | Ema | Swa | Swad | WiseFt

Penalty = L2Sp | Delta | Bss | CoTuning | Miro

# The registry: what a name in params.yaml stands for. A new value of a choice is added here.
CHOICES: dict[str, dict[str, type]] = {
    "attention": {"self": SelfAttention, "stochca": StochasticCrossAttention},
    "train": {
        "all": TrainAll,
        "head": TrainHead,
        "lora": Lora,
        "vpt": Vpt,
        "toast": Toast,
        "toast_lite": ToastLite,
    },
    "phases": {"single": SinglePhase, "lp_ft": LpFt, "zero_shot": ZeroShot},
    "average": {"none": NoAverage, "ema": Ema, "swa": Swa, "swad": Swad, "wise_ft": WiseFt},
    "penalties": {"l2sp": L2Sp, "delta": Delta, "bss": Bss, "cotuning": CoTuning, "miro": Miro},
}
SEVERAL = ("penalties",)  # choices of which a method may have any number


@dataclass(frozen=True)
class Method:
    """One value per choice; what is not set stays as in plain fine-tuning.

    Raises:
        ValueError: the choices contradict each other; the sentence says why.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    attention: Attention = field(default_factory=SelfAttention)
    train: Train = field(default_factory=TrainAll)
    phases: Phases = field(default_factory=SinglePhase)
    average: Average = field(default_factory=NoAverage)
    penalties: tuple[Penalty, ...] = ()  # terms added to the loss
    training: dict[str, Any] = field(default_factory=dict)  # overrides of the common training settings

    def __post_init__(self) -> None:
        if not self.train.changes_backbone:
            name = self.train.name
            require(
                self.attention.name != "stochca",
                f"attention 'stochca' with train {name!r} makes no sense: nothing that attends is trained; "
                "use train 'all' or 'lora', or attention 'self'",
            )
            require(
                self.phases.name != "lp_ft",
                f"phases 'lp_ft' with train {name!r} makes no sense: its second phase trains the whole "
                "model; use train 'all' or 'lora', or phases 'single'",
            )
            require(
                not self.penalties,
                f"penalties with train {name!r} make no sense: they hold on to a backbone that stays as it "
                "is; use train 'all' or 'lora', or no penalties",
            )
        names = [penalty.name for penalty in self.penalties]
        require(len(set(names)) == len(names), f"penalties lists one twice: {', '.join(names)}")
        if self.average.name == "wise_ft":
            require(
                self.phases.name != "single",
                "average 'wise_ft' with phases 'single' makes no sense: it would go halfway back to a head "
                "of random weights; use phases 'lp_ft', or 'zero_shot' with a CLIP backbone",
            )
            require(
                self.train.name in ("all", "head"),
                f"average 'wise_ft' with train {self.train.name!r} makes no sense: an adapter's weights "
                "between two points are not the model between them; use train 'all'",
            )
