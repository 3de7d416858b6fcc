"""How training is run, apart from the method: one frozen dataclass per group of settings.

They are plain dataclasses so that the library needs nothing but torch and timm; `pipeline.config.params`
reads the same classes from `params.yaml`, strictly.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from stochca.config.timetable import Timetable, spread

BUDGETS = ("epochs", "steps")  # ways to say how long to train, of which settings have one
SAME_RESULT = ("checkpoints", "workers")  # settings that change none
# none | balanced | a weight per class, by name or in order; checked below, in plainer words than a union's.
ClassWeights = str | dict[Any, Any] | tuple[Any, ...]


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def require_each(options: Any, holds: Callable[[Any], bool], wanted: str, *names: str) -> None:
    """Raise ValueError where one of these options, or of the numbers in it, is not as `wanted`; None is."""
    for name in names:
        value = getattr(options, name)
        for number in value if isinstance(value, tuple) else (value,):
            require(number is None or holds(number), f"{name} must be {wanted}, found {number}")


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image; in evaluation it is resized, and its middle square cut out.

    In an image more than about twice as long as wide a random resized crop has no place: its middle is taken.
    Images that are resized to a square first lose nothing. Probabilities are per image.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}

    crop: Literal["random_resized", "random"] = "random_resized"  # random: of the size that the model sees
    scale: tuple[float, float] = (0.5, 1.0)  # area of the random resized crop, as a share of the image
    ratio: tuple[float, float] = (0.75, 4 / 3)  # its width / height
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    # Strength of brightness, contrast and saturation changes, or one for each of them and the hue.
    color_jitter: float | tuple[float, float, float] | tuple[float, float, float, float] = 0.0
    grayscale: float = 0.0
    auto_augment: str | None = None  # timm's policy, for example rand-m9-mstd0.5
    random_erasing: float = 0.0
    mixup: float = 0.0  # alpha of the Beta distribution; 0 is off
    cutmix: float = 0.0  # likewise

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, each with the one in its place from the end of the batch."""
        return self.mixup > 0 or self.cutmix > 0

    def __post_init__(self) -> None:
        low, high = self.scale
        require(0 < low <= high <= 1, f"scale must satisfy 0 < low <= high <= 1, found {list(self.scale)}")
        low, high = self.ratio
        require(0 < low <= high, f"ratio must satisfy 0 < low <= high, found {list(self.ratio)}")
        probabilities = ("horizontal_flip", "vertical_flip", "grayscale", "random_erasing")
        require_each(self, lambda p: 0 <= p <= 1, "between 0 and 1", *probabilities)
        require_each(self, lambda s: s >= 0, "0 or more", "color_jitter", "mixup", "cutmix")
        require(
            not isinstance(self.color_jitter, tuple) or max(self.color_jitter[3:], default=0) <= 0.5,
            f"color_jitter changes the hue by at most 0.5, found {self.color_jitter}",
        )


@dataclass(frozen=True)
class Training:
    """Optimisation, schedule and bookkeeping of one training run.

    Either `epochs` or `steps` says how long it is; everything else goes along with it.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}

    epochs: float | None = None  # how often each image is trained on
    steps: int | None = None  # of the optimiser
    batch_size: int = 32  # images per optimiser step
    accumulate: int = 1  # micro-batches that one step is split into
    optimizer: str = "adamw"  # any first-order one that timm.optim knows
    lr: float = 1e-4
    weight_decay: float = 0.05
    head_lr_scale: float = 1.0  # the head's learning rate is lr times this, all through the schedule
    layer_decay: float | None = None  # learning rate factor per block, counted from the head
    warmup: float = 0.0  # share of the steps in which the learning rate rises, linearly from 0
    schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up
    min_lr: float = 0.0  # where the cosine ends
    clip_grad: float | None = None  # largest gradient norm
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    class_weights: ClassWeights = "none"  # of the loss; balanced: by how rare a class is; or CLASS: WEIGHT
    sampler: Literal["shuffled", "balanced"] = "shuffled"  # balanced: batches show all classes equally often
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False  # torch.compile, block by block
    evaluations: int = 10  # on the validation split, evenly over the run; the last after the last step
    checkpoints: int = 10  # likewise
    patience: int | None = None  # evaluations in a row without a new best that end training; None: none do
    workers: int | Literal["auto"] = "auto"  # processes that load and augment images
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        given = [f"{name} {value}" for name in BUDGETS if (value := getattr(self, name)) is not None]
        require(bool(given), "epochs or steps must say how long to train, and both are null; set one of them")
        require(len(given) == 1, f"{' and '.join(given)} both say how long to train; set one of them to null")
        require_each(self, lambda x: x > 0, "above 0", "epochs")
        require_each(self, lambda n: n >= 1, "1 or more", "steps", "batch_size", "accumulate")
        require_each(self, lambda n: n >= 1, "1 or more, how many in a run", "evaluations", "checkpoints")
        require_each(self, lambda n: n >= 1, "1 or more, or null", "patience")
        self.micro_batch()
        require_each(self, lambda x: x > 0, "above 0", "lr")
        require(self.min_lr <= self.lr, f"min_lr {self.min_lr} must not be above lr {self.lr}")
        require(
            self.schedule == "cosine" or self.min_lr == 0,
            f"min_lr {self.min_lr} is where a cosine ends; set it to 0 with the schedule {self.schedule}",
        )
        require_each(self, lambda x: 0 <= x < 1, "at least 0 and below 1, a share of the steps", "warmup")
        require_each(self, lambda x: x >= 0, "0 or more", "weight_decay", "head_lr_scale", "min_lr")
        require_each(self, lambda x: 0 < x <= 1, "above 0 and at most 1, or null", "layer_decay")
        require_each(self, lambda x: x > 0, "above 0, or null", "clip_grad")
        require_each(self, lambda x: 0 <= x < 1, "at least 0 and below 1", "drop_path", "label_smoothing")
        self._check_class_weights()
        require(
            self.workers == "auto" or self.workers >= 0,
            f"workers must be auto, or 0 or more, found {self.workers}",
        )

    def timetable(self, images: int) -> Timetable:
        """The run in optimiser steps, where so many images are trained on.

        Batches are full: what an epoch leaves over begins the next batch. Epochs make as many of them as come
        nearest to their images, and at least one.
        """
        steps = self.steps
        if steps is None:
            assert self.epochs is not None
            steps = max(1, round(self.epochs * images / self.batch_size))
        return Timetable(
            steps,
            warmup=min(round(self.warmup * steps), steps - 1),
            evaluations=spread(self.evaluations, steps),
            checkpoints=spread(self.checkpoints, steps),
        )

    def _check_class_weights(self) -> None:
        weights = self.class_weights
        if isinstance(weights, str):
            allowed = "class_weights must be none, balanced, or a weight for each class by its name"
            require(weights in ("none", "balanced"), f"{allowed}, found {weights!r}")
        else:
            if isinstance(weights, dict):  # YAML takes the name of a class such as 7 for a number
                weights = {str(name): weight for name, weight in weights.items()}
                object.__setattr__(self, "class_weights", weights)
            named = weights.items() if isinstance(weights, dict) else enumerate(weights)
            for name, weight in named:
                is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
                require(
                    is_number and 0 < weight < math.inf,
                    f"class_weights must be numbers above 0, found {weight!r} for the class {name}",
                )
        require(
            not (weights == "balanced" and self.sampler == "balanced"),
            "class_weights balanced and sampler balanced make up for the same imbalance; choose one of them",
        )

    def check_domains(self, balanced: bool) -> None:
        """Raise ValueError where batches that hold equally many images of each domain can't be made so."""
        require(
            not (balanced and self.sampler == "balanced"),
            "sampler balanced does not go with batches that hold equally many images of each domain, as "
            "those of leave_one_domain_out do; set it to shuffled, and class_weights to balanced instead",
        )

    def micro_batch(self, workers: int = 1) -> int:
        """How many images each of so many workers sees in one forward pass.

        Raises:
            ValueError: a batch can't be shared so, or not in pairs, which mixup and cutmix need.
        """
        share, rest = divmod(self.batch_size, self.accumulate * workers)
        pairs = self.augmentation.mixes
        by = f", split by {workers} workers and accumulate" if workers > 1 else ", split by accumulate"
        wanted = "an even number, because mixup and cutmix pair images up" if pairs else "whole images"
        require(
            not rest and not (pairs and share % 2),
            f"batch_size {self.batch_size}{by} {self.accumulate}, leaves "
            f"{self.batch_size / (self.accumulate * workers):g} images; choose one that leaves {wanted}",
        )
        return share


def deciding_settings(training: Training, timetable: Timetable | None = None) -> dict[str, Any]:
    """What of the training settings decides the result; with a timetable, however its budget was written."""
    settings = asdict(training)
    if timetable is not None:
        settings |= {**asdict(timetable), "epochs": None}
    return {name: value for name, value in settings.items() if name not in SAME_RESULT}
