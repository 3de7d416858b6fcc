"""Addresses and machines that can't do it, found out in time."""

import socket
import time
from collections.abc import Iterator

import pytest

from pipeline.search.cluster import connected
from pipeline.sections import Resources
from stochca.errors import UserError

ONE_CPU = Resources(cpu=1, gpu=0)


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    yield port


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_nothing_answers(scheme: str, free_port: int) -> None:
    address = f"{scheme}127.0.0.1:{free_port}"
    before = time.monotonic()
    sentence = rf"^tune.address {address}: no Ray cluster answers there .*`ray start --head`.*address: local$"
    with pytest.raises(UserError, match=sentence), connected(address, ONE_CPU, "tune"):
        pass
    assert time.monotonic() - before < 30


def test_a_machine_that_is_not_there() -> None:
    before = time.monotonic()
    with pytest.raises(UserError, match="no Ray cluster answers there"):
        with connected("203.0.113.1:6379", ONE_CPU, "tune"):  # an address that belongs to nobody
            pass
    assert time.monotonic() - before < 30


def test_auto_where_the_cluster_has_gone(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port}")
    with pytest.raises(UserError, match="^train.address auto: no Ray cluster answers there"):
        with connected("auto", ONE_CPU, "train"):
            pass


def test_resources_that_no_machine_has() -> None:
    sentence = "^tune.resources asks for cpu 1000 and gpu 0 on one machine; the largest has cpu "
    with pytest.raises(UserError, match=sentence):
        with connected("local", Resources(cpu=1000, gpu=0), "tune"):
            pass
    import ray

    assert not ray.is_initialized()
