"""Writes a trained model for use elsewhere, and checks it against the original: `stochca export`."""

import json
import shlex
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.images.prepared import load_prepared
from pipeline.registry.model_address import open_model
from pipeline.report.model_card import FILE as CARD
from pipeline.report.model_card import model_card, run_of
from pipeline.runtime.files import replace_file, replace_folder
from pipeline.training.saved_model import TrainedModel
from stochca.adapters.adapted import AdaptedModel
from stochca.compute.precision import attention_kernel
from stochca.errors import UserError

IMAGES = 16  # that the exported model is checked on
BATCH_SIZES = (1, 3, IMAGES)  # that the graph is checked with
TOLERANCE = 1e-3  # largest difference of a logit
ONNX_BYTES = 2**31  # what a file of this format holds at most
TIMM_PREPROCESSING = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
PREPROCESSING = ("image_size", *TIMM_PREPROCESSING)  # what the metadata of the graph tell of it
TIMM_FILES = {"config.json", "model.safetensors", CARD}

Logits = Callable[[Sequence[Image.Image]], Tensor]


def export_model(model: Path, to: str, output: Path | None) -> str:
    """Write a trained model as ``timm`` (a folder) or ``onnx`` (a file), whole or not at all.

    Args:
        model: a folder, in which nothing is written, or an address of the registry; see
            `pipeline.registry.model_address`.
        to: one of `EXPORTERS`.
        output: where to write; None: beside the model, as NAME-timm or NAME.onnx, and here as
            NAME-VERSION-timm or NAME-VERSION.onnx for an address. What an earlier export left there is
            replaced.

    Returns:
        A sentence: what was written, and how close its logits are to the original's on which images.

    Raises:
        UserError: `model` is no trained model, `output` can't be written or would
            replace something else, or the logits differ by more than `TOLERANCE`.
    """
    export, suffix = EXPORTERS[to]
    trained, named = open_model(model)
    if output is None:
        named = named if named.name not in ("", "..") else named.resolve()
        output = named.with_name(named.name + suffix)
    elif model.resolve() in (output.resolve(), *output.resolve().parents):
        raise UserError(f"{output} lies in the model's own folder, which DVC watches; choose another place")
    try:
        return f"{output}: {export(trained, output)}"
    except OSError as error:
        raise UserError(f"{output} can't be written: {error.strerror or error}") from None


def export_timm(trained: TrainedModel, output: Path) -> str:
    """Write the folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` reads.

    With its model card it is ready for the hub of Hugging Face; the upload is the user's.
    """
    import timm
    from timm.data import create_transform, resolve_data_config

    if isinstance(trained.model, AdaptedModel):
        raise UserError(
            f"{trained.card['name']} is a backbone with {trained.model.title} around it, which timm can't "
            "express; export it --to onnx"
        )
    if output.exists() and not (output.is_dir() and {path.name for path in output.iterdir()} <= TIMM_FILES):
        raise UserError(f"{output} exists and is no earlier export; choose a folder that does not exist yet")
    card, preprocessing = trained.card, trained.preprocessing
    with replace_folder(output) as folder:
        timm.models.save_for_hf(
            trained.model,
            str(folder),
            model_config={
                "label_names": trained.classes,
                **({} if trained.levels is None else {"levels": trained.levels}),
                "pretrained_cfg": {
                    "input_size": (3, preprocessing.image_size, preprocessing.image_size),
                    **{name: getattr(preprocessing, name) for name in TIMM_PREPROCESSING},
                    "license": card["backbone"]["license"],
                    **dict.fromkeys(("tag", "origin_url", "notes", "paper_name", "paper_ids")),
                },
            },
            model_args={"img_size": preprocessing.image_size, **card["options"]},
            safe_serialization=True,
        )
        loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        transform = create_transform(**resolve_data_config({}, model=loaded))

        @torch.inference_mode()
        def exported(batch: Sequence[Image.Image]) -> Tensor:
            return loaded(torch.stack([transform(image) for image in batch]))

        tested, without = None, ""
        try:
            tested = run_of(trained)
        except UserError as error:
            without = f"; {CARD} tells no scores, because {error}"
        (folder / CARD).write_text(model_card(trained, tested), encoding="utf-8")
        return (
            f"{_checked(trained, exported, folder)}; load it with "
            f'timm.create_model("local-dir:{output}", pretrained=True){without}; once you have read its '
            f"{CARD}, share it with: hf upload USER/NAME {shlex.quote(str(output))}"
        )


def export_onnx(trained: TrainedModel, output: Path) -> str:
    """Write one ONNX file: ``images`` (B, 3, size, size), normalised, to ``logits`` (B, classes)."""
    if output.suffix.lower() != ".onnx" or output.is_dir():
        raise UserError(f"{output} is no file name for ONNX; choose one that ends with .onnx")
    if sum(weights.nbytes for weights in trained.model.state_dict().values()) >= ONNX_BYTES:
        raise UserError("the model is larger than the 2 GB that an ONNX file holds; export it --to timm")
    transform = trained.preprocessing.evaluation()
    with replace_file(output) as path:
        _write_graph(trained, path)
        runtime, run = _runtime(path)

        def exported(batch: Sequence[Image.Image]) -> Tensor:
            inputs = torch.stack([transform(image) for image in batch]).numpy()
            return torch.from_numpy(run(["logits"], {"images": inputs})[0])

        return f"{_checked(trained, exported, path)}, computed by {runtime}"


EXPORTERS: dict[str, tuple[Callable[[TrainedModel, Path], str], str]] = {
    "timm": (export_timm, "-timm"),
    "onnx": (export_onnx, ".onnx"),
}


def _checked(trained: TrainedModel, exported: Logits, written: Path) -> str:
    """The size of what was written, and how close its logits are to the original's on which images."""
    images, described = sample_images(trained.preprocessing.image_size)
    difference = compare(trained, exported, images)
    size = sum(file.stat().st_size for file in (written.iterdir() if written.is_dir() else [written]))
    return f"{size / 1e6:.1f} MB; logits differ from the original by at most {difference:.1e} on {described}"


def compare(trained: TrainedModel, exported: Logits, images: Sequence[Image.Image]) -> float:
    """The largest absolute difference of a logit between the original and an export, in several batch sizes.

    Raises:
        UserError: it is larger than `TOLERANCE`, or not a number.
    """
    transform = trained.preprocessing.evaluation()
    with torch.inference_mode():
        original = trained.model(torch.stack([transform(image) for image in images]))
    differences = []
    for size in BATCH_SIZES:
        places = [place % len(images) for place in range(size)]
        logits = exported([images[place] for place in places])
        differences.append((logits - original[places]).abs().max())
    largest = torch.stack(differences).max().item()
    if not largest <= TOLERANCE:  # not a number neither
        raise UserError(
            f"the exported model's logits differ from the original's by {largest:.1e}, more than "
            f"{TOLERANCE:.0e}, so it was not kept"
        )
    return largest


def sample_images(image_size: int) -> tuple[list[Image.Image], str]:
    """Test images from all over the prepared ones, and what they are; noise where there are none."""
    try:
        test = load_prepared().images("test")
        number = min(IMAGES, len(test))
        places = np.linspace(0, len(test) - 1, number).round().astype(int)
        return [test[int(place)][0] for place in places], f"{number} test images"
    except UserError as error:
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (IMAGES, image_size, image_size, 3), dtype=np.uint8)
        return [Image.fromarray(noise) for noise in pixels], f"{IMAGES} images of noise ({error})"


def _write_graph(trained: TrainedModel, path: Path) -> None:
    from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass

    preprocessing = trained.preprocessing
    example = torch.zeros(2, 3, preprocessing.image_size, preprocessing.image_size)
    # Fused attention with a bias, as in BEiT, gives a graph of this one batch size.
    with warnings.catch_warnings(action="ignore"), attention_kernel(trained.model, fused=False):
        program: Any = torch.onnx.export(
            trained.model,
            (example,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    ClearMetadataAndDocStringPass()(program.model)  # it names source files of this machine
    program.model.metadata_props.update(
        class_names=json.dumps(trained.classes),
        **({} if trained.levels is None else {"levels": json.dumps(trained.levels)}),
        **{name: json.dumps(getattr(preprocessing, name)) for name in PREPROCESSING},
    )
    program.save(path, external_data=False)


def _runtime(path: Path) -> tuple[str, Callable[[list[str], dict[str, np.ndarray]], list[np.ndarray]]]:
    """What runs ONNX graphs here: onnxruntime where it is installed."""
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return "the reference implementation of ONNX", ReferenceEvaluator(str(path)).run
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return "onnxruntime", session.run
