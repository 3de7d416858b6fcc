import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

import stochca
from stochca.attention.probability import one_per_block, scheduled
from stochca.config import Schedule
from stochca.errors import UserError
from tests.stochca.attention.test_stochca import images, student_and_teacher, vit
from tests.stochca.slow_reference import slow_stochca


def curve(schedule: Schedule, steps: int = 11, prob: float = 0.4) -> list[float]:
    return [scheduled(torch.tensor([prob]), schedule, step, steps).item() for step in range(1, steps + 1)]


def test_constant_is_constant() -> None:
    assert curve(Schedule()) == pytest.approx([0.4] * 11)


def test_linear_goes_down_by_the_same_at_every_step() -> None:
    assert curve(Schedule(name="linear")) == pytest.approx([0.04 * i for i in range(10, -1, -1)], abs=1e-7)
    assert curve(Schedule(name="linear", end=0.9)) == pytest.approx([0.4 + 0.05 * i for i in range(11)])


def test_cosine_is_half_a_wave() -> None:
    expected = [0.1 + 0.3 * (1 + math.cos(math.pi * i / 10)) / 2 for i in range(11)]
    assert curve(Schedule(name="cosine", end=0.1)) == pytest.approx(expected)


def test_warmup_rises_over_its_share_and_stays() -> None:
    assert curve(Schedule(name="warmup", share=0.4)) == pytest.approx([0, 0.1, 0.2, 0.3, *[0.4] * 7])


def test_a_schedule_may_be_named_and_says_where_nothing_tells_it_the_step() -> None:
    model = stochca.StochCA(vit(), 0.5, schedule="warmup", teacher_precision="same").train()
    assert (model.schedule, model.teacher_precision) == (Schedule("warmup"), None)
    model(images())
    with pytest.warns(UserWarning, match=r"'warmup' stands still .* call model\.set_progress"):
        model(images())
    other = stochca.StochCA(vit(), 0.5, schedule=Schedule("warmup")).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(images())  # which has been told once
        for step in (1, 2, 3):
            other.set_progress(step, 3)
            other(images())


def test_a_single_step_is_the_first() -> None:
    assert curve(Schedule(name="cosine"), steps=1) == pytest.approx([0.4])


def test_a_block_that_never_crosses_never_does() -> None:
    prob = one_per_block(0.2, 3, blocks=[1])
    assert prob.tolist() == pytest.approx([0, 0.2, 0])
    for step in (1, 5, 9):
        found = scheduled(prob, Schedule(name="linear", end=0.8), step, 9)
        assert found[[0, 2]].tolist() == [0, 0]
        assert found[1] > 0


@pytest.mark.parametrize("blocks", [[4], [0, -1]])
def test_blocks_that_are_not_there_are_named(blocks: list[int]) -> None:
    with pytest.raises(UserError, match=r"blocks \[(4|-1)\] don't exist: the model has 4 blocks, 0 to 3"):
        stochca.StochCA(vit(), blocks=blocks)


def test_only_the_chosen_blocks_cross_attend_each_as_often_as_it_should() -> None:
    model = stochca.StochCA(
        vit(), prob=(0.9, 0.6, 0.9, 0.3), blocks=[1, 3], generator=torch.Generator().manual_seed(0)
    ).train()
    for _ in range(400):
        model.tally.count(model.draw(2))
    assert model.tally.shares == pytest.approx([0, 0.6, 0, 0.3], abs=0.08)


def test_the_schedule_decides_how_often() -> None:
    model = stochca.StochCA(
        vit(), prob=0.8, schedule=Schedule(name="linear"), generator=torch.Generator().manual_seed(0)
    )
    for step, expected in ((1, 0.8), (51, 0.4), (101, 0.0)):
        model.set_progress(step, 101)
        draws = [len(model.draw(1)) for _ in range(200)]
        assert sum(draws) / 800 == pytest.approx(expected, abs=0.06)


def test_per_image_in_some_blocks_equals_the_slow_reference() -> None:
    student, teacher = student_and_teacher()
    seen: list[dict[int, Tensor | None]] = []

    class Recorded(stochca.StochCA):
        def draw(self, *arguments: Any) -> dict[int, Tensor | None]:
            seen.append(super().draw(*arguments))
            return seen[-1]

    model = Recorded(student, prob=0.5, teacher=teacher, granularity="sample", blocks=[0, 2]).train()
    for _ in range(3):
        found = model(images())
        drawn = seen[-1]
        crossed = [
            {i for i, chosen in drawn.items() if chosen is not None and chosen[image]} for image in range(3)
        ]
        torch.testing.assert_close(
            found, slow_stochca(student, teacher, images(), crossed), rtol=1e-4, atol=1e-5
        )
    assert {block for drawn in seen for block in drawn} == {0, 2}
    expected = []
    for i in range(4):
        shares = [chosen.double().mean().item() for drawn in seen if (chosen := drawn.get(i)) is not None]
        expected.append(sum(shares) / 3)
    assert model.tally.shares == pytest.approx(expected)


def test_averaged_predictions_are_the_mean_over_forced_draws() -> None:
    student, teacher = student_and_teacher()
    model = stochca.StochCA(student, prob=0.5, teacher=teacher, schedule="linear").train()
    model.set_progress(10, 10)  # where training ends, with probability 0
    found = stochca.averaged_predictions(model, images(), 4, torch.Generator().manual_seed(3))
    assert model.training
    assert model.tally.forwards == 0
    assert not model.prob.any()
    generator = torch.Generator().manual_seed(3)
    unscheduled = stochca.StochCA(student, prob=0.5, teacher=teacher)
    drawn = [set(unscheduled.draw(3, generator)) for _ in range(4)]
    assert len({frozenset(blocks) for blocks in drawn}) > 1
    expected = sum(slow_stochca(student.eval(), teacher, images(), [blocks] * 3) for blocks in drawn) / 4
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_averaging_needs_a_pass() -> None:
    with pytest.raises(UserError, match="passes must be 1 or more, found 0"):
        stochca.averaged_predictions(stochca.StochCA(vit()), images(), 0)
