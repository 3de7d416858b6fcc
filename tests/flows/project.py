"""A project whose stages only wait: real DVC and real flows over them, without the trainings."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from tests.imports import ROOT

COPIED = ("stochca", "pipeline", "flows", "params.yaml", "prefect.yaml", "pyproject.toml", ".dvcignore")

# Notes when it starts and ends in times/NAME; fails where a file fail-NAME says so.
STAGE = """
import pathlib, sys, time
name, seconds = sys.argv[1], float(sys.argv[2])
started = time.time()
pathlib.Path("times").mkdir(exist_ok=True)
pathlib.Path("times", name + ".started").touch()
for step in range(1, 5):
    time.sleep(seconds / 4)
    print(f"{name}: step {step} of 4")
if pathlib.Path("fail-" + name).exists():
    sys.exit(f"error: {name} was told to fail")
pathlib.Path("outs").mkdir(exist_ok=True)
pathlib.Path("outs", name).write_text(f"{started} {time.time()}")
"""

# Waits inside a real MLflow run, a minute or where a file `hurry` is not at all.
TRACKED = """
import time
from pathlib import Path
from pipeline.runtime.boundary import run
from pipeline.tracking.follow import Follower

def main():
    with Follower() as follower, follower.follows(Path("work/runs/tracked"), "flows", "tracked"):
        Path("times").mkdir(exist_ok=True)
        Path("times/tracked.started").touch()
        time.sleep(0 if Path("hurry").exists() else 60)
    Path("outs").mkdir(exist_ok=True)
    Path("outs/tracked").touch()

run(main)
"""

TUNE = (
    "python stage.py tune 0.1 && mkdir -p reports/tune && echo 'prob: 0.2' > reports/tune/best.yaml "
    "&& printf 'trial,prob\\n0,0.123456\\n' > reports/tune/trials.csv"
)
COMPARE = "mkdir -p reports && echo '| method |' > reports/comparison.md"


class Project:
    """A folder with the project's code and stages of its own: name, seconds, and the stages they need."""

    def __init__(self, folder: Path, stages: Mapping[str, tuple[float, list[str]]]) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / name)
        (folder / "data" / "raw").mkdir(parents=True)
        (folder / ".dvc").mkdir()
        (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
        (folder / "stage.py").write_text(STAGE)
        self.write_stages(
            {
                name: {
                    "cmd": f"python stage.py {name} {seconds}",
                    "deps": [f"outs/{other}" for other in upstream],
                    "outs": [f"outs/{name}"],
                }
                for name, (seconds, upstream) in stages.items()
            }
        )

    def write_stages(self, stages: Mapping[str, Any]) -> None:
        (self.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": dict(stages)}, sort_keys=False))

    def start(
        self, *command: str, environment: Mapping[str, str], output: IO[str] | int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.folder,
            env={**clean_environment(), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, environment: Mapping[str, str], expect: int = 0) -> str:
        """Run a command to its end; returns what it printed."""
        process = self.start(*command, environment=environment)
        try:
            output, _ = process.communicate(timeout=240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == expect, f"{command} ended with {process.returncode}:\n{output}"
        return output

    def started(self, stage: str) -> bool:
        return (self.folder / "times" / f"{stage}.started").exists()

    def time_of(self, stage: str) -> tuple[float, float]:
        """When a finished stage began and ended, in seconds."""
        begin, end = (self.folder / "outs" / stage).read_text().split()
        return float(begin), float(end)

    def processes(self) -> list[str]:
        """The command lines of what still runs in this folder."""
        import psutil

        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()) == self.folder and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except (psutil.Error, OSError):
                continue
        return found


def tracked_project(folder: Path) -> Project:
    """A stage `tracked` that waits inside an MLflow run, and `compare` after it."""
    project = Project(folder, {})
    (project.folder / "tracked.py").write_text(TRACKED)
    project.write_stages(
        {
            "tracked": {"cmd": "PYTHONPATH=. python tracked.py", "outs": ["outs/tracked"]},
            "compare": {
                "cmd": "python stage.py compare 0.1 && mkdir -p reports && touch reports/comparison.md",
                "deps": ["outs/tracked"],
                "outs": ["outs/compare"],
            },
        }
    )
    return project


def project_with_search(folder: Path, compare_waits_for: str) -> Project:
    """Stages `tune`, `train` and `compare`, as small as they can be."""
    project = Project(folder, {})
    project.write_stages(
        {
            "tune": {"cmd": TUNE, "outs": ["reports/tune"]},
            "train": {
                "cmd": "python stage.py train 0.1",
                "deps": [compare_waits_for],
                "outs": ["outs/train"],
            },
            "compare": {"cmd": COMPARE, "deps": ["outs/train"], "outs": ["reports/comparison.md"]},
        }
    )
    return project


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """A real Prefect server on a free port; gives the variables that point at it."""
    from flows.serving.servers import answers
    from flows.stages.process_groups import end_groups

    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    variables = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home,
            env={**clean_environment(), **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(f"{url}/health", timeout=2), f"Prefect at {url}", seconds=150)
        yield {**variables, "PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_API_URL": url}
    finally:
        end_groups([server], gently=signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """This process's environment, without what chooses servers, and with this Python first."""
    unwanted = ("PREFECT_", "MLFLOW_", "DVC_", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(unwanted)}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "true"}


def wait_until(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
