import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.language.text.conversations import Conversation
from examples.language.text.splitting import held_out, without_repeats
from stochca.errors import UserError


def pair(question: str, answer: str) -> Conversation:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(messages, "here")


def test_repeats_differ_in_case_and_spaces_alone() -> None:
    pairs = [pair("How are you", "Well."), pair("how  are you", "well."), pair("how are you", "badly")]
    assert without_repeats(pairs) == [pairs[0], pairs[2]]


@given(st.lists(st.integers(0, 30), min_size=2), st.floats(0.1, 0.9), st.integers(0, 5))
def test_no_question_is_on_both_sides(numbers: list[int], share: float, seed: int) -> None:
    pairs = [pair(f"Question {number}", str(place)) for place, number in enumerate(numbers)]
    try:
        tests = held_out(pairs, share, seed)
    except UserError:
        assert not 0 < round(share * len(set(numbers))) < len(set(numbers))
        return
    trained, tested = (
        {n for n, test in zip(numbers, tests, strict=True) if test is side} for side in (False, True)
    )
    assert not trained & tested
    assert len(tested) == round(share * len(set(numbers)))
    assert tests == held_out(pairs, share, seed)


def test_nothing_to_hold_out() -> None:
    with pytest.raises(UserError, match="leaves nothing to hold out"):
        held_out([pair("a", "b"), pair("c", "d")], 0.1, 0)
