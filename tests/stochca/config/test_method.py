"""Which choices contradict each other, and what else their options refuse."""

from collections.abc import Callable
from typing import Any

import pytest

from stochca.config import (
    Bss,
    Ema,
    HeadAlone,
    L2Sp,
    Lora,
    LpFt,
    Method,
    Schedule,
    StochasticCrossAttention,
    Swa,
    Swad,
    Vpt,
    WiseFt,
    ZeroShot,
)
from stochca.config.training import Training


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        (
            {"attention": StochasticCrossAttention(), "adapter": HeadAlone()},
            "nothing that attends is trained",
        ),
        ({"phases": LpFt(), "adapter": HeadAlone()}, "its second phase trains the whole model"),
        (
            {"average": WiseFt()},
            "halfway back to a head of random weights; use phases 'lp_ft' or 'zero_shot'",
        ),
        ({"average": WiseFt(), "phases": LpFt(), "adapter": Lora()}, "are not the model between them"),
        ({"penalties": (Bss(), Bss(k=2))}, "penalties lists one twice"),
        (
            {"penalties": (Bss(),), "adapter": HeadAlone()},
            "'bss' with adapter 'head' makes no sense: .*; leave .* out, or use adapter 'all' or 'lora'",
        ),
        (
            {"penalties": (Bss(), L2Sp()), "adapter": Lora()},
            "penalties 'l2sp' with adapter 'lora' makes no sense",
        ),
    ],
)
def test_nonsense_is_refused(choices: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Method(**choices)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choices", "circumstances", "sentence"),
    [
        ({"average": Swad()}, {"refit": True}, "average swad chooses its steps by the validation loss"),
        ({"phases": LpFt(), "average": WiseFt(alpha=(0.1, 0.5))}, {"refit": True}, "give one alpha"),
        (
            {"penalties": (Bss(k=9),)},
            {"micro_batch": 8},
            "penalties bss takes the 9 smallest .* only 8 images",
        ),
        *(
            (
                {"average": average},
                {"settings": Training(steps=1, patience=2)},
                f"training.patience 2 ends .*, but average '{average.name}' needs the whole schedule",
            )
            for average in (Swa(), Swad())
        ),
        (
            {"average": Ema()},
            {"settings": Training(steps=1, patience=2), "refit": True},
            "training.patience 2 ends training by the validation score, of which refit leaves none",
        ),
        (
            {"adapter": HeadAlone()},
            {"settings": Training(steps=1, head_lr_scale=0)},
            "head_lr_scale 0 .* trains nothing",
        ),
        (
            {"adapter": Vpt()},
            {"settings": Training(steps=1, layer_decay=0.5)},
            "layer_decay 0.5 means nothing .*'vpt'",
        ),
    ],
)
def test_what_a_part_can_not_be_trained_with_is_refused(
    choices: dict[str, Any], circumstances: dict[str, Any], sentence: str
) -> None:
    method = Method(**choices)
    fine: dict[str, Any] = {"settings": Training(steps=1), "micro_batch": 32, "refit": False}
    method.check_training(**fine)
    with pytest.raises(ValueError, match=sentence):
        method.check_training(**fine | circumstances)


def test_other_methods_may_end_early() -> None:
    for method in (Method(), Method(average=Ema()), Method(phases=LpFt(), average=WiseFt())):
        method.check_training(Training(steps=1, patience=2), micro_batch=32, refit=False)


@pytest.mark.parametrize("prob", [-0.1, 1.1, (0.1, 2.0)])
def test_probabilities_are_probabilities(prob: float | tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="prob must be between 0 and 1"):
        StochasticCrossAttention(prob=prob)


def test_swad_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="n_converge must be 1 or more, found 0"):
        Swad(n_converge=0)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: StochasticCrossAttention(blocks=()), "blocks must name one block or more"),
        (lambda: StochasticCrossAttention(blocks=(1, -1)), "blocks must be counted from 0, found -1"),
        (lambda: Schedule(name="cosine", end=2.0), "end must be between 0 and 1, found 2.0"),
        (lambda: Schedule(end=0.1), "end belongs to the schedule linear or cosine, found constant"),
        (lambda: Schedule(name="linear", share=0.1), "share belongs to the schedule warmup, found linear"),
        (
            lambda: Schedule(name="warmup", share=0.0),
            "share must be above 0 and at most 1, a share",
        ),
        (lambda: WiseFt(alpha=(0.5, 1.5)), "alpha must be between 0 and 1, found 1.5"),
        (lambda: WiseFt(alpha=()), "alpha must be one value or more"),
        (lambda: ZeroShot(template="a photo"), r"template must hold {} once"),
        (lambda: ZeroShot(text_encoder="ViT-B-16"), "text_encoder must be ARCHITECTURE/WEIGHTS"),
    ],
)
def test_options_are_checked(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()
