"""The settings that suit some images on some machine, each with its reason.

They are rules of thumb for the embedded backbone, a DINOv2 ViT-S/14. What must be learned decides how long
training is; what a time budget allows decides how large images are seen, and how many methods and seeds run.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from pipeline.commands.advice.machine import Machine
from pipeline.commands.advice.survey import Survey
from pipeline.commands.cost import Speed, cost_of, hours
from pipeline.config.params import Params
from pipeline.datasets.split_names import words_of

PATCH = 14  # pixels; the side of the backbone's patches
SMALLEST = 56  # pixels; 4 x 4 patches, of fewer the backbone makes little
SIZES_ON_CPU = (112, 84, SMALLEST)  # pixels, the best first
SIZES_ON_GPU = (224, 168, *SIZES_ON_CPU)
EPOCHS, FEW = 28, 500  # so many suit up to so many training images, and fewer more
SHARES = (1.0, 0.6)  # of the epochs, to be tried before images become smaller
LAST_SHARE = 0.3  # likewise, when they are at their smallest
LEAST_EPOCHS, LEAST_STEPS = 10, 500  # training is not shortened to less than both
UNBALANCED = 3  # times as many images in the largest class as in the smallest
MANY = 10_000  # training images, from which 7 evaluations in place of 10 tell enough
SEEDS = ([0, 1, 2], [0])  # the best first
METHODS: tuple[tuple[list[str], list[str]], ...] = (  # baseline and combined, beside stochca; the best first
    (["finetune", "lp_ft"], ["stochca+swad"]),
    (["finetune"], ["stochca+swad"]),
    (["finetune"], []),
)
GIB_PER_TOKEN = 0.5 / 1024  # of a GPU's memory in training, roughly
DIGITS = 10  # so many classes with names of one character are characters
LR, HEAD_LR_SCALE = 1.0e-5, 30


class Setting(NamedTuple):
    key: str  # of params.yaml, with dots
    value: Any
    why: str


@dataclass(frozen=True)
class Plan:
    """What time decides."""

    image_size: int
    epochs: float
    baseline: list[str]
    combined: list[str]
    seeds: list[int]
    seconds: float  # that it will take
    fits: bool  # into the budget


def advise(
    survey: Survey,
    machine: Machine,
    base: Params,
    speed_at: Callable[[int], Speed],
    budget: float,
) -> tuple[Plan, list[Setting]]:
    """Settings over those of `base`.

    Args:
        speed_at: how fast this machine is at an image size in pixels.
        budget: how long all training may take, in seconds.
    """
    validation, test = shares(survey.count)
    split = survey.split(validation, test)
    batch = batch_size(split.train)
    evaluations = 7 if split.train > MANY else 10
    selection = "balanced_accuracy" if survey.imbalance > UNBALANCED else "accuracy"
    training = replace(base.training, batch_size=batch, evaluations=evaluations, lr=LR, steps=None, epochs=1)
    plan = None
    for plan in _plans(survey, machine, split.train, batch):
        protocol = base.protocol.model_copy(
            update={"baseline": plan.baseline, "combined": plan.combined, "seeds": plan.seeds}
        )
        update = {
            "image_size": plan.image_size,
            "training": replace(training, epochs=plan.epochs),
            "protocol": protocol,
        }
        seconds = cost_of(base.model_copy(update=update), speed_at(plan.image_size), split).seconds
        plan = replace(plan, seconds=seconds, fits=seconds <= budget)
        if plan.fits:
            break
    assert plan is not None
    settings = [
        *_of_images(survey, validation, test),
        *_of_training(survey, plan, split.train, batch, evaluations, machine),
        *_of_protocol(survey, plan, selection, budget),
        *_of_search(machine),
    ]
    return plan, settings


def image_sizes(short_side: int, machine: Machine) -> list[int]:
    """Sides of what the backbone may see, in pixels, the best first: at most as large as the images are."""
    sizes = SIZES_ON_CPU if machine.gpu is None else SIZES_ON_GPU
    largest = max(short_side // PATCH * PATCH, SMALLEST)
    return sorted({min(size, largest) for size in sizes}, reverse=True)


def shares(images: int) -> tuple[float, float]:
    """Of the images that choose the weights, and of those that are tested on at the end."""
    if images < 3000:
        return 0.15, 0.25
    return (0.1, 0.2) if images < 20_000 else (0.05, 0.1)


def batch_size(train: int) -> int:
    return 16 if train < 2000 else 32 if train < MANY else 64


def epochs(train: int) -> float:
    """How often each of so many training images is seen: the more there are, the less often.

    It falls with the square root of their number, so that all training, in images, rises with that.
    """
    found = EPOCHS * min(1.0, math.sqrt(FEW / train))
    return round(found) if found >= 5 else round(found, 1)


def micro_batches(batch: int, image_size: int, memory: float | None) -> int:
    """How many parts a batch is split into, so that it fits into a GPU's memory (GiB)."""
    tokens = (image_size // PATCH) ** 2 + 1
    parts = 1
    while memory is not None and parts < batch and batch / parts * tokens * GIB_PER_TOKEN > 0.8 * memory:
        parts *= 2
    return parts


def _plans(survey: Survey, machine: Machine, train: int, batch: int) -> Iterator[Plan]:
    """What could be run, the best first: large images, many epochs, many methods, several seeds."""
    full = epochs(train)
    least = min(full, LEAST_EPOCHS, LEAST_STEPS * batch / train)
    sizes = image_sizes(survey.short_side, machine)
    trials = [(size, share) for size in sizes for share in SHARES]
    for size, share in [*trials, (sizes[-1], LAST_SHARE)]:
        for baseline, combined in METHODS:
            for seeds in SEEDS:
                some = max(full * share, least)
                number = round(some) if some >= 5 else round(some, 1)
                yield Plan(size, number, baseline, combined, seeds, seconds=math.inf, fits=False)


def _of_images(survey: Survey, validation: float, test: float) -> Iterator[Setting]:
    yield Setting("dataset.domains", None, _domains(survey))
    own = [name for name in ("val", "test") if name in survey.splits]
    for key, name, share in (("validation", "val", validation), ("test", "test", test)):
        images = (
            f"of {survey.count:,} images" if name not in own else f"not used: the images come with {name}"
        )
        yield Setting(f"dataset.{key}", share, images)


def _domains(survey: Survey) -> str:
    return f"all: {', '.join(survey.domains)}" if len(survey.domains) > 1 else "no domains were found"


def _of_training(
    survey: Survey, plan: Plan, train: int, batch: int, evaluations: int, machine: Machine
) -> Iterator[Setting]:
    yield Setting("image_size", plan.image_size, _why_size(survey, plan.image_size, machine))
    if survey.squashed:
        why = f"the images are {survey.length} times as long as wide, and with null their ends are cut off"
        yield Setting("resize", plan.image_size, why)
    yield Setting(
        "backbone.name",
        "vit_small_patch14_dinov2",
        "comes with the installation; with few images its pretraining counts most",
    )
    full = epochs(train)
    steps = steps_of(plan.epochs, train, batch)
    why = f"{steps:,} steps with {train:,} training images"
    if plan.epochs < full:
        why += f"; {full:g} would be better, and took longer than the time that was given"
    yield Setting("training.epochs", plan.epochs, why)
    yield Setting("training.steps", None, "epochs say it")
    yield Setting(
        "training.batch_size", batch, f"for {train:,} training images; small batches learn from few"
    )
    if (parts := micro_batches(batch, plan.image_size, machine.memory)) > 1:
        yield Setting("training.accumulate", parts, f"so that a step fits into {machine.memory:.0f} GiB")
    yield Setting("training.lr", LR, "low, so that what pretraining has learned stays")
    yield Setting("training.head_lr_scale", HEAD_LR_SCALE, "the head is new, and learns faster")
    yield Setting("training.warmup", 0.1, "until the new head is of some use")
    yield Setting("training.evaluations", evaluations, "enough to choose the weights; SWAD has its own")
    yield Setting(
        "training.patience", None, "every method is trained to its end, SWAD and the cosine need it"
    )
    weights = "balanced" if survey.imbalance > UNBALANCED else "none"
    yield Setting("training.class_weights", weights, _why_weights(survey))
    if len(survey.classes) >= DIGITS and all(len(name) == 1 for name in survey.classes):
        why = "the classes are called like characters, which mirrored mean something else"
        yield Setting("training.augmentation.horizontal_flip", 0.0, why)
    elif sides := _left_and_right(survey.classes):
        why = f"mirrored, images of {sides[0]} would look like {sides[1]}"
        yield Setting("training.augmentation.horizontal_flip", 0.0, why)
    yield Setting(
        "training.augmentation.vertical_flip",
        0.0,
        "0.5 where images have no top, as seen through a microscope",
    )


def _left_and_right(classes: Iterable[str]) -> tuple[str, str] | None:
    """Two classes whose names differ by the words left and right alone."""
    by_words = {tuple(words_of(name)): name for name in classes}
    for words, name in by_words.items():
        other = by_words.get(tuple("right" if word == "left" else word for word in words))
        if other is not None and other != name:
            return name, other
    return None


def steps_of(epochs: float, train: int, batch: int) -> int:
    return max(1, round(epochs * train / batch))


def _why_size(survey: Survey, size: int, machine: Machine) -> str:
    if survey.short_side < size:
        return (
            f"the images have {survey.short_side}, made larger to {size // PATCH} x {size // PATCH} patches"
        )
    best = image_sizes(survey.short_side, machine)[0]
    if size < best:
        return f"the images have {survey.short_side}; {best} would take longer than the time that was given"
    if survey.short_side < size + PATCH:
        return f"the images have {survey.short_side}, which is {size // PATCH} patches"
    return f"the images have {survey.short_side}; enough detail, at what a {_kind(machine)} can do"


def _kind(machine: Machine) -> str:
    return "CPU" if machine.gpu is None else "GPU"


def _why_weights(survey: Survey) -> str:
    by_number = sorted(survey.classes, key=lambda name: survey.classes[name])
    largest, smallest = by_number[-1], by_number[0]
    if survey.imbalance < 1.05:
        return "all classes have about as many images"
    return f"{largest} has {survey.imbalance:.1f} times the images of {smallest}"


def _of_protocol(survey: Survey, plan: Plan, selection: str, budget: float) -> Iterator[Setting]:
    why = "new images like these"
    if len(survey.domains) > 1:
        why += "; for a domain that training has not seen: leave_one_domain_out, with targets: " + _listed(
            survey.domains
        )
    yield Setting("protocol.name", "transfer", why)
    given = hours(budget)
    limit = f"what {given} allow" if plan.fits else f"the least there is; it takes longer than {given}"
    several = "so that verdicts cover the training seed"
    yield Setting("protocol.seeds", plan.seeds, several if len(plan.seeds) > 1 else limit)
    yield Setting("protocol.selection", selection, _why_weights(survey))
    all_methods = (plan.baseline, plan.combined) == METHODS[0]
    why = "fine-tuning, and a rival for StochCA" if all_methods else limit
    yield Setting("protocol.baseline", plan.baseline, why)
    yield Setting(
        "protocol.combined", plan.combined, "StochCA, averaged in a valley" if plan.combined else limit
    )


def _of_search(machine: Machine) -> Iterator[Setting]:
    if machine.gpu is not None:
        yield Setting("tune.resources", {"cpu": 1, "gpu": 1}, "one trial at a time, on the GPU")


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"
