"""Which cell of the map a search's find is held against, and what is said of the two."""

from typing import Any

import pytest

from benchmarks.mapping.grid import Cell
from benchmarks.search_holds import best_of_map, report


def trainings(
    prob: float, lr: float, right: str, seeds: int = 3, first: str = "none"
) -> dict[Cell, dict[str, Any]]:
    """Of some seeds that all answer alike: what is right costs no loss, what is wrong two nats."""
    record = {
        "test_accuracy": right.count("1") / len(right),
        "right": right,
        "losses": [0.0 if answer == "1" else 2.0 for answer in right],
        "confidences": [0.5] * len(right),
    }
    return {Cell("openmoji", 15, 28, first, prob, "all", lr, seed): record for seed in range(seeds)}


MAPPED = {
    **trainings(0.0, 3e-5, "1100"),
    **trainings(0.1, 3e-5, "1110"),
    **trainings(0.3, 1e-4, "1111", seeds=2),  # a rate that no further seed was trained at
    **trainings(0.0, 1e-5, "1111", first="lp_ft"),  # which is not searched
}


def test_the_best_is_among_what_a_search_may_find_and_all_seeds_trained() -> None:
    assert {(cell.prob, cell.lr, cell.first_phase) for cell in best_of_map(MAPPED, "openmoji", 3)} == {
        (0.1, 3e-5, "none")
    }


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    report(MAPPED, trainings(0.217, 2e-5, "1100"))
    row = capsys.readouterr().out.splitlines()[-1]
    assert "p = 0.22, lr 2e-05 | p = 0.1, lr 3e-05" in row
    assert "50.0, 75.0, -25.0" in row  # one of four images less
    assert "1.000, 0.500, 0.500" in row  # and two nats on it
