"""Addresses and machines that can't do it, found out in time."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pipeline.config.sections import Resources
from pipeline.training.cluster import check_one_machine_has, connected
from stochca.errors import UserError


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What is set for one address, such as a token, must not reach the next."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that is taken, so that no other process can, but where nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_nothing_answers(scheme: str, taken_port: int) -> None:
    address = f"{scheme}127.0.0.1:{taken_port}"
    before = time.monotonic()
    sentence = rf"^tune.address {address}: no Ray cluster answers there .*`ray start --head`.*address: local$"
    with pytest.raises(UserError, match=sentence), connected(address, key="tune.address"):
        pytest.fail("connected to nothing")
    assert time.monotonic() - before < 30


def test_a_private_ray_listens_to_this_machine_alone() -> None:
    """In a process of its own, because Ray reads where to listen when it is imported."""
    program = """
import json, psutil
from pipeline.training.cluster import connected
with connected("local", key="tune.address"):
    processes = psutil.Process().children(recursive=True)
    ports = [port for process in processes for port in process.net_connections("inet")]
    print(json.dumps([port.laddr.ip for port in ports if port.status == psutil.CONN_LISTEN]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    addresses = json.loads(done.stdout.splitlines()[-1])
    assert addresses
    assert set(addresses) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_something_else_that_listens(scheme: str, silent_port: int) -> None:
    address = f"{scheme}127.0.0.1:{silent_port}"
    before = time.monotonic()
    with pytest.raises(UserError, match=f"tune.address {address}"), connected(address, key="tune.address"):
        pytest.fail("connected to nothing")
    assert time.monotonic() - before < 30


def test_auto_where_the_cluster_has_gone(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken_port}")
    sentence = "workers.address auto: no Ray cluster answers there"
    with pytest.raises(UserError, match=sentence), connected("auto", key="workers.address"):
        pass


def test_resources_that_no_machine_has() -> None:
    sentence = "^tune.resources asks for cpu 1000 and gpu 0 on one machine; the largest has cpu "
    with pytest.raises(UserError, match=sentence), connected("local", key="tune.address"):
        check_one_machine_has(Resources(cpu=1000, gpu=0), "tune.resources")
    import ray

    assert not ray.is_initialized()
