"""What fine-tuning has done to a trained model: `stochca analyse`, and the stage of this name.

python -m pipeline.analyse METHOD
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pipeline.analysis import pictures as analysis_pictures
from pipeline.images.decoding import UnusableImage, decode
from pipeline.images.image_files import MAX_MEGAPIXELS, find_images
from pipeline.images.prepared import PreparedImages, load_prepared
from pipeline.images.sizes import Sides
from pipeline.runtime.files import replace_folder, write_json
from pipeline.runtime.paths import ANALYSES as REPORTS
from pipeline.runtime.paths import RESULTS
from pipeline.tracking.errors import reason_of
from pipeline.tracking.server import first_request
from pipeline.training.model_address import open_model
from pipeline.training.saved_model import BACKBONE, TrainedModel
from stochca._typing import TimmModule
from stochca.adapters.adapted import AdaptedModel
from stochca.analysis import attention_maps, block_features, linear_cka, weight_distances
from stochca.backbones.card import CARD_FILE, BackboneCard
from stochca.backbones.loading import load_backbone
from stochca.compute.devices import default_device
from stochca.errors import UserError

BATCH_SIZE = 64
FEW = 3  # test images or fewer tell nothing about how alike features are


@dataclass(frozen=True)
class Analysis:
    """Of each block, the trained model beside its backbone; the contents of `analysis.json`."""

    name: str
    method: str
    images: int  # that the features were compared on
    cka_class_token: list[float]  # linear CKA of the features; the patches' mean without a class token
    cka_patches: list[float]  # of the patches' mean
    weight_distance: list[float]  # |w - w0| / |w0|
    cross_attended: list[float]  # share of the training images; empty without StochCA or its results
    attention_maps: str | None  # None: there are; otherwise why not
    shown: list[str]  # the images of the attention maps


def analyse_model(
    model: Path,
    images: Sequence[Path] = (),
    *,
    compared: int = 256,
    shown: int = 4,
    tests: PreparedImages | None = None,
    target: Path | None = None,
) -> Iterator[str]:
    """Write the analysis of a trained model, and tell MLflow; gives lines about it.

    Features are compared on `compared` of the images `tests`, the test images of data/prepared unless
    told otherwise; attention is shown on `images`, which may be folders, or else on `shown` of those. The
    folder `target` is reports/analysis/NAME unless told otherwise.

    Raises:
        UserError: there is no such model, its backbone was left as it is, it was made from another one than
            data/backbone holds, or there are no images.
    """
    trained, path = open_model(model)
    if isinstance(trained.model, AdaptedModel):
        raise UserError(
            f"{trained.card['name']} is a backbone with {trained.model.title} around it, whose blocks are "
            "still the pretrained ones; analyse one whose blocks have learned, as with adapter: all or lora"
        )
    start = _backbone_of(trained)
    tests = tests or load_prepared().images("test")
    if len(tests) <= FEW:
        raise UserError(
            f"data/prepared has {len(tests)} test images, too few to compare features on; "
            f"it takes more than {FEW}"
        )
    chosen = _spread(len(tests), compared)
    pictures = [tests[i][0] for i in chosen]
    if images:
        looked_at = _read(find_images(list(images)), trained)
    else:
        looked_at = {tests.ids[chosen[i]]: pictures[i] for i in _spread(len(pictures), shown)}
    device = default_device()
    found, before = trained.model.to(device), start.to(device)
    similarity = _similarity(found, before, trained, pictures, device)
    inputs = torch.stack([trained.preprocessing.evaluation()(image) for image in looked_at.values()])
    maps: tuple[list[Tensor], list[Tensor]] | None = None
    problem = None
    try:
        maps = attention_maps(before, inputs.to(device)), attention_maps(found, inputs.to(device))
    except UserError as error:
        problem = str(error)
    analysis = Analysis(
        name=trained.card["name"],
        method=trained.card["method"],
        images=len(pictures),
        cka_class_token=[first for first, _ in similarity],
        cka_patches=[patches for _, patches in similarity],
        weight_distance=weight_distances(found, before),
        cross_attended=_cross_attended(trained),
        attention_maps=problem,
        shown=list(looked_at),
    )
    target = target or REPORTS / path.name
    with replace_folder(target) as folder:
        write_json(folder / "analysis.json", asdict(analysis))
        analysis_pictures.blocks(analysis).savefig(folder / "blocks.png", dpi=120)
        if maps is not None:
            squares = [_as_seen(image, trained) for image in looked_at.values()]
            backbone_maps, model_maps = ([one.cpu() for one in of_blocks] for of_blocks in maps)
            analysis_pictures.attention(squares, backbone_maps, model_maps).savefig(
                folder / "attention.png", dpi=120
            )
    yield from _summary(analysis)
    yield f"{target}/ has " + ", ".join(sorted(file.name for file in target.iterdir()))
    yield _log_to_mlflow(target, trained.card["mlflow_run_id"])


def _summary(analysis: Analysis) -> Iterator[str]:
    """One line per block."""
    crossed = analysis.cross_attended
    yield "block  CKA class token  CKA patches  weights moved" + ("  cross-attended" if crossed else "")
    for i, distance in enumerate(analysis.weight_distance):
        yield (
            f"{i:5}  {analysis.cka_class_token[i]:15.3f}  {analysis.cka_patches[i]:11.3f}  {distance:13.2%}"
            + (f"  {crossed[i]:14.1%}" if crossed else "")
        )
    if analysis.attention_maps:
        yield f"no picture of the attention: {analysis.attention_maps}"


def _log_to_mlflow(folder: Path, run_id: str) -> str:
    """Add the files to the run of the model; gives a sentence about it."""
    from mlflow.tracking import MlflowClient

    try:
        with first_request():
            MlflowClient().log_artifacts(run_id, str(folder), "analysis")
    except UserError as error:
        return f"not logged with MLflow: {error}"
    except Exception as error:  # MLflow's own, a database's, or that of a store of files
        return f"not logged with MLflow: {reason_of(error)}"
    return f"logged with the MLflow run {run_id}, under analysis/"


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
            images[str(file)] = decode(
                file.read_bytes(), short_side=short_side, max_megapixels=MAX_MEGAPIXELS
            ).image
        except (OSError, UnusableImage) as error:
            raise UserError(f"{file} can't be used: {error}") from None
    return images


@torch.inference_mode()
def _similarity(
    model: TimmModule,
    start: TimmModule,
    trained: TrainedModel,
    images: Sequence[Image.Image],
    device: torch.device,
) -> list[tuple[float, float]]:
    """Of each block the CKA of the class token and of the patches' mean."""
    transform = trained.preprocessing.evaluation()
    batches: list[list[list[tuple[Tensor, Tensor]]]] = []
    for first in range(0, len(images), BATCH_SIZE):
        inputs = torch.stack([transform(image) for image in images[first : first + BATCH_SIZE]]).to(device)
        batches.append([block_features(one, inputs) for one in (model, start)])

    def features(which: int, block: int, kind: int) -> Tensor:
        return torch.cat([batch[which][block][kind].cpu() for batch in batches])

    blocks = range(len(batches[0][0]))
    cka = [[linear_cka(features(0, i, kind), features(1, i, kind)) for kind in (0, 1)] for i in blocks]
    return [(first, patches) for first, patches in cka]


def _cross_attended(trained: TrainedModel) -> list[float]:
    """What training counted, if its results are here and are those of this model."""
    try:
        run: dict[str, Any] = json.loads((RESULTS / trained.card["name"] / "run.json").read_text())
    except (OSError, ValueError):
        return []
    same = run.get("mlflow_run_id") == trained.card["mlflow_run_id"]
    return run.get("cross_attended", []) if same else []


def _as_seen(image: Image.Image, trained: TrainedModel) -> Image.Image:
    """The part of an image that the model sees, not normalised."""
    mean, std = (torch.tensor(trained.card[name])[:, None, None] for name in ("mean", "std"))
    pixels = trained.preprocessing.evaluation()(image) * std + mean
    return Image.fromarray(pixels.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())
