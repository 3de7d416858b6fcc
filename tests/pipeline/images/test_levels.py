import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.images.levels import FLOAT, WHOLE, Span, joined, levels_of, to_8_bits

whole = st.lists(st.integers(-(2**31), 2**32 - 1), min_size=1, max_size=9)


@given(st.lists(whole, min_size=1, max_size=4))
def test_all_values_of_a_set_lie_between_black_and_white_in_order(images: list[list[int]]) -> None:
    spans = [Span.of(np.array(values, np.int64)) for values in images]
    levels = levels_of(spans)
    black, white = levels[WHOLE]
    every = sorted({value for values in images for value in values})
    assert black <= every[0]
    assert every[-1] <= white
    if every[0] >= 0:
        assert black == 0
        assert white + 1 in [2**bits for bits in range(8, 33)]
        assert white == 255 or every[-1] > white // 2  # no power of two is smaller
    found = to_8_bits(np.array(every), levels).tolist()
    assert found == sorted(found)
    assert all(span.is_within(levels) for span in spans)


def test_kinds_of_numbers_have_levels_of_their_own() -> None:
    spans = [Span(WHOLE, 3, 900), Span(FLOAT, 0.5, 0.75), Span(WHOLE, 0, 5), Span(FLOAT, -0.25, 0.0)]
    assert levels_of(spans) == {WHOLE: [0, 1023], FLOAT: [-0.25, 0.75]}
    assert joined(spans) == [Span(WHOLE, 0, 900), Span(FLOAT, -0.25, 0.75)]


def test_what_is_beyond_is_cut_and_one_value_is_black() -> None:
    values = np.array([-1, 0, 4095, 70_000], np.int32)
    assert to_8_bits(values, {WHOLE: [0, 4095]}).tolist() == [0, 0, 255, 255]
    same = np.full(3, 0.5, np.float32)
    assert to_8_bits(same, levels_of([Span.of(same)])).tolist() == [0, 0, 0]
