"""What fine-tuning has done to a trained model: `stochca analyse`, and the stage `analyse`."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pipeline.analysis import pictures
from pipeline.images.decoding import UnusableImage, decode
from pipeline.images.image_files import MAX_MEGAPIXELS, find_images
from pipeline.images.prepared import PreparedImages, load_prepared
from pipeline.images.sizes import Sides
from pipeline.runtime.files import replace_folder, write_json
from pipeline.runtime.paths import BACKBONE, RESULTS, RUNS
from pipeline.tracking.run_folder import RunFolder
from pipeline.training.saved_model import TrainedModel
from stochca._typing import TimmModule
from stochca.adapters.adapted import AdaptedModel
from stochca.analysis import (
    attention_maps,
    block_features,
    has_class_token,
    linear_cka,
    weight_distances,
)
from stochca.backbones.card import CARD_FILE, BackboneCard
from stochca.backbones.loading import load_backbone
from stochca.compute.devices import default_device
from stochca.errors import UserError

BATCH_SIZE = 64
FEW = 3  # test images or fewer tell nothing about how alike features are


def analyse_model(
    trained: TrainedModel,
    target: Path,
    images: Sequence[Path] = (),
    *,
    compared: int = 256,
    shown: int = 4,
    tests: PreparedImages | None = None,
) -> Iterator[str]:
    """Write the analysis of a trained model into the folder `target`, and tell MLflow; gives lines about it.

    Features are compared on `compared` of the images `tests`, the test images of data/prepared unless
    told otherwise; attention is shown on `images`, which may be folders, or else on `shown` of those.

    Raises:
        UserError: its backbone was left as it is, it was made from another one than data/backbone holds, or
            there are no images.
    """
    if isinstance(trained.model, AdaptedModel):
        raise UserError(
            f"{trained.card['name']} is a backbone with {trained.model.title} around it, whose blocks are "
            "still the pretrained ones; analyse one whose blocks have learned, as with adapter: all"
        )
    start = _backbone_of(trained)
    tests = tests or load_prepared().images("test")
    if len(tests) <= FEW:
        raise UserError(
            f"data/prepared has {len(tests)} test images, too few to compare features on; "
            f"it takes more than {FEW}"
        )
    chosen = _spread(len(tests), compared)
    own = [tests[i][0] for i in chosen]
    if images:
        looked_at = _read(find_images(list(images)), trained)
    else:
        looked_at = {tests.ids[chosen[i]]: own[i] for i in _spread(len(own), shown)}
    device = default_device()
    models = start.to(device), trained.model.to(device)
    transform = trained.preprocessing.evaluation()
    class_token, patches = _similarity(*models, own, transform, device)
    has_one = has_class_token(trained.model)
    inputs = torch.stack([transform(image) for image in looked_at.values()])
    maps, problem = None, None
    try:
        maps = [attention_maps(model, inputs.to(device)) for model in models]
    except UserError as error:
        problem = str(error)
    analysis = {  # of each block, the trained model beside its backbone
        "name": trained.card["name"],
        "method": trained.card["method"],
        "images": len(own),  # that the features were compared on
        # Linear CKA of the features; empty without a class token.
        "cka_class_token": class_token if has_one else [],
        "cka_patches": patches,  # of the patches' mean
        "weight_distance": weight_distances(trained.model, start),  # |w - w0| / |w0|
        # Share of the training images; empty without StochCA or its results.
        "cross_attended": _cross_attended(trained),
        "attention_maps": problem,  # null: there are; otherwise why not
        "shown": list(looked_at),  # the images of the attention maps
    }
    with replace_folder(target) as folder:
        write_json(folder / "analysis.json", analysis)
        pictures.blocks(analysis).savefig(folder / "blocks.png", dpi=120)
        if maps is not None:
            squares = [_as_seen(image, trained) for image in looked_at.values()]
            of_backbone, of_model = ([one.cpu() for one in of_blocks] for of_blocks in maps)
            tokens = "the class token" if has_one else "all patches, on average"
            picture = pictures.attention(squares, of_backbone, of_model, tokens)
            picture.savefig(folder / "attention.png", dpi=120)
    yield from _summary(analysis)
    yield f"{target}/ has " + ", ".join(sorted(file.name for file in target.iterdir()))
    yield _tell_mlflow(target, trained.card["name"], trained.card["mlflow_run_id"])


def _summary(analysis: Mapping[str, Any]) -> Iterator[str]:
    """One line per block."""
    columns = [
        (title, analysis[name], form)
        for title, name, form in (
            ("CKA class token", "cka_class_token", ".3f"),
            ("CKA patches", "cka_patches", ".3f"),
            ("weights moved", "weight_distance", ".2%"),
            ("cross-attended", "cross_attended", ".1%"),
        )
        if analysis[name]
    ]
    yield "  ".join(["block", *(title for title, _, _ in columns)])
    for i in range(len(analysis["weight_distance"])):
        yield "  ".join([f"{i:5}", *(f"{values[i]:{len(title)}{form}}" for title, values, form in columns)])
    if analysis["attention_maps"]:
        yield f"no picture of the attention: {analysis['attention_maps']}"


def _tell_mlflow(files: Path, name: str, run_id: str) -> str:
    """Add the files to the run of the model; gives a sentence about it."""
    from pipeline.tracking.publish import why_it_waits  # MLflow takes its time to import

    run = RunFolder.of_known_run(RUNS / f"analyse-{name}", run_id)
    shutil.copytree(files, run.artifacts / "analysis", dirs_exist_ok=True)
    run.end("FINISHED")
    if reason := why_it_waits(run.folder):
        return f"not logged with MLflow: {reason}; for that run: stochca sync"
    return f"logged with the MLflow run {run_id}, under analysis/"


@torch.inference_mode()
def _similarity(
    start: TimmModule,
    model: TimmModule,
    images: Sequence[Image.Image],
    transform: Callable[[Image.Image], Tensor],
    device: torch.device,
) -> tuple[list[float], list[float]]:
    """Of each block the CKA of the two models' class tokens, and that of their patches' means."""
    batches = []
    for first in range(0, len(images), BATCH_SIZE):
        inputs = torch.stack([transform(image) for image in images[first : first + BATCH_SIZE]]).to(device)
        batches.append([block_features(each, inputs) for each in (model, start)])

    def features(which: int, block: int, kind: int) -> Tensor:
        return torch.cat([batch[which][block][kind].cpu() for batch in batches])

    class_token, patches = (
        [linear_cka(features(0, i, kind), features(1, i, kind)) for i in range(len(batches[0][0]))]
        for kind in (0, 1)
    )
    return class_token, patches


def _cross_attended(trained: TrainedModel) -> list[float]:
    """What training counted, if its results are here and are those of this model."""
    try:
        run: dict[str, Any] = json.loads((RESULTS / trained.card["name"] / "run.json").read_text())
    except (OSError, ValueError):
        return []
    same = run.get("mlflow_run_id") == trained.card["mlflow_run_id"]
    return run.get("cross_attended", []) if same else []


def _backbone_of(trained: TrainedModel) -> TimmModule:
    """The model that training started from, in evaluation mode."""
    card = BackboneCard.from_file(BACKBONE / CARD_FILE)
    wanted = trained.card["backbone"]["weights_sha256"]
    if card.weights_sha256 != wanted:
        raise UserError(
            f"{trained.card['name']} was trained from {trained.card['backbone']['architecture']} with "
            f"weights of the sha256 {wanted[:12]}…, but {BACKBONE} holds {card.architecture} with "
            f"{card.weights_sha256[:12]}…; set backbone and image_size in params.yaml to what the model was "
            "trained from, and run: dvc repro backbone"
        )
    return load_backbone(BACKBONE, num_classes=len(trained.classes)).eval()


def _spread(number: int, wanted: int) -> list[int]:
    """Places that are spread evenly over `number`, in order; all where fewer are there than are wanted."""
    wanted = min(number, wanted)
    return [i * number // wanted for i in range(wanted)]


def _read(files: Sequence[Path], trained: TrainedModel) -> dict[str, Image.Image]:
    short_side = Sides.of(trained.preprocessing.image_size, trained.preprocessing.resize).stored
    images = {}
    for file in files:
        try:
            decoded = decode(file.read_bytes(), short_side=short_side, max_megapixels=MAX_MEGAPIXELS)
            decoded = decoded.at(trained.levels)
            if decoded.note:
                print(f"{file} {decoded.note}", file=sys.stderr)
            images[str(file)] = decoded.image
        except (OSError, UnusableImage) as error:
            raise UserError(f"{file} can't be used: {error}") from None
    return images


def _as_seen(image: Image.Image, trained: TrainedModel) -> Image.Image:
    """The part of an image that the model sees, not normalised."""
    mean, std = (torch.tensor(trained.card[name])[:, None, None] for name in ("mean", "std"))
    pixels = trained.preprocessing.evaluation()(image) * std + mean
    return Image.fromarray(pixels.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())
