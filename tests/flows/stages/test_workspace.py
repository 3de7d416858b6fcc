import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.stages.workspace import held_workspace
from stochca.errors import UserError
from tests.flows.project import Project, wait_until

NOBODY = 2**22 + 1  # above the largest process id


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("workspace") / "project", {"compare": (30.0, [])})


@pytest.fixture(autouse=True)
def inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    (project.folder / ".dvc" / "tmp").mkdir(exist_ok=True)


def refuses(sentence: str) -> None:
    with pytest.raises(UserError, match=sentence), held_workspace():
        pass


def test_one_flow_at_a_time(project: Project) -> None:
    with held_workspace() as params:
        assert params.protocol.baseline
        program = "from flows.stages.workspace import held_workspace; held_workspace().__enter__()"
        output = project.run("-c", program, environment={}, expect=1)
        assert "another flow run holds this workspace" in output
    with held_workspace():
        pass


def test_it_is_free_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), held_workspace():
        raise ZeroDivisionError
    with held_workspace():
        pass


def test_a_lock_that_can_not_be_read_is_named(project: Project) -> None:
    lock = project.folder / "dvc.lock"
    before = lock.read_bytes() if lock.exists() else None
    lock.write_text("stages: [")
    try:
        refuses(r"dvc\.lock can't be read: .*git checkout dvc\.lock")
    finally:
        lock.unlink() if before is None else lock.write_bytes(before)


def test_somebodys_own_dvc_is_named(project: Project) -> None:
    process = project.start("-m", "dvc", "repro", environment={})
    try:
        wait_until(lambda: project.started("compare"), "the stage runs")
        refuses(rf"DVC is running in this workspace: dvc repro \(pid {process.pid}\); wait .* kill -INT")
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    with held_workspace():
        pass


def test_dvc_elsewhere_does_not_matter(tmp_path: Path) -> None:
    waiting = "import pathlib, time; pathlib.Path('up').touch(); time.sleep(30)"
    process = subprocess.Popen(["dvc", "-c", waiting], executable=sys.executable, cwd=tmp_path)
    try:
        wait_until((tmp_path / "up").exists, "it runs")
        with held_workspace():
            pass
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "left_behind",
    [
        json.dumps({"write": {"outs/compare": {"pid": NOBODY, "cmd": "dvc repro"}}, "read": {}}),
        json.dumps({"write": {}, "read": {"a": [{"pid": os.getpid(), "cmd": "dvc repro"}]}}),
        '{"write": {"outs/comp',
    ],
    ids=["no such process", "a reused number", "cut off"],
)
def test_locks_of_killed_processes_are_dropped(left_behind: str, project: Project) -> None:
    (project.folder / ".dvc" / "tmp" / "rwlock").write_text(left_behind)
    with held_workspace():
        done = subprocess.run(["dvc", "status", "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_mistakes_in_params_are_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Path("params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params.replace("duplicates: warn", "dupicates: warn"))
    refuses("unknown key 'dataset.dupicates'; did you mean 'duplicates'")
    Path("params.yaml").write_text(params)
    refuses("there is no folder data/raw")
