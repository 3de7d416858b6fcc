"""Adapters in the training loop: resuming, averages, selection and what is kept."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stochca.adapters.adapted import AdaptedModel
from stochca.config import (
    Ema,
    Lora,
    LpFt,
    Method,
    StochasticCrossAttention,
    Swa,
    Swad,
    Toast,
    ToastLite,
    Vpt,
)
from stochca.config.training import Augmentation, Training
from stochca.errors import UserError
from stochca.evaluation import predict, score
from stochca.training.callbacks import Callback, StepEvent
from stochca.training.composition import kept_model
from stochca.training.fit import Fitted, find_evaluated, fit
from stochca.training.inputs import Inputs, check_settings
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit

CPU = torch.device("cpu")
LORA = Lora(rank=2, dropout=0.1)
METHODS = {
    "lora": Method(adapter=LORA),
    "lora+stochca+lp_ft+swad": Method(
        adapter=LORA,
        attention=StochasticCrossAttention(prob=0.5, teacher_precision="same"),
        phases=LpFt(C=(1.0,)),
        average=Swad(n_converge=2, n_tolerance=2),
    ),
    "vpt+swa": Method(adapter=Vpt(tokens=2, dropout=0.1), average=Swa(start=0.5)),
    "vpt shallow": Method(adapter=Vpt(tokens=2, deep=False)),
    "toast": Method(adapter=Toast()),
    "toast_lite+ema": Method(adapter=ToastLite(rank=2), average=Ema(decay=0.9)),
}
SETTINGS = Training(
    steps=7,
    batch_size=8,
    lr=3e-2,
    warmup=2 / 7,
    precision="bf16",
    accumulate=2,
    gradient_checkpointing=True,
    evaluations=3,
    checkpoints=4,
    workers=0,
    augmentation=Augmentation(mixup=0.2),
)


class Killed(Exception):
    pass


class Kill(Callback):
    def on_step(self, event: StepEvent) -> None:
        if event.step == 5:
            raise Killed


def run(method: Method, folder: Path | None, *callbacks: Callback, seed: int = 0) -> Fitted:
    return fit(
        Inputs(
            tiny_vit(drop_path_rate=0.1),
            ColouredSquares(24),
            ColouredSquares(20, seed=1),
            method=method,
            settings=SETTINGS,
            preprocessing=PREPROCESSING,
            seed=seed,
        ),
        work_folder=folder,
        keep_evaluated="last",
        callbacks=callbacks,
        device=CPU,
    )


def frozen(model: torch.nn.Module) -> dict[str, Tensor]:
    state = model.backbone.state_dict() if isinstance(model, AdaptedModel) else model.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("head.")}


@pytest.mark.parametrize("name", METHODS)
def test_resumes_bit_exactly_and_keeps_what_was_selected(name: str, tmp_path: Path) -> None:
    method = METHODS[name]
    fitted = run(method, tmp_path / "a")
    with pytest.raises(Killed):
        run(method, tmp_path / "b", Kill())
    resumed = run(method, tmp_path / "b")
    state = fitted.model.state_dict()
    assert state.keys() == resumed.model.state_dict().keys()
    for key, value in resumed.model.state_dict().items():
        assert torch.equal(value, state[key]), key

    # What was selected is what is kept, to the last digit, also where it was merged.
    logits, labels = predict(
        fitted.model, ColouredSquares(20, seed=1), PREPROCESSING, device=CPU, precision="bf16"
    )
    assert score(logits, labels) == fitted.validation

    # It loads into what the pipeline makes of a method, and so do the weights of each look.
    other = kept_model(method, tiny_vit(seed=5))
    other.load_state_dict(state)
    (look,) = find_evaluated(tmp_path / "a").values()
    other.load_state_dict(load_file(look))

    start = frozen(tiny_vit())
    moved = {key for key, value in frozen(fitted.model).items() if not torch.equal(value, start[key])}
    expected = {f"blocks.{i}.attn.qkv.weight" for i in range(3)} if method.adapter == LORA else set()
    assert moved == expected


def test_the_seed_decides_where_adapters_start() -> None:
    first, again, other = (run(METHODS["toast"], None, seed=seed).model for seed in (0, 0, 1))
    assert torch.equal(first.task, again.task)
    assert not torch.equal(first.task, other.task)


def test_random_decoders_are_noted_loudly() -> None:
    (note,) = run(METHODS["toast"], None).notes
    assert note.startswith("WARNING: TOAST's decoders started at random")


@pytest.mark.parametrize("train", [Vpt(), Toast(), ToastLite()])
def test_what_makes_no_sense_is_refused(train: Vpt | Toast | ToastLite) -> None:
    with pytest.raises(
        ValueError, match=f"'stochca' with adapter '{train.name}' makes no sense: nothing that"
    ):
        Method(adapter=train, attention=StochasticCrossAttention())
    with pytest.raises(ValueError, match=f"'lp_ft' with adapter '{train.name}' makes no sense: its second"):
        Method(adapter=train, phases=LpFt())
    with pytest.raises(UserError, match=f"layer_decay 0.5 means nothing with adapter '{train.name}'"):
        check_settings(
            Inputs(
                tiny_vit(),
                [],
                [],
                method=Method(adapter=train),
                settings=Training(steps=1, layer_decay=0.5),
                preprocessing=PREPROCESSING,
            ),
            CPU,
        )


def test_checking_changes_nothing() -> None:
    student = tiny_vit()
    for method in METHODS.values():
        inputs = Inputs(
            student, [], [], method=method, settings=Training(steps=1), preprocessing=PREPROCESSING
        )
        check_settings(inputs, CPU)
    assert student.state_dict().keys() == tiny_vit().state_dict().keys()
    assert all(parameter.requires_grad for parameter in student.parameters())
