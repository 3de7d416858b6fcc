import socket
import time
from collections.abc import Iterator

import pytest

from pipeline.cluster import connected
from stochca.errors import UserError


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that is taken, so that no other process can, but where nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_that_does_not_answer_is_one_sentence(scheme: str, silent_port: int) -> None:
    address = f"{scheme}127.0.0.1:{silent_port}"
    started = time.monotonic()
    sentence = rf"no Ray answers at train.address {address} \(.*refused\); start it with `ray start --head`"
    with pytest.raises(UserError, match=sentence), connected(address, key="train.address", cpus=1, gpus=0):
        pytest.fail("connected to nothing")
    assert time.monotonic() - started < 30
