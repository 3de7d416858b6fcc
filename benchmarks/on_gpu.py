"""All that is meant for a GPU, on one: tests, steps, exact resuming, two ranks, throughput, and the map.

    python -m benchmarks.map pack              # once, where the pipeline is: the map's two files
    python -m benchmarks.on_gpu --minutes 9    # needs torch, timm, torchvision, peft, pandas and pytest
    python -m benchmarks.on_gpu --rehearse     # on a CPU, with tiny settings

The most telling parts come first, each in a process of its own. What a part has printed is written when it
ends, to gpu.json and gpu.md in the folder; one that fails or takes too long is noted and passed over.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.map import FOLDER
from benchmarks.measuring import options

STEP = ["-m", "benchmarks.step", "--precision", "bf16"]
BASE = ["--model", "vit_base_patch16_224", "--image-size", "224", "--batch-size", "64", "--steps", "12"]
LARGE = ["--model", "vit_large_patch16_224", "--image-size", "224", "--batch-size", "32", "--steps", "8"]
SMALL = ["--model", "test_vit", "--image-size", "160", "--batch-size", "2", "--steps", "3", "--warm-up", "1"]
TESTS = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


@dataclass(frozen=True)
class Part:
    title: str
    seconds: float  # at most
    arguments: list[str]  # of Python
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    title: str
    command: str
    ended: str  # well | with code N | cut off
    seconds: float
    printed: str


def parts(device: str, *, rehearse: bool) -> Iterator[Part]:
    """In order of what they tell, without the map."""
    base, large = (SMALL, SMALL) if rehearse else (BASE, LARGE)
    on_device = {"STOCHCA_TEST_DEVICE": device}
    yield Part("Every part of a method", 120, [*TESTS, "tests/stochca/compute/test_devices.py"], on_device)
    plain = ["--methods", "finetune", "stochca", "stochca, naive"]
    yield Part("One step", 90, [*STEP, *base, *plain, "--prob", "0.1", "0.3", "1"])
    yield Part("One step, memory", 60, [*STEP, *base, *plain, "--memory"])
    yield Part("One step, compiled", 120, [*STEP, *base, *plain[:-1], "--compile"])
    many = ["finetune", "stochca, per image", "stochca+swad", "miro", "lora", "toast"]
    yield Part("Other methods", 60, [*STEP, *base, "--methods", *many])
    yield Part("A larger model", 60, [*STEP, *large, *plain[:-1]])
    resumes = [*TESTS, "tests/stochca/training/test_fit.py", "-k", "resumed"]
    yield Part("Exact resuming", 60, resumes, on_device | DETERMINISTIC)
    ranks = [*TESTS[:-1], "slow", "tests/stochca/compute/test_distributed.py", "-k", "resume or same_weights"]
    yield Part("Two ranks, over gloo", 90, ranks, on_device | DETERMINISTIC)
    loop = ["--workers", "0"] if rehearse else ["--workers", "0", "8", "--steps", "30", "--precision", "bf16"]
    yield Part("Throughput", 90, ["-m", "benchmarks.throughput", "--runs", "1", *base, *loop])


def run(part: Part, seconds: float) -> Outcome:
    """Run one part for so many seconds at most."""
    started = time.monotonic()
    command = [sys.executable, *part.arguments]
    with subprocess.Popen(
        command,
        env={**os.environ, **part.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=seconds)
            ended = "well" if process.returncode == 0 else f"with code {process.returncode}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # its workers too
            printed, _ = process.communicate()
            ended = "cut off"
    said = " ".join(["python", *part.arguments])
    lines = [line.rpartition("\r")[2] for line in printed.splitlines()]
    lines = [line for line in lines if not line.startswith("round ")]  # how far it was
    return Outcome(part.title, said, ended, round(time.monotonic() - started, 1), "\n".join(lines[-60:]))


def write(folder: Path, outcomes: list[Outcome]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Path(folder, "gpu.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    text = "".join(
        f"### {each.title}\n\n`{each.command}`: ended {each.ended}, {each.seconds} s\n\n{each.printed}\n\n"
        for each in outcomes
    )
    Path(folder, "gpu.md").write_text(text)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=9, help="that all parts may take together")
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="of the map's two files and of the results"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rehearse", action="store_true", help="tiny settings, on a CPU")
    arguments = parser.parse_args()
    device = "cpu" if arguments.rehearse else arguments.device
    end = time.monotonic() + 60 * arguments.minutes
    outcomes: list[Outcome] = []
    for part in parts(device, rehearse=arguments.rehearse):
        if (left := end - time.monotonic()) < 5:
            break
        outcomes.append(run(part, min(left, part.seconds)))
        print(f"{part.title}: ended {outcomes[-1].ended}, {outcomes[-1].seconds} s", flush=True)
        write(arguments.folder, outcomes)
    if not arguments.rehearse and (left := (end - time.monotonic()) / 60 - 0.5) > 0.5:
        grid = ["--full", "--device", device, "--processes", "4", "--minutes", f"{left:.1f}"]
        folder = arguments.folder
        files = ["--folder", str(folder), "--results", str(folder / "results.jsonl")]
        command = ["-m", "benchmarks.map", "run", *files, *grid]
        outcomes.append(run(Part("The map", 60 * left + 60, command), 60 * left + 60))
        write(arguments.folder, outcomes)
    print(f"see {arguments.folder}/gpu.md")


if __name__ == "__main__":
    main()
