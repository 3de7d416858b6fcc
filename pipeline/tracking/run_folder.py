"""A run's folder: everything that it has to say to MLflow, as it goes. MLflow is a copy of it.

    run.json        name, experiment, params, tags, and how it ended; written by the run alone
    log.jsonl       the log of a training: losses and evaluations, a line each
    metrics.jsonl   other numbers, likewise
    artifacts/      files to upload when the run has ended; of a training its results, which are drawn as well
    model/          a trained model to upload, with an example of its input
    children/       folders of runs that are nested under this one
    mlflow.json     the id of the run; written by who publishes, as are system.jsonl, problem and published

Beside these lies what the run goes on from, such as checkpoints. It outlives a run that finished, for DVC
records only afterwards what that left: where it is killed before, the stage runs again, and ends at once.

Nothing here talks to a server, or loads MLflow.
"""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runtime.exclusive import Held, exclusive
from pipeline.runtime.files import write_json
from pipeline.runtime.paths import RUNS, of_the_project
from pipeline.tracking.labels import without_password

if TYPE_CHECKING:
    import numpy as np

RUN, MLFLOW, LOG = "run.json", "mlflow.json", "log.jsonl"
METRICS, SYSTEM = "metrics.jsonl", "system.jsonl"
PROBLEM, PUBLISHED = "problem", "published"
ARTIFACTS, MODEL, CHILDREN = "artifacts", "model", "children"
RECORD = {RUN, MLFLOW, LOG, METRICS, SYSTEM, PUBLISHED, ARTIFACTS, MODEL, CHILDREN}
ENDS = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class RunFolder:
    """What a run writes. Adding never waits for a server."""

    folder: Path

    @classmethod
    def begin(
        cls,
        folder: Path,
        experiment: str,
        name: str,
        tags: Mapping[str, str] | None = None,
        *,
        replaces: Mapping[str, str] | None = None,
        uploads_model: bool = False,
    ) -> "RunFolder":
        """Begin a run, or go on with the one that an interruption left in `folder`.

        Args:
            replaces: tags; the user's runs of the experiment that have them are deleted when it has ended.
                Such a run begins anew, without what one before has left in `folder`.
            uploads_model: whether it will have a model, which takes some preparation.
        """
        if replaces:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        for left in (PROBLEM, PUBLISHED):
            (folder / left).unlink(missing_ok=True)
        run = cls(folder.resolve())
        if "follower" in (before := run.read(MLFLOW)):  # its number may come again, in a container
            write_json(run.folder / MLFLOW, {"run_id": before["run_id"]})
        finish_line(run.folder / METRICS)
        known = run.read(RUN)
        values = {
            "name": name,
            "experiment": experiment,
            "source": "/".join(Path(sys.argv[0]).parts[-2:]),
            "tracking_uri": without_password(os.environ.get("MLFLOW_TRACKING_URI", ""), instead=""),
            "replaces": dict(replaces or {}),
            "uploads_model": uploads_model,
            "tags": {**known.get("tags", {}), **(tags or {})},
            "params": known.get("params", {}),
            "status": "RUNNING",
        }
        write_json(run.folder / RUN, values)
        return run

    @classmethod
    def of_known_run(cls, folder: Path, run_id: str) -> "RunFolder":
        """Files for a run that has ended and that MLflow has; they are there when `end` is called."""
        run = cls(folder.resolve())
        write_json(folder / MLFLOW, {"run_id": run_id})
        values = {"name": folder.name, "known": True, "tags": {}, "params": {}, "status": "RUNNING"}
        write_json(folder / RUN, values)
        return run

    @property
    def run_id(self) -> str:
        """MLflow's, once it has been published."""
        return str(self.read(MLFLOW)["run_id"])

    @property
    def artifacts(self) -> Path:
        """A folder, which is there, for files to upload when the run ends."""
        (self.folder / ARTIFACTS).mkdir(exist_ok=True)
        return self.folder / ARTIFACTS

    def add_params(self, values: Mapping[str, Any]) -> None:
        """Params; those from before an interruption stay, for MLflow refuses changes."""
        texts = {key: str(value) for key, value in values.items()}
        self._change(params={**texts, **self.read(RUN)["params"]})

    def add_tags(self, values: Mapping[str, str]) -> None:
        """Tags; later ones replace earlier ones."""
        self._change(tags={**self.read(RUN)["tags"], **values})

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of a step; or numbers of the whole run, which replace earlier ones."""
        append_line(self.folder / METRICS, values, step)

    def add_model(self, model: Path, example: "np.ndarray", beside: Mapping[str, Path] | None = None) -> None:
        """A trained model's folder, with uint8 images (B, height, width, 3) as an example of its input.

        Into it go copies of folders by these names, without which an adapter is worth nothing elsewhere.
        """
        import numpy as np

        target = self.folder / MODEL
        shutil.copytree(model, target / model.name, dirs_exist_ok=True)
        for name, folder in (beside or {}).items():
            unused = shutil.ignore_patterns("__pycache__")
            shutil.copytree(folder, target / model.name / name, ignore=unused, dirs_exist_ok=True)
        np.save(target / "example.npy", example, allow_pickle=False)

    def adopt(self, run_ids: Sequence[str]) -> None:
        """Nest runs that MLflow has under this one."""
        self._change(adopts=list(run_ids))

    def child(self, folder: str, name: str, tags: Mapping[str, str]) -> "RunFolder":
        """A run that is nested under this one, begun or gone on with; it keeps what it says in `folder`."""
        experiment = self.read(RUN)["experiment"]
        return RunFolder.begin(self.folder / CHILDREN / folder, experiment, name, tags)

    def end(self, status: str) -> None:
        """How the run ended: FINISHED, FAILED or KILLED; now."""
        assert status in ENDS
        self._change(status=status, end_time=time.time_ns() // 1_000_000)

    @property
    def goes_on_from(self) -> list[Path]:
        """What others have put beside what MLflow gets, such as checkpoints."""
        return [path for path in self.folder.glob("*") if path.name not in RECORD]

    @property
    def has_finished(self) -> bool:
        """Whether it came to its end, and was not begun again."""
        return bool(self.read(RUN).get("status") == "FINISHED")

    def discard_sent(self) -> None:
        """Of a finished run keep, once MLflow has all, no more than it would go on from; or nothing."""
        if not self.goes_on_from:
            shutil.rmtree(self.folder)
            return
        for name in (ARTIFACTS, MODEL, CHILDREN):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def discard_rest(self) -> None:
        """Remove what the run would go on from; of what MLflow lacks nothing, all."""
        if (self.folder / PUBLISHED).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for path in self.goes_on_from:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()

    def keep(self) -> None:
        """Move what waits for MLflow out of a copy that DVC makes for an experiment, and then deletes."""
        runs = of_the_project(RUNS)
        is_whole = not self.folder.exists() or (self.folder / PUBLISHED).exists()
        if is_whole or runs == self.folder.parent or RUNS.resolve() != self.folder.parent:
            return
        kept, number = runs / self.folder.name, 2
        while kept.exists():
            kept, number = kept.with_name(f"{self.folder.name}-{number}"), number + 1
        shutil.move(self.folder, kept)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder; empty where there is none, or a power cut has left nothing of it."""
        with suppress(FileNotFoundError, json.JSONDecodeError):
            values: dict[str, Any] = json.loads((self.folder / name).read_text(encoding="utf-8"))
            return values
        return {}

    def _change(self, **values: Any) -> None:
        write_json(self.folder / RUN, {**self.read(RUN), **values})


def append_line(path: Path, values: Mapping[str, float], step: int | None) -> None:
    """Add numbers to a file of lines, with the milliseconds since 1970 at which they were taken."""
    line = json.dumps({"step": step, "time": time.time_ns() // 1_000_000, "values": dict(values)})
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def finish_line(path: Path) -> None:
    """End a last line that a kill has cut off, so that others may follow."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        with path.open("a") as file:
            file.write("\n")


def held(folder: Path) -> AbstractContextManager[None]:
    """Hold the right to publish a folder: one process at a time tells MLflow of a run.

    Raises:
        Held: somebody else holds it.
    """
    return exclusive(f"publishing-{folder.name}")


def discard_finished(before: float = math.inf) -> None:
    """Remove what finished runs would go on from, and of those of which MLflow lacks nothing all.

    Args:
        before: only of runs that had ended by then, in milliseconds since 1970.
    """
    for file in RUNS.glob(f"*/{RUN}"):
        run = RunFolder(file.parent)
        known = run.read(RUN)
        if known.get("status") == "FINISHED" and known["end_time"] < before:
            with suppress(Held), held(run.folder):  # else its process has not ended yet
                run.discard_rest()


def waiting_folders() -> list[Path]:
    """The folders of runs of which MLflow lacks something, as far as is known here."""
    return sorted(file.parent for file in RUNS.glob(f"*/{RUN}") if not (file.parent / PUBLISHED).exists())


def waiting_folder(run_id: str) -> Path | None:
    """The folder of a run that waits to be published, if it does."""
    return next(
        (folder for folder in waiting_folders() if RunFolder(folder).read(MLFLOW).get("run_id") == run_id),
        None,
    )
