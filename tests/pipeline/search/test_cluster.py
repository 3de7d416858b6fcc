"""Addresses and machines that can't do it, found out in time."""

import os
import socket
import time
from collections.abc import Iterator

import pytest

from pipeline.search.cluster import connected
from pipeline.sections import Resources
from stochca.errors import UserError

ONE_CPU = Resources(cpu=1, gpu=0)


@pytest.fixture(autouse=True)
def _same_environment_afterwards() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    return int(port)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_nothing_answers(scheme: str, free_port: int) -> None:
    address = f"{scheme}127.0.0.1:{free_port}"
    before = time.monotonic()
    sentence = rf"^tune.address {address}: no Ray cluster answers there .*`ray start --head`.*address: local$"
    with pytest.raises(UserError, match=sentence), connected(address, ONE_CPU, "tune"):
        pass
    assert time.monotonic() - before < 30


def test_an_address_where_something_else_listens() -> None:
    before = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        with (
            pytest.raises(UserError, match="no Ray cluster answers there"),
            connected(address, ONE_CPU, "tune"),
        ):
            pass
    assert time.monotonic() - before < 30


def test_auto_where_the_cluster_has_gone(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port}")
    sentence = "train.address auto: no Ray cluster answers there"
    with pytest.raises(UserError, match=sentence), connected("auto", ONE_CPU, "train"):
        pass


def test_resources_that_no_machine_has() -> None:
    sentence = "^tune.resources asks for cpu 1000 and gpu 0 on one machine; the largest has cpu "
    needs = Resources(cpu=1000, gpu=0)
    with pytest.raises(UserError, match=sentence), connected("local", needs, "tune"):
        pass
    import ray

    assert not ray.is_initialized()
