"""What a params.yaml will cost here: its runs, counted from the protocol, times the speed of this machine.

A run trains on steps x batch_size images - epochs x training images, where it counts those - evaluates on
validation as often as it says and on the test images at the end; where one domain is held out it also tests
every evaluation, for the oracle. An image that is only evaluated costs a forward pass. StochCA adds the
teacher's pass up to the deepest drawn block, at the student's price, though a teacher in bf16 beside a
student in fp32 is cheaper; a linear probe trains on the forward pass alone; some penalties add one of the
pretrained model. The speed is measured: a few real steps with random weights. A run that ends early costs
less.
"""

import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from pipeline.config.datasets import registered
from pipeline.config.params import Params
from pipeline.config.sections import Dataset, Tune
from pipeline.config.tuned import TunedCrossAttention
from pipeline.images.prepared import MANIFEST, load_prepared
from pipeline.images.protocol import HELD_OUT, images_for
from pipeline.images.sizes import Sides
from pipeline.runtime.paths import PREPARED
from pipeline.search.space import number_of_trials
from pipeline.search.task import device_of_trials, loaders_of_trials, threads_of_trials
from stochca.attention.probability import one_per_block
from stochca.backbones.loading import create_backbone, patch_size
from stochca.compute.cores import cores_of_process
from stochca.compute.devices import default_device, device_name
from stochca.compute.precision import autocast, choose_attention_kernel, resolve_precision
from stochca.config import Method, StochasticCrossAttention
from stochca.config.timetable import Timetable
from stochca.config.training import Training
from stochca.data.batches import loader_processes
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.timm_models.families import block_names
from stochca.training.optimisation import create_optimizer

RUN_SECONDS = 12.0  # of a stage around its training, roughly: start, loading, tracking, DVC
CLASSES = 100  # of the head, which costs next to nothing
BUDGET = 2.0  # seconds for each kind of step, unless a single one takes longer
WORK_PER_CORE = 2e11  # operations of a measured step on a processor, by thread
MEAN = STD = (0.5, 0.5, 0.5)


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


def cost_here(params: Params) -> Iterator[str]:
    """What the params will cost on this machine, in lines."""
    yield f"What it will cost (measuring {params.backbone.name} at {params.image_size} pixels ...)"
    device = torch.device("cpu") if params.workers.on_cpus else default_device()
    for line in cost_lines(params, measure(params, device)):
        yield f"  {line}"
    yield from _unused_gpu(device, "workers.resources_per_worker", "worker")


def search_cost_here(params: Params) -> Iterator[str]:
    """What the search will cost on this machine, in lines."""
    yield f"What the search will cost (measuring {params.backbone.name} at {params.image_size} pixels ...)"
    tune, device = params.tune, device_of_trials(params.tune.resources)
    training = params.training_with(tune.training)
    training = replace(training, workers=loaders_of_trials(training, tune.resources))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads_of_trials(tune.resources))
    try:
        speed = measure(params.model_copy(update={"training": training}), device)
    finally:
        torch.set_num_threads(threads)
    trials, at_once = number_of_trials(tune, speed.blocks), side_by_side(tune)
    seeds = f"{len(tune.seeds)} seeds" if len(tune.seeds) > 1 else "one seed"
    together = f", up to {min(trials, at_once)} side by side" if min(trials, at_once) > 1 else ""
    longest = hours(search_seconds(params, speed, at_once))
    yield f"  {trials} trials on {seeds}{together}: at most {longest} on {speed.device} ({speed.precision})"
    yield f"  bad ones may be stopped once {tune.grace:.0%} of their steps are over"
    yield from _unused_gpu(device, "tune.resources", "trial")


def _unused_gpu(device: torch.device, section: str, each: str) -> Iterator[str]:
    """The line on a GPU of this machine that the work, on `device`, leaves alone."""
    if default_device() != device:
        gpu = device_name(default_device())
        yield f"  {gpu} is not used: {section}.gpu in params.yaml is 0; with 1 each {each} has a GPU"


def cost_of(params: Params, speed: Speed, split: Split | None = None) -> Cost:
    """The cost of every run of the protocol, one after the other.

    Args:
        split: the images of every target, where they are known otherwise than by `split_of`.
    """
    protocol = params.protocol
    seeds = len(protocol.seeds)
    runs, training_images, evaluations, evaluated_images, seconds = 0, 0, 0, 0, 0.0
    splits = [split or split_of(params, target) for target in protocol.targets]
    for its_split in splits:
        for name in protocol.methods:
            method, training = params.methods[name], params.training_of(name)
            timetable = _timetable(params, training, its_split, refit=protocol.refit)
            its_evaluations = 0 if protocol.refit else len(timetable.evaluations)
            seen = _evaluated_images(params, method, its_evaluations, its_split)
            runs += seeds
            training_images += seeds * timetable.steps * training.batch_size
            evaluations += seeds * its_evaluations
            evaluated_images += seeds * seen
            seconds += seeds * (RUN_SECONDS + training_seconds(method, training, timetable.steps, speed))
            seconds += seeds * seen * speed.forward_image
    are_known = all(each.train for each in splits)
    return Cost(runs, training_images, evaluations, evaluated_images if are_known else None, seconds)


def side_by_side(tune: Tune) -> int:
    """How many trials this machine runs at once, each at full speed: those that share a GPU wait for it."""
    needs = tune.resources
    room = cores_of_process() // max(1, needs.cpu)
    if needs.gpu:
        room = min(room, torch.cuda.device_count() // max(1, needs.gpu))
    return max(1, int(room if tune.concurrent == "auto" else min(room, tune.concurrent)))


def search_seconds(params: Params, speed: Speed, at_once: int) -> float:
    """What `make tune` takes at most, with so many trials at once; bad ones are stopped early."""
    tune = params.tune
    training = params.training_with(tune.training)
    highest = max(tune.prob) if isinstance(tune.prob, tuple) else tune.prob.high
    split = split_of(params, params.search_target)
    timetable = _timetable(params, training, split)
    one = training_seconds(tune.with_prob(highest), training, timetable.steps, speed)
    one += len(timetable.evaluations) * split.validation * speed.forward_image
    return ceil(number_of_trials(tune, speed.blocks) / at_once) * len(tune.seeds) * one


def _timetable(params: Params, training: Training, split: Split, *, refit: bool = False) -> Timetable:
    if training.steps is None and not split.train:
        raise UserError(
            f"what training.epochs of {params.dataset.name} cost is known once its images are counted; run: "
            "dvc repro prepare"
        )
    return training.timetable(split.train + (split.validation if refit else 0))


def training_seconds(method: Method, training: Training, steps: int, speed: Speed) -> float:
    image = speed.forward_image if method.adapter.trains_head_alone else speed.train_image
    image += teacher_share(method, speed.blocks, training.batch_size) * speed.forward_image
    if any(penalty.asks_pretrained for penalty in method.penalties):
        image += speed.forward_image  # through the pretrained model, once for both
    return steps * (training.batch_size * image + speed.step)


def teacher_share(method: Method, blocks: int, batch_size: int) -> float:
    """The part of the teacher's blocks that runs on average: those before the deepest that is drawn.

    One pass serves the batch, so the deepest of any of its images counts where every image draws. A schedule,
    which lowers the probability for a while, is left out.
    """
    attention = method.attention
    if isinstance(attention, TunedCrossAttention):
        attention = StochasticCrossAttention()
    if not isinstance(attention, StochasticCrossAttention):
        return 0.0
    draws = batch_size if attention.granularity == "sample" else 1
    no_deeper, total = 1.0, 0.0  # the probability that none deeper than a block is drawn
    for prob in reversed(one_per_block(attention.prob, blocks, attention.blocks).tolist()):
        total += 1 - no_deeper
        no_deeper *= (1 - prob) ** draws
    return total / blocks


def split_of(params: Params, target: str) -> Split:
    """The images of a target; zeros for a dataset whose size is not known before it is prepared."""
    known, dataset = registered(params.dataset.name), params.dataset
    of_source = known.images_of(dataset.source)
    if not of_source:
        return _prepared_split(params, target)
    chosen = dataset.domains or known.domains or ()
    domains = {name: of_source[name] for name in chosen if name in of_source}
    if params.protocol.name == "leave_one_domain_out":
        return _held_out(domains, known.paired, dataset, target)
    # What the stage `prepare` makes of it, equal pictures that it leaves out included.
    images, validation, test = (of_source.get(split, 0) for split in ("train", "val", "test"))
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


def _prepared_split(params: Params, target: str) -> Split:
    """As the stage `prepare` has left them, if that was with these settings."""
    if not (PREPARED / MANIFEST).exists():
        return Split(0, 0, 0)
    prepared, protocol = load_prepared(), params.protocol
    if prepared.manifest.get("settings") != params.dataset.which_images:
        return Split(0, 0, 0)
    images = images_for(prepared, protocol.name, target, protocol.seeds[0])
    return Split(len(images.train), len(images.validation), len(images.test))


def _held_out(domains: Mapping[str, int], paired: bool, dataset: Dataset, target: str) -> Split:
    # Of pairs the target is tested on subjects that are unseen; else `test` images are part of the sources.
    used = (1 - dataset.test if paired else 1) * dataset.train_fraction
    sources = sum(count for name, count in domains.items() if name != target) * used
    test = domains.get(target, 0) * (dataset.test if paired else 1)
    return Split(round(sources * (1 - HELD_OUT)), round(sources * HELD_OUT), round(test))


def _evaluated_images(params: Params, method: Method, evaluations: int, split: Split) -> int:
    """Images that a run puts through the model without learning from them."""
    tests = 1 + {"none": 0, "last": 1, "all": evaluations}[params.protocol.keep_evaluated]
    features = split.train + split.validation if method.phases.reads_features else 0
    return evaluations * split.validation + tests * split.test + features


def cost_lines(params: Params, speed: Speed, split: Split | None = None) -> list[str]:
    """What the params will cost on a machine, a line each; `split` as in `cost_of`."""
    protocol, cost = params.protocol, cost_of(params, speed, split)
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
        "the search before it, if you run `make tune`, comes on top; `stochca cost --search` says how long",
    ]


def hours(seconds: float) -> str:
    """``25 minutes``, ``3.4 hours``, ``1,200 hours``."""
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 36_000 else f"{seconds / 3600:,.0f} hours"


def measure(params: Params, device: torch.device | None = None) -> Speed:
    """Train a few micro-batches of noise at the image size of `params`; about 20 seconds at most.

    Args:
        device: None: what trainings compute on here.

    Raises:
        UserError: timm has no such architecture, or a micro-batch does not fit into the device's memory.
    """
    settings = params.training
    device = device or default_device()
    precision = resolve_precision(settings.precision, device)
    model = create_backbone(
        params.backbone.name,
        image_size=params.image_size,
        num_classes=CLASSES,
        global_pool=params.backbone.global_pool,
        drop_path=settings.drop_path,
    ).to(device)
    model.set_grad_checkpointing(settings.gradient_checkpointing)
    choose_attention_kernel(model, precision, device)
    optimizer = create_optimizer(model, settings)
    size = settings.batch_size // settings.accumulate
    if device.type == "cpu":  # as many images as a few seconds allow
        weights = sum(parameter.numel() for parameter in model.parameters())
        tokens = (params.image_size // patch_size(model)) ** 2
        work = 6 * weights * tokens  # of a training image: two operations per weight, forward and twice back
        size = min(size, max(1, int(WORK_PER_CORE * torch.get_num_threads() / work)))

    side = params.image_size

    def train() -> None:
        with autocast(precision, device):
            loss = functional.cross_entropy(model(images).float(), labels)
        loss.backward()

    def forward() -> None:
        with torch.no_grad(), autocast(precision, device):
            model(images)

    try:
        images = torch.randn(size, 3, side, side, device=device)
        labels = torch.randint(0, CLASSES, (size,)).to(device)
        with torch.no_grad(), autocast(precision, device):
            model(images[:1])  # whatever a first call sets up
        model.train()
        train_batch = _seconds(train, device, BUDGET)
        optimizer_step = _seconds(optimizer.step, device, BUDGET)
        model.eval()
        forward_batch = _seconds(forward, device, BUDGET)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{size} images of {side} pixels don't fit into the memory of "
            f"{device_name(device)} at once; raise training.accumulate, which splits a step, or set "
            "training.gradient_checkpointing: true"
        ) from None
    waiting = _loading(params)
    workers = loader_processes(settings.workers)

    def with_loading(compute: float) -> float:
        return max(compute, waiting / workers) if workers else compute + waiting

    return Speed(
        device=device_name(device) or device.type,
        precision=precision,
        train_image=with_loading(train_batch / size),
        forward_image=with_loading(forward_batch / size),
        step=optimizer_step,
        blocks=len(block_names(model)),
    )


def _loading(params: Params) -> float:
    """Seconds of one process to decode and augment a stored image."""
    side = Sides.of(params.image_size, params.resize).stored
    noise = np.random.default_rng(0).integers(0, 256, (side // 8 + 1, side // 8 + 1, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(file, "JPEG")
    transform = Preprocessing(params.image_size, MEAN, STD, resize=params.resize).training(
        params.training.augmentation
    )

    def load() -> None:
        transform(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))

    return _seconds(load, torch.device("cpu"), 0.5)


def _seconds(call: Callable[[], object], device: torch.device, budget: float) -> float:
    """The median over calls that fit into the budget, after a first one; that alone if it takes longer."""

    def timed() -> float:
        started = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    first = timed()
    if first >= budget:
        return first
    durations = [timed()]
    while sum(durations) + durations[-1] < budget:
        durations.append(timed())
    return statistics.median(durations)
