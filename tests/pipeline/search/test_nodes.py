"""Real clusters of two Ray nodes on this machine, which is as close to two machines as one gets."""

import csv
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster
from ray.util import get_node_ip_address

from tests.pipeline.search.small_project import environment, run_search, start_search, write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def trials(folder: Path) -> list[dict[str, str]]:
    with (folder / "reports" / "tune" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def finished(folder: Path) -> dict[float, str]:
    """When trials came to their end, of those that have, and on which node."""
    for records in folder.glob("work/tune/*/records.json"):
        kept = json.loads(records.read_text())["trials"]
        return {trial["finished_at"]: trial["node"] for trial in kept if trial["finished_at"] is not None}
    return {}


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def there() -> Iterator[Path]:
    """A temporary folder whose path is short, as Ray's sockets need it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def elsewhere(tmp_path: Path, there: Path) -> Iterator[str]:
    """The ``ray://`` address of a cluster that sees neither this project's code nor its data."""
    port, client_port, agent_port = free_ports(3)
    hidden = tmp_path / "project"
    hidden.mkdir()
    start = (
        f"{Path(sys.executable).parent / 'ray'} start --head --block --num-cpus=1 --port={port} "
        f"--ray-client-server-port={client_port} --runtime-env-agent-port={agent_port} "
        f"--include-dashboard=false --disable-usage-stats --temp-dir={there}"
    )
    command = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {hidden} && exec {start}"]
    if subprocess.run([*command[:-1], f"mount -t tmpfs none {hidden}"], capture_output=True).returncode:
        pytest.skip("only root may hide a folder from a process")
    without_code = {
        name: value for name, value in environment(TMPDIR=str(there)).items() if name != "PYTHONPATH"
    }
    with (there / "head.log").open("w") as log:
        head = subprocess.Popen(
            command, cwd=there, env=without_code, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(client_port)
        wait_for(
            agent_port, get_node_ip_address()
        )  # which makes what a client's code runs in, and comes last
        yield f"ray://127.0.0.1:{client_port}"
    finally:
        started = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
        for one in started:
            one.kill()
        psutil.wait_procs(started, timeout=30)


def test_a_cluster_elsewhere_gets_the_code_and_the_data(elsewhere: str, there: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    write_project(folder, {"seeds": [0], "trials": 3, "address": elsewhere})
    output = run_search(folder, timeout=400)
    assert [trial["trial"] for trial in trials(folder)] == ["1", "2", "3"], output
    assert "tune: trial 1 of 3, prob 0: step 2 of 8" in output
    assert {trial["problem"] for trial in trials(folder)} == {""}
    (unpacked,) = there.glob("stochca-*/inputs-*")
    sent = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    assert sent == {path.relative_to(folder) for path in (folder / "data").rglob("*") if path.is_file()}
    left = [path.name for path in unpacked.parent.iterdir()]
    assert left == [unpacked.name]  # the data stays for the next search, nothing of this one


def wait_for(port: int, host: str = "127.0.0.1") -> None:
    for _ in range(600):
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two nodes of one CPU each."""
    monkeypatch.setenv("RAY_worker_niceness", environment()["RAY_worker_niceness"])
    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=200 << 20)
        yield cluster
    finally:
        cluster.shutdown()


def test_two_searches_at_once_use_both_nodes_and_outlive_the_loss_of_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    folders = (tmp_path / "project", tmp_path / "other")
    for folder in folders:
        write_project(folder, {"seeds": [0], "trials": 3, "concurrent": 1, "address": cluster.address})
    searches = [start_search(folder) for folder in folders]
    while (
        not all(before := [finished(folder) for folder in folders])
        or len({node for each in before for node in each.values()}) < 2
    ):
        for search in searches:
            assert search.poll() is None, search.communicate()[0]
        time.sleep(0.05)
    lost = next(node for node in cluster.list_all_nodes() if not node.is_head())
    cluster.remove_node(lost, allow_graceful=False)
    for search in searches:
        output, _ = search.communicate(timeout=400)
        assert search.returncode == 0, output
    found = [trials(folder) for folder in folders]
    for each, times in zip(found, before, strict=True):
        assert [trial["trial"] for trial in each] == ["1", "2", "3"]
        assert {trial["problem"] for trial in each} == {""}
        # What had finished before the loss finished once.
        assert {round(at, 1) for at in times} <= {float(trial["finished_at"]) for trial in each}
    one, other = ([(trial["prob"], trial["validation_accuracy"]) for trial in each] for each in found)
    assert one == other
