"""Why StochCA wins or does not: how well each block of the frozen backbone tells the classes apart.

    python -m benchmarks.why [--target color]

By a linear probe per block. Run it where `make repro` has prepared data/backbone and data/prepared. The
probes are chosen on validation images; the last columns are the test, which is shown and decides nothing.
"""

import stochca  # isort: skip  # noqa: F401  (before timm, which it lets import torchvision)
import torch
from torch import Tensor

from benchmarks.measuring import options, print_head, print_row
from pipeline.config.params import load_params
from pipeline.images.prepared import load_prepared
from pipeline.images.protocol import images_for
from pipeline.runtime.paths import BACKBONE
from stochca._typing import TimmModule
from stochca.analysis import block_features
from stochca.backbones.card import BackboneCard
from stochca.backbones.loading import load_backbone
from stochca.data.batches import evaluation_batches
from stochca.data.images import Images
from stochca.data.preprocessing import Preprocessing
from stochca.evaluation import score
from stochca.phases.linear_head import best_regression

STRENGTHS = (0.001, 0.01, 0.1)  # of the probes


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--target", help="one of protocol.targets (default: the first)")
    arguments = parser.parse_args()
    params = load_params()
    target = arguments.target or params.protocol.targets[0]
    prepared = load_prepared()
    images = images_for(prepared, params.protocol.name, target, 0)
    classes = len(prepared.classes)
    print(f"target {target}\n")
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


if __name__ == "__main__":
    main()
