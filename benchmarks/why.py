"""Why StochCA wins or does not, on the data and the backbone of this workspace.

    python -m benchmarks.why features      # a linear probe per block of the frozen backbone
    python -m benchmarks.why variations    # probability, blocks, pooling, learning rate, steps

Run it where `make repro` has prepared data/backbone and data/prepared. Everything is chosen on validation
images; the last column is the test, which is shown and decides nothing.
"""

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import stochca  # isort: skip  # noqa: F401  (before timm, which it lets import torchvision)
import torch
from torch import Tensor

from benchmarks.measuring import options, print_head, print_row
from pipeline.config.params import load_params
from pipeline.images.prepared import load_prepared
from pipeline.images.protocol import RunImages, images_for
from stochca._typing import TimmModule
from stochca.analysis import block_features
from stochca.backbones.card import BackboneCard
from stochca.backbones.loading import load_backbone
from stochca.compute.devices import default_device
from stochca.config import Method, StochasticCrossAttention
from stochca.config.training import Training
from stochca.data.batches import evaluation_batches
from stochca.data.images import Images
from stochca.data.preprocessing import Preprocessing
from stochca.evaluation import predict, score
from stochca.phases.linear_head import best_regression
from stochca.training.fit import fit
from stochca.training.inputs import Inputs

BACKBONE = Path("data/backbone")
STRENGTHS = (0.001, 0.01, 0.1)  # of the probes


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("what", choices=["features", "variations"])
    parser.add_argument("--target", help="one of protocol.targets (default: the first)")
    parser.add_argument("--trials", type=int, default=2, help="variations: seeds (default: %(default)s)")
    parser.add_argument("--only", default="", help="variations: those whose name contains this")
    arguments = parser.parse_args()
    params = load_params()
    target = arguments.target or params.protocol.targets[0]
    prepared = load_prepared()
    trials = range(1 if arguments.what == "features" else arguments.trials)
    images = [images_for(prepared, params.protocol.name, target, trial) for trial in trials]
    print(f"target {target}\n")
    if arguments.what == "features":
        show_features(images[0], len(prepared.classes))
    else:
        show_variations(images, len(prepared.classes), params.training, arguments.only)


def show_features(images: RunImages, classes: int) -> None:
    """How well each block of the frozen backbone tells the classes apart, by logistic regression."""
    model = load_backbone(BACKBONE, num_classes=classes)
    train, validation, test = (
        features(model, part) for part in (images.train, images.validation, images.test)
    )
    parts = ("validation", "test")
    print_head("block", *(f"{part}, {what}" for part in parts for what in ("class token", "mean of patches")))
    for block in range(len(model.blocks)):
        found = [probe(train, validation, test, block, pooling, classes) for pooling in (0, 1)]
        print_row(str(block), *(f"{100 * found[p][part]:.1f}" for part in (0, 1) for p in (0, 1)))


Features = tuple[list[tuple[Tensor, Tensor]], Tensor]


def features(model: TimmModule, images: Images) -> Features:
    """Per block the class tokens and means (N, D), and the labels (N,)."""
    preprocessing = Preprocessing.of(BackboneCard.from_file(BACKBONE / "card.json"))
    batches, labels = [], []
    for batch, batch_labels in evaluation_batches(images, preprocessing, batch_size=64):
        batches.append(block_features(model, batch))
        labels.append(batch_labels)
    joined = [
        (torch.cat([batch[block][0] for batch in batches]), torch.cat([batch[block][1] for batch in batches]))
        for block in range(len(batches[0]))
    ]
    return joined, torch.cat(labels)


def probe(
    train: Features, validation: Features, test: Features, block: int, pooling: int, classes: int
) -> tuple[float, float]:
    """Validation and test accuracy of the regression whose strength is best on validation."""
    rows = train[0][block][pooling]
    mean, std = rows.mean(dim=0), rows.std(dim=0).clamp_min(1e-6)
    fitted, held_out, tested = (
        ((part[0][block][pooling] - mean) / std, part[1]) for part in (train, validation, test)
    )
    best = best_regression(fitted, held_out, classes, STRENGTHS)
    logits = tested[0] @ best.weight.T + best.bias
    return best.scores.accuracy, score(logits, tested[1]).accuracy


def variations(training: Training, depth: int) -> Iterator[tuple[str, Method, Mapping[str, Any], str | None]]:
    """Name, method, training overrides, pooling."""
    plain = Method()
    early = round(0.75 * depth)

    def crossing(prob: float, blocks: range = range(depth)) -> Method:
        return Method(
            attention=StochasticCrossAttention(prob=tuple(prob if i in blocks else 0.0 for i in range(depth)))
        )

    yield "finetune", plain, {}, None
    for prob in (0.05, 0.1, 0.3, 0.5):
        yield f"stochca p={prob}", crossing(prob), {}, None
    yield f"stochca p=0.1, first {early} blocks", crossing(0.1, range(early)), {}, None
    yield f"stochca p=0.1, last {depth - early} blocks", crossing(0.1, range(early, depth)), {}, None
    for name, method in (("finetune", plain), ("stochca p=0.1", crossing(0.1))):
        yield f"{name}, mean of patches", method, {}, "avg"
        for factor in (0.3, 3.0):
            yield f"{name}, lr x {factor}", method, {"lr": training.lr * factor}, None
        for factor in (4, 12):
            longer = {"steps": training.steps * factor, "eval_every": training.eval_every * factor}
            yield f"{name}, steps x {factor}", method, longer, None


def show_variations(trials: Sequence[RunImages], classes: int, training: Training, only: str) -> None:
    card = BackboneCard.from_file(BACKBONE / "card.json")
    print_head("variation", "validation", "test", "per trial")
    for name, method, overrides, pooling in variations(training, card.blocks):
        if only not in name:
            continue
        settings = dataclasses.replace(training, **overrides)
        found = [
            run(images, classes, method, settings, pooling, trial) for trial, images in enumerate(trials)
        ]
        validation, test = ([pair[i] for pair in found] for i in (0, 1))
        each = ", ".join(f"{100 * accuracy:.1f}" for accuracy in test)
        print_row(name, summary(validation), summary(test), each)


def run(
    images: RunImages, classes: int, method: Method, settings: Training, pooling: str | None, seed: int
) -> tuple[float, float]:
    """Validation and test accuracy of the selected weights."""
    card = BackboneCard.from_file(BACKBONE / "card.json")
    student = load_backbone(BACKBONE, num_classes=classes, drop_path=settings.drop_path, seed=seed)
    if pooling is not None:
        student.global_pool = pooling
    preprocessing = Preprocessing.of(card)
    inputs = Inputs(student, images.train, images.validation, method, settings, preprocessing)
    fitted = fit(dataclasses.replace(inputs, domains=images.domains, seed=seed))
    logits, labels = predict(
        student, images.test, preprocessing, device=default_device(), precision=fitted.precision
    )
    assert fitted.validation is not None
    return fitted.validation.accuracy, score(logits, labels).accuracy


def summary(values: list[float]) -> str:
    """Mean ± sample standard deviation, in percent."""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
