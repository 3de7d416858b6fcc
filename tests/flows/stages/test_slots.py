import os

import pytest

from flows.stages.slots import gpus_of_training, slot_environments, visible_gpus
from pipeline.config.sections import Resources, Workers
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


def test_a_slot_has_the_gpus_that_a_training_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def workers(number: int, gpu: float, address: str = "local") -> Workers:
        each = Resources(cpu=1, gpu=gpu)
        return Workers(num_workers=number, address=address, resources_per_worker=each, max_failures=0)

    needed = {2: workers(2, 1), 3: workers(5, 0.5)}
    assert {number: gpus_of_training(asked) for number, asked in needed.items()} == {2: 2, 3: 3}
    for one in (workers(1, 1), workers(2, 0), workers(2, 0.5), workers(4, 1, "auto")):
        assert gpus_of_training(one) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    shares = {1: ["0", "1", "2", "3", "4"], 2: ["0,2,4", "1,3"], 3: ["0,1,2,3,4"], 8: ["0,1,2,3,4"]}
    for number, expected in shares.items():
        assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slot_environments(None, number)] == expected
    assert len(slot_environments(1, 3)) == 1
    with pytest.raises(UserError, match=r"slots 3 share 5 GPUs, .* need 2 in each; set slots to 2 at most"):
        slot_environments(3, 2)


def test_gpus_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert len(visible_gpus()) == torch.cuda.device_count()


def test_no_slots_are_refused() -> None:
    with pytest.raises(UserError, match="slots must be 1 or more, found 0"):
        slot_environments(0)
