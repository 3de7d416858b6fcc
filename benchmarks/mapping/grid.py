"""Which trainings the map is made of: cheap ones first, and each rate chosen before further seeds train."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any, Literal

Blocks = Literal["all", "lower", "upper"]
Results = Mapping["Cell", Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One training."""

    set: str
    share: int  # percent of the training images
    epochs: int
    first_phase: str  # none | lp_ft
    prob: float  # of cross-attention; 0: plain fine-tuning
    blocks: Blocks  # those that may cross-attend
    lr: float  # of the backbone
    seed: int

    @property
    def method(self) -> tuple[str, float, Blocks]:
        return self.first_phase, self.prob, self.blocks

    @property
    def place(self) -> tuple[str, int, int]:
        """Where on the map it stands."""
        return self.set, self.share, self.epochs


@dataclass(frozen=True)
class Grid:
    """Every combination; the seeds behind the first few train only at the rates that those chose."""

    sets: tuple[str, ...] = ("openmoji", "solar_cells")
    budgets: tuple[tuple[int, int], ...] = ((15, 7), (15, 28), (100, 2), (100, 4))  # share and epochs
    first_phases: tuple[str, ...] = ("none", "lp_ft")
    probs: tuple[float, ...] = (0.0, 0.1, 0.3)
    blocks: tuple[Blocks, ...] = ("all",)
    rates: tuple[float, ...] = (1e-5, 3e-5, 1e-4)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    choosing: int = 2  # seeds that try every rate

    def places(self) -> list[tuple[str, int, int]]:
        """In order of what they cost."""
        budgets = sorted(self.budgets, key=lambda budget: budget[0] * budget[1])
        return [(name, share, epochs) for share, epochs in budgets for name in self.sets]

    def methods(self) -> list[tuple[str, float, Blocks]]:
        return [
            (first, prob, blocks)
            for first, prob, blocks in product(self.first_phases, self.probs, self.blocks)
            if prob or blocks == self.blocks[0]  # where nothing cross-attends, blocks make no difference
        ]

    def open(self, done: Results, under_way: Collection[Cell] = ()) -> Iterator[Cell]:
        """The trainings that can start now."""
        for (name, share, epochs), (first, prob, blocks) in product(self.places(), self.methods()):
            for cell in self._of(Cell(name, share, epochs, first, prob, blocks, 0.0, 0), done):
                if cell not in done and cell not in under_way:
                    yield cell

    def _of(self, cell: Cell, done: Results) -> list[Cell]:
        tried = [replace(cell, lr=lr, seed=seed) for seed in self.seeds[: self.choosing] for lr in self.rates]
        if not all(one in done for one in tried):
            return tried
        rates = {best_rate(tried, done, score) for score in ("validation_accuracy", "validation_loss")}
        return tried + [
            replace(cell, lr=lr, seed=seed)
            for seed in self.seeds[self.choosing :]
            for lr in self.rates
            if lr in rates
        ]


SMALL = Grid()
FULL = Grid(
    budgets=tuple(product((15, 30, 50, 100), (2, 7, 28, 84))),
    probs=(0.0, 0.03, 0.1, 0.3, 0.5),
    blocks=("all", "lower", "upper"),
    seeds=tuple(range(10)),
)


def best_rate(cells: Collection[Cell], done: Results, score: str) -> float:
    """The rate that did best on validation, in the mean over the seeds that tried all of them."""
    rates = sorted({cell.lr for cell in cells})
    means = {lr: fmean(done[cell][score] for cell in cells if cell.lr == lr) for lr in rates}
    return (min if score.endswith("loss") else max)(rates, key=lambda lr: means[lr])
