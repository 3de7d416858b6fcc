from collections.abc import Callable

import pytest

from stochca.averaging import AVERAGES
from stochca.config import (
    CHOICES,
    HeadAlone,
    LpFt,
    Method,
    Schedule,
    StochasticCrossAttention,
    Swad,
    WiseFt,
    ZeroShot,
)
from stochca.training.composition import ADAPTATIONS, ATTENTIONS, FIRST_PHASES


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"attention": StochasticCrossAttention(), "train": HeadAlone()}, "nothing that attends is trained"),
        ({"phases": LpFt(), "train": HeadAlone()}, "its second phase trains the whole model"),
        ({"average": WiseFt()}, "halfway back to a head of random weights; use phases 'lp_ft'"),
    ],
)
def test_nonsense_is_refused(choices: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Method(**choices)  # type: ignore[arg-type]


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
        (lambda: StochasticCrossAttention(blocks=(1, -1)), r"blocks are counted from 0, found \[1, -1\]"),
        (lambda: Schedule(name="cosine", end=2.0), "end is a probability between 0 and 1, found 2.0"),
        (lambda: Schedule(end=0.1), "end belongs to the schedule linear or cosine, found constant"),
        (lambda: Schedule(name="linear", share=0.1), "share belongs to the schedule warmup, found linear"),
        (lambda: Schedule(name="warmup", share=0.0), "share of the steps must be above 0"),
        (lambda: WiseFt(alpha=(0.5, 1.5)), "alpha must be between 0 and 1, found 1.5"),
        (lambda: WiseFt(alpha=()), "alpha must be one value or more"),
        (lambda: ZeroShot(template="a photo"), r"template must hold {} once"),
        (lambda: ZeroShot(text_encoder="ViT-B-16"), "text_encoder must be ARCHITECTURE/WEIGHTS"),
    ],
)
def test_options_are_checked(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_every_choice_has_its_code() -> None:
    """A value in the registry of names without code behind it would fail only once training starts."""
    assert set(CHOICES["attention"].values()) == set(ATTENTIONS)
    assert set(CHOICES["adapter"].values()) == set(ADAPTATIONS)
    assert set(CHOICES["phases"].values()) == set(FIRST_PHASES)
    assert set(CHOICES["average"].values()) == set(AVERAGES)
    for classes in CHOICES.values():
        assert all(choice().name == name for name, choice in classes.items())
