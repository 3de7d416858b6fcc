"""The table as papers print it: methods down, targets across, a block for each choice of the weights.

Written by templates, not with pandas' Styler and `to_markdown`, which know no blocks under titles, and no
cells that refer to the reason below why they are empty.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.report.documents import LATEX, TEMPLATES
from pipeline.runtime.files import replace_file, write_text

MEASURED, PUBLISHED = "measured", "published"


@dataclass(frozen=True)
class Column:
    dataset: str
    target: str  # as in protocol.targets, or average
    title: str
    group: str = ""  # a title above those of several columns


@dataclass(frozen=True)
class Cell:
    """A mean with its error, or the reason why there is none."""

    mean: float | None
    error: float | None = None  # None: not known
    n: int = 0  # trials or seeds; 0: not known
    missing: str = ""
    in_percent: bool = True  # of shares of 1; others are printed with three decimals

    @property
    def printed(self) -> str:
        """As it is compared: what looks the same is the same."""
        return "-" if self.mean is None else self._print(self.mean)

    @property
    def printed_error(self) -> str:
        return "" if self.error is None else self._print(self.error)

    def _print(self, number: float) -> str:
        return f"{100 * number:.1f}" if self.in_percent else f"{number:.3f}"


@dataclass(frozen=True)
class Block:
    """Lines that may be compared with each other."""

    title: str
    selection: str
    backbone: str
    lines: Mapping[str, list[Cell]]  # by method; one per column
    source: str = MEASURED
    citation: str = ""  # of published numbers
    most_is_best: bool = True

    def is_best(self, method: str, column: int) -> bool:
        """Whether no line of the block has a better number in the column, as printed.

        Of published numbers, and of a number that stands alone, never.
        """
        own = self.lines[method][column]
        cells = [cells[column] for cells in self.lines.values()]
        known = [float(cell.printed) for cell in cells if cell.mean is not None]
        if self.source != MEASURED or own.mean is None or len(known) < 2:
            return False
        return float(own.printed) == (max if self.most_is_best else min)(known)


@dataclass(frozen=True)
class BenchmarkTable:
    caption: str
    columns: list[Column]
    blocks: list[Block]
    error: str  # what stands behind ±
    notes: list[str] = field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        """Why cells are empty, each reason once, in the order of the table."""
        cells = [cell for block in self.blocks for line in block.lines.values() for cell in line]
        return list(dict.fromkeys(cell.missing for cell in cells if cell.missing))


def write_table(folder: Path, table: BenchmarkTable) -> list[Path]:
    """table.md, table.tex and table.csv in a folder, which is made if need be."""
    markdown, latex, plain = (folder / f"table.{end}" for end in ("md", "tex", "csv"))
    write_text(markdown, as_markdown(table))
    write_text(latex, as_latex(table))
    write_csv(plain, pd.DataFrame(_csv_rows(table), dtype=object))
    return [markdown, latex, plain]


def write_csv(path: Path, table: pd.DataFrame) -> None:
    with replace_file(path) as temporary:
        table.to_csv(temporary, index=False)


def as_markdown(table: BenchmarkTable) -> str:
    """A table per block under its title; why cells are empty stands below."""
    return TEMPLATES.get_template("table.md").render(table=table)


def as_latex(table: BenchmarkTable) -> str:
    """A `table` environment with a booktabs tabular; blocks are set off by rules and titles."""
    return LATEX.get_template("table.tex").render(table=table, groups=_groups(table.columns))


def _groups(columns: Sequence[Column]) -> list[tuple[str, int, int]]:
    """The titles above columns, each with its first and last place, that of the methods being 1."""
    groups, start = [], 2
    for title, same in groupby(column.group for column in columns):
        end = start + len(list(same)) - 1
        groups.append((title, start, end))
        start = end + 1
    return groups


def _csv_rows(table: BenchmarkTable) -> Iterator[dict[str, Any]]:
    for block in table.blocks:
        for method, cells in block.lines.items():
            for column, cell in zip(table.columns, cells, strict=True):
                yield {
                    "method": method,
                    "target": column.target,
                    "selection": block.selection,
                    "mean": cell.mean,
                    "error": cell.error,
                    "n": cell.n or None,
                    "source": block.source,
                    "error_is": None if cell.error is None else table.error,
                    "dataset": column.dataset,
                    "backbone": block.backbone,
                    "remark": cell.missing or block.citation,
                }
