"""How each stage grows: with the number of images, and `compare` with the number of runs. Time and memory.

    python -m benchmarks.growth                                      # 10^3 to 10^5 images, 12 to 1,002 runs
    python -m benchmarks.growth --images 1000 10000 100000 1000000   # a million are 4 GB of small files

On folders DOMAIN/CLASS/* of small JPEGs, made up in a temporary folder (TMPDIR says where), with every stage
in a process of its own:

- prepare: the whole stage but what DVC does around it.
- first step: from opening the prepared images to the first training step of a transformer of 0.3 million
  parameters; then the median step, and an evaluation, for each of its images.
- search: `tune` with a single trial of 8 steps, Ray's start included; shipped is what machines get that do
  not have the project's folder.

Validation is capped at about 2,000 images, so that what an evaluation costs does not hide the rest. Memory is
what belongs to a process alone (anonymous memory); the table is mapped, and its pages are the system's.
"""

import io
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import alone, measured, options, print_head, print_row

DOMAINS, CLASSES = 4, 20
WIDTH, HEIGHT = 32, 24  # pixels
VALIDATION = 2_000  # images, at most
STEPS, BATCH_SIZE = 30, 32
METHODS, TEST_IMAGES = 6, 500  # of the runs that are compared, see tests/pipeline/synthetic_runs.py


def make_images(root: Path, count: int) -> None:
    """`count` JPEGs of noise, alike to look at but each with bytes of its own."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT // 8 + 1, WIDTH // 8 + 1, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((WIDTH, HEIGHT)).save(buffer, "JPEG", quality=85)
    start, rest = buffer.getvalue()[:2], buffer.getvalue()[2:]
    for place in range(DOMAINS * CLASSES):
        folder = root / f"domain_{place % DOMAINS}" / f"class_{place // DOMAINS:03}"
        folder.mkdir(parents=True)
        for number in range(place, count, DOMAINS * CLASSES):
            comment = f"{number:010}".encode()
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            (folder / f"{number:09}.jpg").write_bytes(start + segment + rest)


def prepare_there(root: Path, target: Path, count: int) -> dict[str, float]:
    from pipeline.config.params import load_params
    from pipeline.images.sizes import Sides
    from pipeline.prepare import prepare

    share = min(0.15, VALIDATION / count)
    changes = {"name": "image_folder", "root": str(root), "domains": None, "validation": share}
    dataset = load_params().dataset.model_copy(update=changes)
    return measured(lambda: prepare(dataset, Sides.of(224, None), target))


def train_there(target: Path) -> dict[str, float]:
    """As a training run goes, from the images to a few steps and one evaluation."""
    import stochca  # noqa: F401  isort: skip  (before timm, which it lets import torchvision)
    import timm
    import torch

    from pipeline.images.prepared import load_prepared
    from pipeline.images.protocol import images_for
    from stochca.config import Method
    from stochca.config.training import Training
    from stochca.data.preprocessing import Preprocessing
    from stochca.training.fit import fit
    from stochca.training.inputs import Inputs

    student = timm.create_model("test_vit", img_size=32, num_classes=CLASSES)
    settings = Training(steps=STEPS, batch_size=BATCH_SIZE, evaluations=1, precision="fp32")
    preprocessing = Preprocessing(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    forwards: list[float] = []
    student.register_forward_pre_hook(
        lambda module, inputs: forwards.append(time.perf_counter()) if module.training else None
    )
    validated = 0

    def train() -> object:
        nonlocal validated
        images = images_for(load_prepared(target), "transfer", "all", 0)
        validated = len(images.validation)
        return images, fit(
            Inputs(student, images.train, images.validation, Method(), settings, preprocessing),
            device=torch.device("cpu"),
        )

    started = time.perf_counter()
    whole = measured(train)
    steps = [after - before for before, after in pairwise(forwards)]
    step = statistics.median(steps)
    return {
        "first_step": forwards[0] - started,
        "step": step,
        "evaluation": max(0.0, started + whole["seconds"] - forwards[-1] - step) / validated,
        "memory": whole["memory"],
    }


def open_there(target: Path) -> dict[str, float]:
    """As a run opens the images that holds one domain out, which draws the splits anew."""
    from pipeline.images.prepared import load_prepared
    from pipeline.images.protocol import images_for

    return measured(lambda: images_for(load_prepared(target), "leave_one_domain_out", "domain_0", 0))


def search_there(project: Path, target: Path) -> dict[str, float]:
    from pipeline.search.task import plan
    from pipeline.tune import search
    from tests.pipeline.search.small_project import write_project

    params = write_project(project, {"trials": 1, "seeds": [0], "grace": 1})
    os.chdir(project)
    shutil.rmtree("data/prepared")
    target.rename("data/prepared")
    try:
        found = measured(lambda: search(plan(params), params))
        return found | {"shipped": plan(params).data.size()}
    finally:
        Path("data/prepared").rename(target)


def compare_there(project: Path) -> dict[str, float]:
    from pipeline.compare import compare
    from pipeline.config.params import load_params

    os.chdir(project)
    return measured(lambda: compare(load_params())) | {"page": Path("reports/index.html").stat().st_size}


def with_images(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        root, target = Path(name, "raw"), Path(name, "prepared")
        make_images(root, count)
        prepared = alone(prepare_there, root, target, count)
        opened, trained = alone(open_there, target), alone(train_there, target)
        searched = alone(search_there, Path(name, "project"), target)
    return {
        "prepare, s": prepared["seconds"],
        "images/s": count / prepared["seconds"],
        "prepare, MB": prepared["memory"],
        "open, s": opened["seconds"],
        "open, MB": opened["memory"],
        "first step, s": trained["first_step"],
        "step, ms": 1000 * trained["step"],
        "evaluation, ms/image": 1000 * trained["evaluation"],
        "training, MB": trained["memory"],
        "search, s": searched["seconds"],
        "shipped, MB": searched["shipped"] / 1e6,
    }


def with_runs(runs: int) -> dict[str, float]:
    from tests.pipeline.synthetic_runs import write_inputs

    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        project = Path(name, "project")
        write_inputs(project, seeds=range(runs // METHODS), test_images=TEST_IMAGES)
        found = alone(compare_there, project)
    return {"compare, s": found["seconds"], "memory, MB": found["memory"], "page, MB": found["page"] / 1e6}


def grow(what: str, counts: Sequence[int], measure: Callable[[int], dict[str, float]]) -> None:
    """Print what is measured with each count, and the power with which it grows between the last two."""
    rows: list[list[float]] = []
    for count in counts:
        found = measure(count)
        if not rows:
            print_head(what, *found)
        rows.append([count, *found.values()])
        print_row(*(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in rows[-1]))
    if len(rows) > 1:
        (fewer, *before), (more, *after) = rows[-2:]
        powers = [
            f"{math.log(b / a) / math.log(more / fewer):.2f}" if a > 0 and b > 0 else "–"
            for a, b in zip(before, after, strict=True)
        ]
        print_row("*power*", *powers)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--images", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, nargs="*", default=[12, 102, 1_002], help=f"of {METHODS} methods")
    arguments = parser.parse_args()
    print(f"images of {WIDTH} x {HEIGHT} pixels, runs with {TEST_IMAGES} test images\n")
    grow("images", arguments.images, with_images)
    grow("runs", arguments.runs, with_runs)


if __name__ == "__main__":
    main()
