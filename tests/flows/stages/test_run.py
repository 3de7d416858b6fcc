import pytest

from flows.stages.run import percent, reason


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("stochca-all-0: step 20 of 180, training loss 1.2, validation accuracy 0.5", 100 * 20 / 180),
        ("rendering: 1,500 of 7,592", 100 * 1500 / 7592),
        ("prepared 36 train, 9 val, 15 test images of 3 classes", None),
        ("stochca-all-0: continues after step 6 of 12", 50.0),
        ("0 of 0", None),
        ("5 of 3", None),
        ("version 1.2 of it", None),
    ],
)
def test_how_far_a_line_says_a_stage_is(line: str, expected: float | None) -> None:
    assert percent(line) == expected


def test_a_stages_own_sentence_is_the_reason() -> None:
    lines = ["> python stage.py", "error: a is missing", "ERROR: failed to reproduce 'x': exited with 2"]
    assert reason(lines) == "a is missing"
    assert reason(["Killed", "ERROR: exited with -9"]) == "ERROR: exited with -9"
    lines = ["Traceback (most recent call last):", "ImportError: no b", "ERROR: failed to reproduce 'x'"]
    assert reason(lines) == "ImportError: no b"
    assert reason([]) == "it printed nothing"
