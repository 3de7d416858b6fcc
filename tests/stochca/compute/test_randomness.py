import random
from typing import Any

import numpy as np
import pytest
import torch

from stochca.compute.randomness import (
    Stream,
    derived_seed,
    isolated,
    random_state,
    restore_random_state,
    seed_everything,
)

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()


def test_seeds_depend_on_every_part() -> None:
    parts = [(0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1), *((0, stream, 3) for stream in Stream)]
    assert len({derived_seed(*part) for part in parts}) == len(parts)
    assert derived_seed(3, Stream.IMAGE, 7) == derived_seed(3, Stream.IMAGE, 7)


def test_isolated_randomness_is_the_seeds_and_leaves_no_trace() -> None:
    seed_everything(1)
    expected = [draw(), draw()]
    seed_everything(1)
    found = [draw()]
    with isolated(9):
        inside = draw()
    found.append(draw())
    assert found == expected
    with isolated(9):
        assert draw() == inside


def test_states_are_put_back() -> None:
    seed_everything(4)
    random.gauss(0, 1)  # leaves half of a pair behind, in Python's generator and in NumPy's
    np.random.normal()
    state = random_state(CPU)
    expected = [draw(), random.gauss(0, 1), float(np.random.normal())]
    seed_everything(5)
    restore_random_state(state, CPU)
    assert [draw(), random.gauss(0, 1), float(np.random.normal())] == expected


@pytest.mark.parametrize(("place", "asked"), [("cuda:1", [torch.device("cuda:1")]), ("mps", [])])
def test_the_generator_of_the_device_itself_is_kept(
    place: str, asked: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    class Module:
        @staticmethod
        def get_rng_state(*which: Any) -> torch.Tensor:
            calls.append(which)
            return torch.ones(3, dtype=torch.uint8)

        @staticmethod
        def set_rng_state(state: torch.Tensor, *which: Any) -> None:
            assert state.equal(torch.ones(3, dtype=torch.uint8))
            calls.append(which)

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    restore_random_state(random_state(torch.device(place)), torch.device(place))
    assert calls == [tuple(asked), tuple(asked)]
