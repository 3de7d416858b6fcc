import pytest

from stochca.averaging import AVERAGES
from stochca.composition import ADAPTATIONS, ATTENTIONS, FIRST_PHASES
from stochca.methods import CHOICES, LpFt, Method, StochasticCrossAttention, Swad, TrainHead


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"attention": StochasticCrossAttention(), "train": TrainHead()}, "nothing that attends is trained"),
        ({"phases": LpFt(), "train": TrainHead()}, "its second phase trains the whole model"),
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


def test_every_choice_has_its_code() -> None:
    """A value in the registry of names without code behind it would fail only once training starts."""
    assert set(CHOICES["attention"].values()) == set(ATTENTIONS)
    assert set(CHOICES["train"].values()) == set(ADAPTATIONS)
    assert set(CHOICES["phases"].values()) == set(FIRST_PHASES)
    assert set(CHOICES["average"].values()) == set(AVERAGES)
    for classes in CHOICES.values():
        assert all(choice().name == name for name, choice in classes.items())
