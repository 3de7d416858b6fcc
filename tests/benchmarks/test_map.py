"""The grid of the map, what a kill leaves of it, and one of its trainings."""

import dataclasses
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm

from benchmarks.map import appended_to, read_results, run
from benchmarks.mapping.grid import FULL, SMALL, Cell, Grid
from benchmarks.mapping.packed import write_images, write_weights

TINY = Grid(
    sets=("squares",),
    budgets=((100, 1),),
    first_phases=("none", "lp_ft"),
    probs=(0.0, 0.5),
    rates=(1e-4, 1e-3),
    seeds=(0, 1, 2),
)


def scores(cell: Cell) -> dict[str, Any]:
    """At p = 0 the higher rate is right more often, and the lower has less log loss."""
    best = max(SMALL.rates) if cell.prob == 0 else min(SMALL.rates)
    return {
        "validation_accuracy": float(cell.lr == best),
        "validation_loss": cell.lr,
    }


def test_further_seeds_train_at_the_rates_that_the_first_chose() -> None:
    done: dict[Cell, Any] = {}
    while cell := next(SMALL.open(done), None):
        assert cell not in done
        done[cell] = scores(cell)
    places = len(SMALL.sets) * len(SMALL.budgets)
    methods = len(SMALL.first_phases) * len(SMALL.probs)
    rates = {True: {1e-4, 1e-5}, False: {1e-5}}  # by accuracy and by loss; plain or not
    expected = {
        (first, prob, lr, seed)
        for first, prob, lr, seed in product(SMALL.first_phases, SMALL.probs, SMALL.rates, SMALL.seeds)
        if seed < 2 or lr in rates[prob == 0]
    }
    assert {(c.first_phase, c.prob, c.lr, c.seed) for c in done} == expected
    assert len(done) == places * len(expected)
    assert len({c.method for c in done}) == methods
    assert ("none", 0.0, "upper") not in FULL.methods()


def test_what_is_under_way_is_not_started_again() -> None:
    first, second, *_ = SMALL.open({})
    assert next(SMALL.open({}, [first])) == second


def test_a_line_that_a_kill_cut_off_is_trained_again(tmp_path: Path) -> None:
    cells = list(SMALL.open({}))[:3]
    lines = [json.dumps(dataclasses.asdict(cell) | {"test_accuracy": 0.5}) + "\n" for cell in cells]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(lines)[:-20])
    assert list(read_results(path)) == cells[:2]
    with appended_to(path) as file:
        file.write(lines[2].encode())
    assert read_results(path) == {cell: {"test_accuracy": 0.5} for cell in cells}


@pytest.mark.slow
def test_a_small_map(tmp_path: Path) -> None:
    """From packed files to every line, in two runs."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = random.integers(0, 120, (60, 32, 32, 3)).astype(np.uint8)
    images[np.arange(60), ..., labels] += 100
    rows = {"train_100": np.arange(30), "validation": np.arange(30, 45), "test": np.arange(45, 60)}
    parts = {f"rows/{name}": found for name, found in rows.items()}
    write_images(tmp_path, {"squares": {"images": images, "labels": labels, **parts}})
    write_weights(tmp_path, "test_vit", timm.create_model("test_vit", num_classes=0).state_dict())
    results = tmp_path / "results.jsonl"
    run(tmp_path, results, TINY, "cpu", processes=1, minutes=0.1)
    some = read_results(results)
    run(tmp_path, results, TINY, "cpu", processes=2, minutes=10)
    done = read_results(results)
    assert 1 <= len(some) < len(done)
    assert not list(TINY.open(done))
    for record in done.values():
        assert record["test_accuracy"] == record["right"].count("1") / 15
        assert record["test_loss"] == pytest.approx(np.mean(record["losses"]), abs=1e-3)
