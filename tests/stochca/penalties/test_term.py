"""What holds for every penalty: gradients, precision, resuming, and what is checked first."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stochca.config import (
    Bss,
    CoTuning,
    Delta,
    L2Sp,
    Method,
    Miro,
    StochasticCrossAttention,
)
from stochca.config.training import Augmentation, Training
from stochca.errors import UserError
from stochca.penalties.term import Batch
from stochca.timm_models.recording import recorded
from stochca.training.fit import fit
from stochca.training.inputs import Inputs, check_settings
from stochca.training.loss import Loss
from tests.stochca.penalties.terms import BATCH, EXAMPLES, SETTINGS, moved, source_head
from tests.stochca.tiny import PREPROCESSING, tiny_vit

EVERY = (L2Sp(), Delta(), Bss(), CoTuning(), Miro())


@pytest.mark.parametrize("config", [Delta(attention=False), Miro()], ids=lambda config: config.name)
def test_the_pretrained_model_computes_in_the_precision_of_the_student(config: Any) -> None:
    """Else rounding would be taken for what training changed."""
    student = tiny_vit().eval()
    loss = Loss(student, SETTINGS, 0, (config,), source_head(), EXAMPLES)
    with torch.autocast("cpu", torch.bfloat16), recorded(student) as records:
        student(BATCH[0])
        made = Batch(*BATCH, records, loss.start)  # type: ignore[arg-type]
    pairs = zip(records.blocks, made.start.blocks, strict=True)
    assert all(now.equal(then) for now, then in pairs)


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.name)
def test_gradients_pull_the_student_alone(config: Any) -> None:
    student = tiny_vit()
    loss = Loss(student, SETTINGS, 0, (config,), source_head(), EXAMPLES)
    moved(student)
    loss(student, *BATCH, 1).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is not None for parameter in loss.parameters)
    assert loss.start is not None
    assert all(parameter.grad is None for parameter in loss.start.model.parameters())


@pytest.mark.parametrize("penalty", EVERY, ids=lambda config: config.name)
def test_killed_and_resumed_equals_undisturbed(penalty: Any, tmp_path: Any) -> None:
    """With StochCA, accumulation and mixup; what the penalty trains itself is resumed too."""
    from tests.stochca.training.test_fit import Kill, Killed, assert_equal

    method = Method(attention=StochasticCrossAttention(prob=0.5), penalties=(penalty,))
    options = Training(
        steps=9, batch_size=8, accumulate=2, lr=3e-3, evaluations=3, checkpoints=2, precision="fp32",
        workers=0, augmentation=Augmentation(mixup=0.2),
    )  # fmt: skip

    def run(folder: Any, *callbacks: Any) -> dict[str, Tensor]:
        student = tiny_vit()
        fit(
            Inputs(
                student,
                EXAMPLES.train,
                EXAMPLES.validation,
                method=method,
                settings=options,
                preprocessing=PREPROCESSING,
                source_head=source_head(),
            ),
            work_folder=folder,
            callbacks=callbacks,
            device=torch.device("cpu"),
        )
        return student.state_dict()

    expected = run(tmp_path / "undisturbed")
    with pytest.raises(Killed):
        run(tmp_path / "killed", Kill(9))
    assert_equal(run(tmp_path / "killed"), expected)


def test_what_penalties_need_is_checked_first() -> None:
    def check(penalty: Any, **given: Any) -> None:
        inputs = Inputs(
            tiny_vit(),
            [],
            [],
            method=Method(penalties=(penalty,)),
            settings=Training(steps=1, batch_size=8),
            preprocessing=PREPROCESSING,
            **given,
        )
        check_settings(inputs, torch.device("cpu"))

    check(CoTuning(), source_head=source_head())
    check(Bss(k=8))
    with pytest.raises(UserError, match="cotuning needs a backbone with the classifier of its pretraining"):
        check(CoTuning())
    with pytest.raises(UserError, match=r"penalties bss takes the 9 smallest .* only 8 images"):
        check(Bss(k=9))
