"""Classifies image files with a trained model: `stochca predict`."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from pipeline.images.decoding import UnusableImage, decode
from pipeline.images.image_files import MAX_MEGAPIXELS, find_images
from pipeline.images.sizes import Sides
from pipeline.registry.model_address import open_model
from pipeline.runtime.progress import track
from pipeline.training.saved_model import TrainedModel
from stochca.compute.devices import default_device
from stochca.errors import UserError

BATCH_SIZE = 64
THREADS = min(8, os.cpu_count() or 1)  # each may hold a whole decoded image


@dataclass(frozen=True)
class Prediction:
    """An image and its likeliest classes, best first."""

    file: Path
    classes: list[str]
    probabilities: list[float]

    @property
    def shares(self) -> list[tuple[str, float]]:
        return list(zip(self.classes, self.probabilities, strict=True))


def predict_images(model: Path, images: list[Path], top: int) -> list[Prediction]:
    """Classify image files, and those anywhere in folders, in fp32; the `top` likeliest classes of each.

    Images that can't be used are left out and named on stderr, one line each; so is what is odd about others.

    Raises:
        UserError: a path does not exist or can't be read, `model` is no trained model (a folder or an
            address of the registry, as `pipeline.registry.model_address` reads them), or no image is
            left that can be used.
    """
    files = find_images(images)
    trained, _ = open_model(model)
    predictions: list[Prediction] = []
    said: list[str] = []
    for file, outcome, note in track(_classify(trained, files), len(files), "classifying images"):
        if note:
            said.append(f"{file} {note}")
        if isinstance(outcome, str):
            said.append(f"skipped {file}: {outcome}")
        else:
            best = outcome.topk(min(top, len(outcome)))
            classes = [trained.classes[i] for i in best.indices.tolist()]
            predictions.append(Prediction(file, classes, best.values.tolist()))
    for line in said:
        print(printable(line), file=sys.stderr)
    if not predictions:
        raise UserError("none of the images can be used; give other image files, or folders of them")
    return predictions


def show(results: list[Prediction], as_json: bool) -> None:
    """Print predictions on stdout: a table to read, or JSON.

    Where stdout is no terminal, the table has neither frame nor colour, and every line names its file.
    """
    if as_json:
        listed = [
            {
                "file": str(result.file),
                "predictions": [{"class": name, "probability": share} for name, share in result.shares],
            }
            for result in results
        ]
        print(json.dumps(listed, indent=2))
        return
    terminal = Console().is_terminal
    console = Console() if terminal else Console(width=10_000)  # nothing is cut in a file or a pipe
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("class", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    for result in results:
        name = printable(str(result.file))
        for class_name, probability in result.shares:
            # Text objects, because rich would read square brackets in plain strings as markup.
            table.add_row(Text(name), Text(printable(class_name)), Text(f"{probability:.1%}"))
            name = "" if terminal else name
    console.print(table)


def printable(text: str) -> str:
    """The text with escapes in place of what would steer a terminal: control characters and their like."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def _classify(
    trained: TrainedModel, files: Sequence[Path]
) -> Iterator[tuple[Path, Tensor | str, str | None]]:
    """Every file with its probabilities (classes,), in fp32 on the CPU, or the reason why there are none.

    What is odd about it comes last.
    """
    device = default_device()
    model = trained.model.to(device)
    transform = trained.preprocessing.evaluation()
    # Shrunk first as `prepare` does it, so that an image looks to the model as it did in training.
    short_side = Sides.of(trained.preprocessing.image_size, trained.preprocessing.resize).stored

    def read(file: Path) -> tuple[Tensor | str, str | None]:
        try:
            content = file.read_bytes()
            decoded = decode(content, short_side=short_side, max_megapixels=MAX_MEGAPIXELS).at(trained.levels)
        except OSError as error:
            return f"can't be read: {error.strerror or error}", None
        except UnusableImage as error:
            return str(error), None
        return transform(decoded.image), decoded.note

    with ThreadPoolExecutor(THREADS) as pool:  # Pillow decodes outside of Python's lock
        for start in range(0, len(files), BATCH_SIZE):
            batch = files[start : start + BATCH_SIZE]
            inputs = list(pool.map(read, batch))
            usable = [item for item, _ in inputs if isinstance(item, Tensor)]
            with torch.inference_mode():
                results = model(torch.stack(usable).to(device)).softmax(dim=1).cpu() if usable else ()
            probabilities = iter(results)
            for file, (item, note) in zip(batch, inputs, strict=True):
                yield file, item if isinstance(item, str) else next(probabilities), note
