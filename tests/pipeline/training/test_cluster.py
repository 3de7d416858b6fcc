"""Addresses and machines that can't do it, found out in time."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from pipeline.training.cluster import connected
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


@pytest.mark.slow
def test_a_private_ray_listens_to_this_machine_alone_and_knows_what_it_has() -> None:
    """In a process of its own, because Ray reads where to listen when it is imported."""
    program = """
import json, psutil
from pipeline.config.sections import Resources
from pipeline.training.cluster import check_one_machine_has, connected
from stochca.errors import UserError
try:
    with connected("local", key="tune.address"):
        processes = psutil.Process().children(recursive=True)
        ports = [port for process in processes for port in process.net_connections("inet")]
        print(json.dumps([port.laddr.ip for port in ports if port.status == psutil.CONN_LISTEN]))
        check_one_machine_has(Resources(cpu=0.5, gpu=0), "tune.resources")
        check_one_machine_has(Resources(cpu=1000, gpu=0), "tune.resources")
except UserError as error:
    import ray
    print(error, ray.is_initialized())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *_, addresses, sentence = done.stdout.splitlines()
    assert json.loads(addresses)
    assert set(json.loads(addresses)) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert sentence.startswith(
        "tune.resources asks for cpu 1000 and gpu 0 on one machine; the largest has cpu "
    )
    assert sentence.endswith(" False")  # it has ended


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
