"""What a params.yaml will cost: its runs, counted from the protocol, times the speed of this machine.

A run trains on steps x batch_size images, evaluates on validation every eval_every steps and on the test
images at the end; where one domain is held out it also tests every evaluation, for the oracle. An image that
is only evaluated costs a forward pass. StochCA adds the teacher's pass up to the deepest drawn block, at the
student's price, though a teacher in bf16 beside a student in fp32 is cheaper; a linear probe trains on the
forward pass alone; some penalties add one of the pretrained model.
"""

import math
from dataclasses import dataclass

from pipeline.config.datasets import Registered, registered
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

    @property
    def images_per_second(self) -> float:
        return 1 / self.train_image


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
    known = registered(params.dataset.name)
    if params.protocol.name == "leave_one_domain_out":
        return _held_out(known, params.dataset, target)
    split = _prepared(known, params.dataset)
    if params.protocol.name == "transfer":
        return split
    share, pool = float(target) / 100, split.train + split.validation
    validation = round(pool * params.dataset.validation * share)
    return Split(round(pool * share) - validation, validation, split.test)


def _prepared(known: Registered, dataset: Dataset) -> Split:
    """What the stage `prepare` makes of a dataset, equal pictures that it leaves out included."""
    images, validation, test = (known.images.get(split, 0) for split in ("train", "val", "test"))
    if known.domains:
        images = sum(_of_domains(known, dataset).values())
        test = round(images * dataset.test)
        images -= test
    total = images + test if known.domains else images
    drawn = 0 if validation else round(total * dataset.validation)
    fraction = dataset.train_fraction
    return Split(round((images - drawn) * fraction), validation or round(drawn * fraction), test)


def _held_out(known: Registered, dataset: Dataset, target: str) -> Split:
    from pipeline.images.protocol import HELD_OUT

    unseen = dataset.test if known.paired else 0.0  # the subjects that the target is tested on
    tested_apart = 0.0 if known.paired else dataset.test  # prepared as a test split, but part of the sources
    used = tested_apart + (1 - dataset.test) * dataset.train_fraction
    domains = _of_domains(known, dataset)
    sources = sum(count for name, count in domains.items() if name != target) * used
    test = domains.get(target, 0) * (unseen if known.paired else 1)
    return Split(round(sources * (1 - HELD_OUT)), round(sources * HELD_OUT), round(test))


def _of_domains(known: Registered, dataset: Dataset) -> dict[str, int]:
    chosen = dataset.domains or known.domains or ()
    return {name: known.images[name] for name in chosen if name in known.images}


def _evaluated_images(params: Params, method: Method, evaluations: int, split: Split) -> int:
    """Images that a run puts through the model without learning from them."""
    tests = 1 + {"none": 0, "last": 1, "all": evaluations}[params.protocol.keep_evaluated]
    features = split.train + split.validation if method.phases.reads_features else 0
    return evaluations * split.validation + tests * split.test + features
