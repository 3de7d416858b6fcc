"""What stands in the benchmark table: the numbers of one comparison or of several, published ones below."""

from collections.abc import Sequence
from itertools import chain, product
from pathlib import Path
from statistics import fmean

from pipeline.report.benchmark_table import BenchmarkTable, Block, Cell, Column
from pipeline.report.comparison_json import Comparison, ProtocolFacts, read_comparison
from pipeline.report.intervals import Spread
from pipeline.report.published import DOMAINS, published
from pipeline.report.terms import Selection, Terms
from stochca.errors import UserError

Series = list[float] | str  # one number per trial, or the reason why there are none
DOMAINS_OUT = "leave_one_domain_out"


def table_of(results: Comparison) -> BenchmarkTable:
    """The table of one comparison: a column for each target."""
    dataset = results.dataset
    return _table([results], _complete([results]), where=f" on {dataset.name} ({dataset.classes} classes)")


def merge(paths: Sequence[Path]) -> BenchmarkTable:
    """The table of one comparison.json, or of several: datasets across, a block for each backbone.

    Of transfer a column is a dataset, of sampling_ratios a dataset's share of the training images, of
    leave_one_domain_out the average over a dataset's domains.

    Raises:
        UserError: a file can't be read, the protocols differ, or two files hold the same runs.
    """
    files = [read_comparison(path) for path in paths]
    if len(files) == 1:
        return table_of(files[0])
    first, *others = ((each.protocol.name, each.protocol.refit, each.protocol.selection) for each in files)
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            told, told_other = (
                f"{name}{' with refit' if refit else ''}"
                f"{'' if selection == 'accuracy' else f' selected by {selection}'}"
                for name, refit, selection in (first, other)
            )
            raise UserError(
                f"{paths[0]} and {path} can't share a table: {told} in one, {told_other} in the other; merge "
                "those of one protocol"
            )
    files = _told_apart(paths, files)
    notes, complete = [], _complete(files)
    for each in {each.dataset.name: each for each in files}.values():
        over = f", average over {', '.join(each.protocol.targets)}" if first[0] == DOMAINS_OUT else ""
        notes.append(f"{each.dataset.name}: {each.dataset.classes} classes{over}.")
    if first[0] == DOMAINS_OUT:
        files = [_over_domains(each) for each in files]
    _refuse_twice(paths, files)
    return _table(files, complete, notes=notes)


def _over_domains(results: Comparison) -> Comparison:
    protocol = results.protocol.model_copy(update={"targets": ["average"]})
    return results.model_copy(update={"protocol": protocol})


def _complete(files: Sequence[Comparison]) -> set[str]:
    """The datasets whose averages are over as many domains as published ones."""
    return {
        each.dataset.name
        for each in files
        if each.protocol.name != DOMAINS_OUT or len(each.protocol.targets) == DOMAINS.get(each.dataset.name)
    }


def _table(
    files: Sequence[Comparison], complete: set[str], *, where: str = "", notes: Sequence[str] = ()
) -> BenchmarkTable:
    """The table of comparisons under one protocol; published numbers are of those of `complete` datasets."""
    protocol = files[0].protocol
    terms = protocol.terms
    paired = len({tuple(each.protocol.seeds) for each in files}) == 1
    columns = _columns(files)
    methods = list(dict.fromkeys(method for each in files for method in each.protocol.methods))
    backbones = list(dict.fromkeys(each.backbone.title for each in files))
    blocks = []
    for backbone, selection in product(backbones, terms.selections):
        own = [each for each in files if each.backbone.title == backbone]
        lines = {}
        for method in methods:
            series = [_series(own, column, method, selection) for column in columns]
            if not all(isinstance(values, str) for values in series):
                lines[method] = _cells(series, protocol, paired=paired)
        title = f"{backbone}, {selection.title}" if len(backbones) > 1 else selection.title
        blocks.append(
            Block(title, selection.name, backbone, lines, most_is_best=protocol.metric.higher_is_better)
        )
    found = {block.selection for block in blocks if block.lines}
    unseen = [selection.name for selection in terms.selections if selection.name not in found]
    if len(columns) > 1:
        columns = [*columns, Column("all" if len(files) > 1 else columns[0].dataset, "average", "Average")]
    repeats = [len(each.protocol.seeds) for each in files]
    quoted = complete if protocol.selection == "accuracy" else set()  # which papers print
    blocks_published, notes_published = published(protocol.name, columns, quoted, backbones)
    unit = " in percent" if protocol.metric.in_percent else ""
    return BenchmarkTable(
        caption=f"Test {protocol.metric.title}{unit}{where} with {' and '.join(backbones)}. "
        + explanation(terms, protocol.name, repeats, len(columns)),
        columns=columns,
        blocks=[*(block for block in blocks if block.lines), *blocks_published],
        error=terms.error,
        notes=[
            *notes,
            *(f"There are no numbers for the {name}: the runs did not evaluate it." for name in unseen),
            *notes_published,
        ],
    )


def _columns(files: Sequence[Comparison]) -> list[Column]:
    """All but their average; shares of several datasets stand in order, each dataset's together."""
    grouped = len(files) > 1 and files[0].protocol.name == "sampling_ratios"
    columns = []
    for dataset in dict.fromkeys(each.dataset.name for each in files):
        own = [each.protocol.targets for each in files if each.dataset.name == dataset]
        targets = list(dict.fromkeys(chain(*own)))
        for target in sorted(targets, key=float) if grouped else targets:
            title = dataset if target in ("all", "average") else files[0].protocol.terms.title_of(target)
            columns.append(Column(dataset, target, title, dataset if grouped else ""))
    return columns


def _series(files: Sequence[Comparison], column: Column, method: str, selection: Selection) -> Series:
    """The numbers of a cell by trial, or why there are none; `files` are of one backbone."""
    files = [each for each in files if each.dataset.name == column.dataset]
    files = [each for each in files if column.target in each.protocol.targets]
    where = column.dataset if column.title == column.dataset else f"{column.dataset} at {column.title}"
    if not files:
        return f"{where} was not run with this backbone"
    for each in files:
        if method in each.protocol.methods:
            values = each.tested(method, column.target, selection.metric)
            return values or f"the runs on {where} did not evaluate the {selection.name}"
    return f"not trained on {where}: its protocol.baseline and protocol.combined lack {method}"


def _cells(series: Sequence[Series], protocol: ProtocolFacts, *, paired: bool) -> list[Cell]:
    """One per series; where there are several, then their average.

    Unless the trials are `paired` over the series, the average has no error.
    """

    in_percent = protocol.metric.in_percent

    def cell(values: Sequence[float]) -> Cell:
        error = protocol.terms.error_of(Spread.of(values))
        return Cell(fmean(values), error, len(values), in_percent=in_percent)

    known = [each for each in series if not isinstance(each, str)]
    cells = [Cell(None, missing=each) if isinstance(each, str) else cell(each) for each in series]
    if len(series) == 1:
        return cells
    if len(known) < len(series):
        average = Cell(None, missing="an average needs every column")
    elif paired:
        average = cell([fmean(trial) for trial in zip(*known, strict=True)])
    else:
        average = Cell(fmean(map(fmean, known)), in_percent=in_percent)
    return [*cells, average]


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


def _told_apart(paths: Sequence[Path], files: Sequence[Comparison]) -> list[Comparison]:
    """Different datasets of one name are told apart by their files, different backbones by their weights."""
    named = []
    for path, each in zip(paths, files, strict=True):
        dataset, backbone = each.dataset, each.backbone
        if len({other.dataset.fingerprint for other in files if other.dataset.name == dataset.name}) > 1:
            dataset = dataset.model_copy(update={"name": f"{dataset.name} of {path}"})
        if len({other.backbone for other in files if other.backbone.title == backbone.title}) > 1:
            backbone = backbone.model_copy(update={"in_full": True})
        named.append(each.model_copy(update={"dataset": dataset, "backbone": backbone}))
    return named


def _refuse_twice(paths: Sequence[Path], files: Sequence[Comparison]) -> None:
    seen: dict[tuple[str, str, str, str], Path] = {}
    for path, each in zip(paths, files, strict=True):
        for target, method in product(each.protocol.targets, each.protocol.methods):
            key = (each.dataset.name, each.backbone.title, target, method)
            if key in seen:
                raise UserError(
                    f"{seen[key]} and {path} both hold {method} on {key[0]} with {key[1]}; "
                    "name only one of them"
                )
            seen[key] = path
