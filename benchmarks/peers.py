"""The same images, backbone and epochs, or the same minutes, here and by what people would pick instead.

    python -m benchmarks.map pack               # once: images and weights
    python -m benchmarks.peers run              # 3 seeds, both sets; resumable, a line of JSON per training
    python -m benchmarks.peers report           # tables, of whatever is there

Peers are installed into an environment of their own, work/peers/venv: timm's script, Hugging Face's Trainer,
fastai, LightlyTrain. Each is a script in benchmarks/peer_scripts, by the recipe of its own documentation.
First all train for the same epochs. Then those train again that were faster or slower by a tenth or more, for
as many epochs as fit into what ours took in the mean.
"""

import argparse
import ast
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.map import FOLDER as PACKED
from benchmarks.map import appended_to, records
from benchmarks.measuring import options, print_head, print_row

FOLDER = Path("work/peers")
RESULTS = Path("benchmarks/measured/peers.jsonl")
SCRIPTS = Path(__file__).parent / "peer_scripts"
PACKAGES = ["torch", "timm", "transformers", "accelerate", "fastai", "lightly-train"]
OURS = {"ours": "stochca, finetune", "ours_stochca": "stochca, StochCA at 0.1"}
PEERS = {
    "timm_script": "timm's script",
    "trainer": "Hugging Face Trainer",
    "fastai_learner": "fastai",
    "lightly": "LightlyTrain",
}
SHARE = 15  # percent of the training images
# Nothing is sent or fetched, and every library takes the same two threads.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "LIGHTLY_TRAIN_EVENTS_DISABLED": "1", "OMP_NUM_THREADS": "2"}


@dataclass(frozen=True)
class Run:
    set: str
    peer: str
    epochs: int
    seed: int


def write_task(folder: Path, packed: Path, name: str) -> None:
    """The images of a set in folders, and the backbone at their size as timm loads it."""
    from safetensors.torch import save_file

    from benchmarks.mapping.packed import PackedSet

    found = PackedSet.of(packed, name)
    for part, rows in (("train", f"train_{SHARE}"), ("val", "validation"), ("test", "test")):
        images = found.parts[rows]
        for i in range(len(images)):
            picture, label = images[i]
            path = folder / part / f"{label:02}" / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    model = found.model(packed, seed=0)
    weights = {key: value for key, value in model.state_dict().items() if not key.startswith("head.")}
    architecture = model.pretrained_cfg["architecture"]
    config = {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": model.num_features,
        "model_args": {"img_size": found.preprocessing.image_size},
        "pretrained_cfg": {
            "num_classes": 0,
            "classifier": "head",
            "mean": found.preprocessing.mean,
            "std": found.preprocessing.std,
        },
    }
    (folder / "backbone").mkdir(exist_ok=True)
    save_file(weights, folder / "backbone" / "model.safetensors")
    (folder / "backbone" / "config.json").write_text(json.dumps(config))


def environment(folder: Path) -> str:
    """The Python of the peers' own environment, made where it is missing."""
    python = folder / "venv" / "bin" / "python"
    ready = folder / "venv" / "ready"
    if not ready.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile"]
        subprocess.run([*install, "-c", "constraints.txt", *PACKAGES], check=True)
        ready.touch()
    return str(python)


def train(folder: Path, python: str, run: Run) -> dict[str, Any]:
    """One training in a process of its own."""
    work = folder / "runs" / f"{run.set}-{run.peer}-{run.epochs}-{run.seed}"
    shutil.rmtree(work, ignore_errors=True)
    command = [python, "-m", f"benchmarks.peer_scripts.{run.peer}", str(folder / run.set), str(work)]
    command += ["--epochs", str(run.epochs), "--seed", str(run.seed)]
    done = subprocess.run(
        command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{run} failed:\n{done.stdout[-3000:]}")
    scores: dict[str, Any] = json.loads((work / "scores.json").read_text())
    shutil.rmtree(work)
    return scores


def missing(done: dict[Run, dict[str, Any]], sets: list[str], epochs: int, seeds: list[int]) -> Iterator[Run]:
    """The trainings that can start now: seeds in turn, so that whatever is there can be compared."""
    for seed in seeds:
        for name in sets:
            for peer in (*OURS, *PEERS):
                yield from (run for run in [Run(name, peer, epochs, seed)] if run not in done)
    for seed in seeds:
        for name in sets:
            for peer in PEERS:
                if (fitting := epochs_that_fit(done, name, peer, epochs)) != epochs:
                    yield from (run for run in [Run(name, peer, fitting, seed)] if run not in done)


def epochs_that_fit(done: dict[Run, dict[str, Any]], name: str, peer: str, epochs: int) -> int:
    """As many as a peer trains in the time that ours took; `epochs` where that is the same within a tenth."""
    ours = fmean(at["seconds"] for run, at in done.items() if (run.set, run.peer) == (name, "ours"))
    theirs = fmean(
        at["seconds"] for run, at in done.items() if (run.set, run.peer, run.epochs) == (name, peer, epochs)
    )
    return epochs if abs(theirs / ours - 1) < 0.1 else max(1, round(epochs * ours / theirs))


def read(path: Path) -> dict[Run, dict[str, Any]]:
    """What every training came to; a last line that was cut off by a kill is left out."""
    return {Run(**record.pop("run")): record for record in records(path)}


def run_all(
    folder: Path, results: Path, packed: Path, sets: list[str], epochs: int, seeds: list[int]
) -> None:
    python = environment(folder)
    for name in sets:
        if not (folder / name).exists():
            write_task(folder / f"{name}.partial", packed, name)
            (folder / f"{name}.partial").rename(folder / name)
    while run := next(missing(read(results), sets, epochs, seeds), None):
        scores = train(folder, sys.executable if run.peer in OURS else python, run)
        with appended_to(results) as file:
            file.write(json.dumps({"run": asdict(run)} | scores).encode() + b"\n")
        print(f"{run}: {scores['accuracy']:.3f}, {scores['seconds']:.0f} s", flush=True)


def lines_of(peer: str) -> int:
    """Lines of Python that a user writes: those of the script but its docstring and the harness."""
    tree = ast.parse((SCRIPTS / f"{peer}.py").read_text())
    kept = [
        node
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        and "benchmarks" not in (getattr(node, "module", None) or "")
    ]
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in kept)


def report(done: dict[Run, dict[str, Any]]) -> None:
    """A table for each set: mean and spread over the seeds."""
    groups: dict[str, dict[tuple[str, int], list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for run, found in done.items():
        groups[run.set][run.peer, run.epochs].append(found)
    for name, rows in groups.items():
        print(f"\n{name}, {SHARE} % of the training images\n")
        columns = ["epochs", "accuracy, %", "log loss", "seconds", "images/s", "memory, MB", "lines", "seeds"]
        print_head("", *columns)
        for (peer, epochs), scores in sorted(rows.items(), key=lambda row: [*OURS, *PEERS].index(row[0][0])):
            accuracy, loss = ([each[key] for each in scores] for key in ("accuracy", "log_loss"))
            seconds = fmean(each["seconds"] for each in scores)
            print_row(
                (OURS | PEERS)[peer],
                str(epochs),
                _spread([100 * value for value in accuracy], 1),
                _spread(loss, 3),
                f"{seconds:.0f}",
                f"{scores[0]['images'] / seconds:.0f}",
                f"{fmean(each['memory_mb'] for each in scores):.0f}",
                "2 commands" if peer in OURS else str(lines_of(peer)),
                str(len(scores)),
            )


def _spread(values: list[float], decimals: int) -> str:
    spread = f" ± {stdev(values):.{decimals}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{decimals}f}{spread}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the environment")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a line of JSON for each training")
    parser.add_argument("--packed", type=Path, default=PACKED, help="folder of the packed images and weights")
    parser.add_argument("--sets", nargs="+", default=["openmoji", "solar_cells"])
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments: argparse.Namespace = parser.parse_args()
    if arguments.what == "run":
        run_all(
            arguments.folder,
            arguments.results,
            arguments.packed,
            arguments.sets,
            arguments.epochs,
            arguments.seeds,
        )
    else:
        report(read(arguments.results))


if __name__ == "__main__":
    main()
