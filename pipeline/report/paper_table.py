"""The table as papers print it: methods down, targets across, a block for each choice of the weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pipeline.report.comparison_file import ComparisonFile
from pipeline.report.published import DOMAINS, Published, published_for
from pipeline.report.statistics import Spread
from pipeline.report.terms import Selection, Terms

MEASURED, PUBLISHED = "measured", "published"
NOT_PUBLISHED = "not among the numbers that are quoted"
INCOMPLETE = "an average needs every column"


@dataclass(frozen=True)
class Column:
    dataset: str
    target: str  # as in protocol.targets, or average
    title: str
    group: str = ""  # a title above those of several columns


@dataclass(frozen=True)
class Cell:
    """A mean with its error, shares of 1, or the reason why there is none."""

    mean: float | None
    error: float | None = None  # None: not known
    n: int = 0  # trials or seeds; 0: not known
    missing: str = ""

    @property
    def printed(self) -> str:
        """In percent, as it is compared: what looks the same is the same."""
        return "-" if self.mean is None else f"{100 * self.mean:.1f}"

    @property
    def printed_error(self) -> str:
        return "" if self.error is None else f"{100 * self.error:.1f}"


@dataclass(frozen=True)
class TableLine:
    method: str
    cells: list[Cell]  # one per column


@dataclass(frozen=True)
class Block:
    """Lines that may be compared with each other."""

    title: str
    selection: str
    backbone: str
    lines: list[TableLine]
    source: str = MEASURED
    citation: str = ""  # of published numbers

    def is_best(self, line: TableLine, column: int) -> bool:
        """Whether no line of the block has a higher number in the column, as printed.

        Of published numbers, and of a number that stands alone, never.
        """
        own = line.cells[column]
        cells = [each.cells[column] for each in self.lines]
        known = [float(cell.printed) for cell in cells if cell.mean is not None]
        if self.source != MEASURED or own.mean is None or len(known) < 2:
            return False
        return float(own.printed) == max(known)


@dataclass(frozen=True)
class PaperTable:
    caption: str
    columns: list[Column]
    blocks: list[Block]
    error: str  # what stands behind ±
    notes: list[str] = field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        """Why cells are empty, each reason once, in the order of the table."""
        cells = [cell for block in self.blocks for line in block.lines for cell in line.cells]
        return list(dict.fromkeys(cell.missing for cell in cells if cell.missing))


Series = list[float] | str  # one number per trial, or the reason why there are none


def paper_table(results: ComparisonFile) -> PaperTable:
    """The table of one dataset, with the published numbers that belong beside it."""
    dataset, protocol, terms = results.dataset.name, results.protocol, results.protocol.terms
    columns = [
        Column(dataset, target, dataset if target == "all" else terms.title_of(target))
        for target in protocol.targets
    ]
    if len(columns) > 1:
        columns.append(Column(dataset, "average", "Average"))
    blocks, notes = [], []
    for selection in terms.selections:
        series = {
            method: [
                results.accuracies(method, target, selection.metric) or f"no {selection.name} for this run"
                for target in protocol.targets
            ]
            for method in protocol.methods
        }
        if all(isinstance(each, str) for line in series.values() for each in line):
            notes.append(no_block(selection))
            continue
        blocks.append(
            Block(
                selection.title,
                selection.name,
                results.backbone.title,
                [make_line(method, each, terms) for method, each in series.items()],
            )
        )
    shown = {dataset}
    if protocol.name == "leave_one_domain_out" and len(protocol.targets) != DOMAINS.get(dataset):
        shown = set()
    blocks += published_blocks(protocol.name, columns, shown)
    notes += published_notes(protocol.name, shown, [results.backbone.title])
    caption = (
        f"Test accuracy in percent on {dataset} ({results.dataset.classes} classes) with "
        f"{results.backbone.title}. {explanation(terms, protocol.name, [len(protocol.seeds)], len(columns))}"
    )
    return PaperTable(caption, columns, blocks, terms.error, notes)


def make_line(method: str, series: Sequence[Series], terms: Terms, *, paired: bool = True) -> TableLine:
    """A method's cells, one per series; where there are several, then their average.

    Unless the trials are `paired` over the series, the average has no error.
    """
    cells = [
        Cell(None, missing=each)
        if isinstance(each, str)
        else Cell(fmean(each), terms.error_of(Spread.of(each)), len(each))
        for each in series
    ]
    if len(series) > 1:
        cells.append(
            _average([each for each in series if not isinstance(each, str)], len(series), terms, paired)
        )
    return TableLine(method, cells)


def _average(series: Sequence[list[float]], needed: int, terms: Terms, paired: bool) -> Cell:
    """Of each trial the mean over the columns, then mean and error over the trials."""
    if len(series) < needed:
        return Cell(None, missing=INCOMPLETE)
    if not paired:
        return Cell(fmean(map(fmean, series)))
    trials = [fmean(trial) for trial in zip(*series, strict=True)]
    return Cell(fmean(trials), terms.error_of(Spread.of(trials)), len(trials))


def no_block(selection: Selection) -> str:
    return f"There are no numbers for the {selection.name}: the runs did not look at it."


def explanation(terms: Terms, protocol: str, repeats: Sequence[int], columns: int) -> str:
    """What the columns, the errors and the blocks are."""
    sentences = []
    if protocol == "leave_one_domain_out":
        sentences.append("Every domain is held out of training once and tested on.")
    if protocol == "sampling_ratios":
        sentences.append("The shares are those of the training images that were used.")
    counts = sorted(set(repeats))
    if counts == [1]:
        sentences.append(f"One {terms.trial}: the {terms.error} is not known.")
    else:
        sentences.append(f"± is the {terms.error} over {' or '.join(map(str, counts))} {terms.trials}.")
    if columns > 1:
        over = "" if counts == [1] else f" within each {terms.trial}, its error over the {terms.trials}"
        sentences.append(f"The average is taken over the columns{over}.")
    sentences.append("The best mean of each column is bold, ties too.")
    if len(terms.selections) > 1:
        sentences.append(f"Only {terms.selections[0].name} ranks the methods.")
    return " ".join(sentences)


def published_blocks(protocol: str, columns: Sequence[Column], datasets: set[str]) -> list[Block]:
    """A block per publication, with its numbers for `datasets` in the columns where they belong."""
    place = "average" if protocol == "leave_one_domain_out" else "all"

    def cell(numbers: dict[str, float], column: Column) -> Cell:
        number = numbers.get(column.dataset)
        if number is None or column.dataset not in datasets or column.target != place:
            return Cell(None, missing=NOT_PUBLISHED)
        return Cell(round(number / 100, 6))

    return [
        Block(
            each.title,
            each.selection,
            each.backbone,
            [
                TableLine(name, [cell(dict(row), column) for column in columns])
                for name, row in each.rows.items()
            ],
            PUBLISHED,
            each.citation,
        )
        for each in published_for(protocol, datasets)
    ]


def published_notes(protocol: str, datasets: set[str], backbones: Sequence[str]) -> list[str]:
    """How the runs behind published numbers differ from ours."""
    found: list[Published] = published_for(protocol, datasets)
    if not found:
        return []
    theirs = " or ".join(dict.fromkeys(each.backbone for each in found))
    note = (
        f"Published numbers are quoted, not measured here, and not to be ranked with ours: they are of "
        f"{theirs}, ours of {' or '.join(dict.fromkeys(backbones))}; sizes of images and settings differ too."
    )
    remarks = {name: text for each in found for name, text in each.remarks.items() if name in datasets}
    return [note, *(f"{name}: {text}." for name, text in remarks.items())]
