import os

import pytest

from flows.stages.slots import slot_environments, visible_gpus
from stochca.errors import UserError


@pytest.fixture(autouse=True)
def no_choices_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_one_slot_without_gpus() -> None:
    assert slot_environments() == [{}]


def test_slots_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    assert slot_environments(2) == [{"OMP_NUM_THREADS": str(max(1, cores // 2))}] * 2
    assert slot_environments(1000)[0] == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slot_environments(2) == [{}, {}]  # the commands inherit what the user has chosen


@pytest.mark.parametrize(
    ("gpus", "count", "expected"),
    [
        ("0,1", None, ["0", "1"]),
        ("4,7", None, ["4", "7"]),  # those that are visible, not the first ones
        ("GPU-a, GPU-b", 2, ["GPU-a", "GPU-b"]),
        ("0,1,2,3", 2, ["0,2", "1,3"]),
        ("0", 2, ["0", "0"]),
        ("-1", None, [None]),
    ],
)
def test_gpus_are_shared_out(
    gpus: str, count: int | None, expected: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    found = [environment.get("CUDA_VISIBLE_DEVICES") for environment in slot_environments(count)]
    assert found == expected


def test_gpus_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert len(visible_gpus()) == torch.cuda.device_count()


def test_no_slots_are_refused() -> None:
    with pytest.raises(UserError, match="slots must be 1 or more, found 0"):
        slot_environments(0)
