"""Several threads with one model: each gets what it would get alone."""

import gc
import sys
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest
import torch
from torch import Tensor

import stochca
from stochca.timm_models import threads
from tests.stochca.timm_models.families.cases import CASES, images
from tests.stochca.tiny import tiny_vit

PASSES = 12


@pytest.fixture(autouse=True)
def threads_that_take_turns_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(*calls: Callable[[], Any]) -> list[list[Any]]:
    """What each call gives, again and again, in a thread of its own."""
    found: list[list[Any]] = [[] for _ in calls]

    def work(call: Callable[[], Any], results: list[Any]) -> None:
        with torch.no_grad():
            for _ in range(PASSES):
                try:
                    results.append(call())
                except Exception as error:  # goes to the assertion, which another thread makes
                    results.append(error)

    workers = [Thread(target=work, args=pair) for pair in zip(calls, found, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return found


def assert_each_gets_its_own(*calls: Callable[[], Tensor]) -> None:
    with torch.no_grad():
        expected = [call() for call in calls]
    for results, own in zip(at_once(*calls), expected, strict=True):
        assert len(results) == PASSES
        for result in results:
            torch.testing.assert_close(result, own)


@pytest.mark.parametrize("name", ["vit", "eva02", "swin"])
def test_passes_that_cross_attend_and_passes_that_do_not(name: str) -> None:
    model = stochca.StochCA(CASES[name].model(), teacher=CASES[name].model(seed=1)).eval()
    pictures = images(3)
    assert_each_gets_its_own(
        lambda: model(pictures, cross_blocks=[0, 1]),
        lambda: model(pictures[:2], cross_blocks=[1]),
        lambda: model(pictures),
        lambda: model.forward_features(pictures, cross_blocks=[0]),
    )


def test_students_that_share_a_teacher() -> None:
    teacher = tiny_vit(seed=1)
    first, second = (stochca.StochCA(tiny_vit(seed=seed), teacher=teacher) for seed in (2, 3))
    pictures = images()
    assert_each_gets_its_own(
        lambda: first(pictures, cross_blocks=[2]), lambda: second(pictures, cross_blocks=[0, 1])
    )


@pytest.mark.parametrize("name", ["vit", "dinov3", "beit, shared bias"])
@pytest.mark.parametrize("wrap", [stochca.VPT, stochca.TOAST])
def test_adapters(wrap: Callable[..., Any], name: str) -> None:
    model = wrap(CASES[name].model()).eval()
    pictures = images(3)
    assert_each_gets_its_own(
        lambda: model(pictures), lambda: model(pictures[:2]), lambda: model(pictures[2:])
    )


def test_predictions_are_averaged_beside_training() -> None:
    """Which must not see the evaluation mode of the other thread."""
    student = tiny_vit(proj_drop_rate=0.9).train()
    model = stochca.StochCA(student, 0.0)
    pictures = images()
    steps, averages = at_once(
        lambda: model(pictures), lambda: stochca.averaged_predictions(model, pictures, 2)
    )
    for average in averages:
        torch.testing.assert_close(average, averages[0])
    assert all(not torch.equal(step, averages[0]) for step in steps)  # dropped out
    assert student.training


def test_data_parallel_is_refused_where_there_are_several_devices() -> None:
    model = stochca.StochCA(tiny_vit())
    one = torch.nn.DataParallel(model)  # without GPUs, or with one, it calls the model itself
    assert torch.equal(one(images(), cross_blocks=[]), model.student(images()))
    with pytest.raises(stochca.UserError, match=r"DataParallel can't run a StochCA.*DistributedDataParallel"):
        model._replicate_for_data_parallel()  # what it does for every device


def test_nothing_is_left_of_models_that_are_gone() -> None:
    gc.collect()
    before = len(threads._LOCKS)
    model = stochca.StochCA(tiny_vit())
    model(images(), cross_blocks=[1])
    assert len(threads._LOCKS) == before + 2
    del model
    gc.collect()
    assert len(threads._LOCKS) == before
