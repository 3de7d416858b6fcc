"""What a params.yaml will cost: its runs, counted from the protocol, times the speed of this machine.

A run trains on steps x batch_size images, evaluates on validation every eval_every steps and on the test
images at the end; where one domain is held out it also tests every evaluation, for the oracle. An image that
is only evaluated costs a forward pass. StochCA adds the teacher's pass up to the deepest drawn block, at the
student's price, though a teacher in bf16 beside a student in fp32 is cheaper; a linear probe trains on the
forward pass alone; some penalties add one of the pretrained model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config.datasets import registered
from pipeline.config.params import Params
from pipeline.config.sections import Dataset
from pipeline.config.tuned import TunedCrossAttention
from stochca.config import Method, StochasticCrossAttention
from stochca.config.training import Training

RUN_SECONDS = 12.0  # of a stage around its training, roughly: start, loading, tracking, DVC


@dataclass(frozen=True)
class Speed:
    """Seconds on one device, as measured."""

    device: str
    precision: str
    train_image: float  # forward, backward and loading of a training image in plain fine-tuning
    forward_image: float  # of an image, loading included
    step: float  # of the optimiser, whatever the batch size
    blocks: int  # of the architecture


@dataclass(frozen=True)
class Split:
    """How many images one target has."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Cost:
    runs: int
    training_images: int  # seen by all runs together, one that is seen again counted again
    evaluations: int  # of the validation images, of all runs together
    evaluated_images: int | None  # images in them and in the tests; None: the dataset's size is not known
    seconds: float


def cost_of(params: Params, speed: Speed) -> Cost:
    """The cost of every run of the protocol, one after the other."""
    protocol = params.protocol
    seeds = len(protocol.seeds)
    runs, training_images, evaluations, evaluated_images, seconds = 0, 0, 0, 0, 0.0
    for target in protocol.targets:
        split = split_of(params, target)
        for name in protocol.methods:
            method, training = params.methods[name], params.training_of(name)
            its_evaluations = 0 if protocol.refit else evaluations_of(training)
            seen = _evaluated_images(params, method, its_evaluations, split)
            runs += seeds
            training_images += seeds * training.steps * training.batch_size
            evaluations += seeds * its_evaluations
            evaluated_images += seeds * seen
            seconds += seeds * (RUN_SECONDS + training_seconds(method, training, speed))
            seconds += seeds * seen * speed.forward_image
    known = registered(params.dataset.name).images
    return Cost(runs, training_images, evaluations, evaluated_images if known else None, seconds)


def search_seconds(params: Params, speed: Speed) -> float:
    """What `make tune` takes at most, one trial after the other; bad ones are stopped early."""
    tune = params.tune
    training = params.training_with(tune.training)
    highest = max(tune.prob) if isinstance(tune.prob, tuple) else tune.prob.high
    method = Method(attention=StochasticCrossAttention(prob=highest), phases=tune.method.phases)
    validation = split_of(params, params.search_target).validation
    one = training_seconds(method, training, speed)
    one += evaluations_of(training) * validation * speed.forward_image
    return tune.trials * len(tune.seeds) * one


def evaluations_of(training: Training) -> int:
    """How often a run evaluates its validation images."""
    return math.ceil(training.steps / training.eval_every)


def training_seconds(method: Method, training: Training, speed: Speed) -> float:
    image = speed.forward_image if method.adapter.trains_head_alone else speed.train_image
    image += teacher_share(method, speed.blocks) * speed.forward_image
    if any(penalty.asks_pretrained for penalty in method.penalties):
        image += speed.forward_image  # through the pretrained model, once for both
    return training.steps * (training.batch_size * image + speed.step)


def teacher_share(method: Method, blocks: int) -> float:
    """The part of the teacher's blocks that runs on average: those before the deepest that is drawn."""
    attention = method.attention
    if isinstance(attention, TunedCrossAttention):
        attention = StochasticCrossAttention()
    if not isinstance(attention, StochasticCrossAttention):
        return 0.0
    probs = attention.prob if isinstance(attention.prob, tuple) else (attention.prob,) * blocks
    no_deeper, total = 1.0, 0.0  # the probability that none deeper than a block is drawn
    for prob in reversed(probs):
        total += 1 - no_deeper
        no_deeper *= 1 - prob
    return total / len(probs)


def split_of(params: Params, target: str) -> Split:
    """The images of a target; zeros for a dataset whose size is not known."""
    known, dataset = registered(params.dataset.name), params.dataset
    chosen = dataset.domains or known.domains or ()
    domains = {name: known.images[name] for name in chosen if name in known.images}
    if params.protocol.name == "leave_one_domain_out":
        return _held_out(domains, known.paired, dataset, target)
    # What the stage `prepare` makes of it, equal pictures that it leaves out included.
    images, validation, test = (known.images.get(split, 0) for split in ("train", "val", "test"))
    if domains:
        images = sum(domains.values())
        test = round(images * dataset.test)
    drawn = 0 if validation else round(images * dataset.validation)
    images -= test if domains else 0
    fraction = dataset.train_fraction
    split = Split(round((images - drawn) * fraction), validation or round(drawn * fraction), test)
    if params.protocol.name == "transfer":
        return split
    share, pool = float(target) / 100, split.train + split.validation
    validation = round(pool * dataset.validation * share)
    return Split(round(pool * share) - validation, validation, split.test)


def _held_out(domains: Mapping[str, int], paired: bool, dataset: Dataset, target: str) -> Split:
    from pipeline.images.protocol import HELD_OUT

    # Of pairs the target is tested on subjects that are unseen; else `test` images are part of the sources.
    used = (0 if paired else dataset.test) + (1 - dataset.test) * dataset.train_fraction
    sources = sum(count for name, count in domains.items() if name != target) * used
    test = domains.get(target, 0) * (dataset.test if paired else 1)
    return Split(round(sources * (1 - HELD_OUT)), round(sources * HELD_OUT), round(test))


def _evaluated_images(params: Params, method: Method, evaluations: int, split: Split) -> int:
    """Images that a run puts through the model without learning from them."""
    tests = 1 + {"none": 0, "last": 1, "all": evaluations}[params.protocol.keep_evaluated]
    features = split.train + split.validation if method.phases.reads_features else 0
    return evaluations * split.validation + tests * split.test + features


def cost_lines(params: Params, speed: Speed) -> list[str]:
    """What the params will cost on a machine, a line each."""
    protocol, cost = params.protocol, cost_of(params, speed)
    counts = ((protocol.methods, "method"), (protocol.targets, "target"), (protocol.seeds, "seed"))
    factors = [f"{len(each)} {name}{'s' if len(each) > 1 else ''}" for each, name in counts]
    evaluations = f"{cost.evaluations:,} evaluations on validation images"
    if cost.evaluated_images is None:
        evaluations += ", whose number is not known yet and is left out of the time below"
    else:
        evaluations += f", {cost.evaluated_images:,} images in these, the tests and linear probes"
    return [
        f"{cost.runs:,} runs: {' x '.join(factors)}",
        f"{cost.training_images:,} training images; {evaluations}",
        f"about {hours(cost.seconds)} on {speed.device} ({speed.precision}), measured "
        f"{1 / speed.train_image:.3g} training images/s with plain fine-tuning",
        f"the search before it, if you run `make tune`: at most {hours(search_seconds(params, speed))} more",
    ]


def hours(seconds: float) -> str:
    """``25 minutes``, ``3.4 hours``, ``1,200 hours``."""
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 36_000 else f"{seconds / 3600:,.0f} hours"
