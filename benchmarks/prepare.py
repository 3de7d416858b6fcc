"""How fast images are prepared, and how much memory each costs: it must not be its pixels.

    python -m benchmarks.prepare                               # 5,000, 20,000 and 60,000 small images
    python -m benchmarks.prepare --images 500 2000 --size 1024x768   # the speed with photographs

Makes folders DOMAIN/CLASS/* of JPEGs in a temporary folder, prepares them in a process of its own, and opens
them in another as a training run does that holds out one domain. Memory is what belongs to the process alone
(anonymous memory); the table is mapped, and its pages are the system's to take back.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

DOMAINS = 6
CLASSES = 345  # as many as DomainNet's
LARGE = 600_000  # images, about DomainNet's
MEGABYTE = 1e6


def make(root: Path, count: int, size: tuple[int, int]) -> None:
    """`count` JPEGs of noise, alike to look at but each with bytes of its own."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(
        0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8
    )
    Image.fromarray(pixels).resize(size).save(buffer, "JPEG", quality=85)
    start, rest = buffer.getvalue()[:2], buffer.getvalue()[2:]
    for number in range(count):
        folder = root / f"domain_{number % DOMAINS}" / f"class_{number // DOMAINS % CLASSES:03}"
        folder.mkdir(parents=True, exist_ok=True)
        comment = f"{number:08}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"image_{number:06}.jpg").write_bytes(start + segment + rest)


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Seconds that `work` takes, and the memory that it adds to this process, at most, in megabytes."""
    before = _own_memory()
    most, done = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, _own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return {"seconds": seconds, "memory": max(most, _own_memory()) - before}


def _own_memory() -> float:
    """Anonymous memory of this process, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / MEGABYTE
    raise RuntimeError("this system does not say how much memory a process has for itself")


def prepare_there(root: Path, target: Path) -> dict[str, float]:
    from pipeline.datasets.source import Sides
    from pipeline.prepare import prepare
    from pipeline.sections import Dataset

    dataset = Dataset.model_validate({"name": "image_folder", "root": str(root)})
    return measured(lambda: prepare(dataset, Sides.of(224, None), target))


def open_there(target: Path) -> dict[str, float]:
    from pipeline.prepared import load_prepared
    from pipeline.protocol import images_for

    kept: list[object] = []
    return measured(
        lambda: kept.append(images_for(load_prepared(target), "leave_one_domain_out", "domain_0", 0))
    )


def in_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.prepare", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def compare(counts: Sequence[int], size: tuple[int, int]) -> None:
    print(f"images of {size[0]} x {size[1]} pixels, stored for 224")
    print("| images | prepare | images/s | memory | per image | open | memory | per image |")
    print("| --: | --: | --: | --: | --: | --: | --: | --: |")
    results = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            root, target = Path(folder) / "raw", Path(folder) / "prepared"
            make(root, count, size)
            prepared = in_process("--prepare", str(root), str(target))
            opened = in_process("--open", str(target))
        results.append((count, prepared, opened))
        print(
            f"| {count:,} | {prepared['seconds']:.1f} s | {count / prepared['seconds']:,.0f} | "
            f"{_memory(prepared, count)} | {opened['seconds']:.2f} s | {_memory(opened, count)} |",
            flush=True,
        )
    if len(results) > 1:
        (fewer, *first), (more, *last) = results[0], results[-1]
        growth = [(b["memory"] - a["memory"]) / (more - fewer) for a, b in zip(first, last, strict=True)]
        print(
            f"{LARGE:,} images, by the growth from {fewer:,} to {more:,}: "
            f"{last[0]['memory'] + growth[0] * (LARGE - more):,.0f} MB to prepare "
            f"({growth[0] * MEGABYTE:,.0f} bytes for each), "
            f"{last[1]['memory'] + growth[1] * (LARGE - more):,.0f} MB to open "
            f"({growth[1] * MEGABYTE:,.0f} bytes for each)"
        )


def _memory(result: dict[str, float], count: int) -> str:
    return f"{result['memory']:.0f} MB | {result['memory'] * MEGABYTE / count:,.0f} B"


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 20_000, 60_000])
    parser.add_argument("--size", type=_size, default=(32, 24), help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--prepare", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        print(json.dumps(prepare_there(*arguments.prepare)))
    elif arguments.open:
        print(json.dumps(open_there(arguments.open)))
    else:
        compare(arguments.images, arguments.size)


if __name__ == "__main__":
    main()
