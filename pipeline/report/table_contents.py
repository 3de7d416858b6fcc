"""What stands in the benchmark table: the numbers of one comparison or of several, published ones below."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pipeline.report.benchmark_table import BenchmarkTable, Block, Cell, Column
from pipeline.report.comparison_json import Comparison, read_comparison
from pipeline.report.intervals import Spread
from pipeline.report.published import DOMAINS, published
from pipeline.report.terms import Selection, Terms
from stochca.errors import UserError

Series = list[float] | str  # one number per trial, or the reason why there are none


def table_of(results: Comparison) -> BenchmarkTable:
    """The table of one comparison: a column for each target."""
    dataset, protocol = results.dataset, results.protocol
    columns = [
        Column(dataset.name, target, dataset.name if target == "all" else protocol.terms.title_of(target))
        for target in protocol.targets
    ]
    return _table([results], columns, where=f" on {dataset.name} ({dataset.classes} classes)")


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
    first, *others = ((each.protocol.name, each.protocol.refit) for each in files)
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            told, told_other = (f"{name} with refit" if refit else name for name, refit in (first, other))
            raise UserError(
                f"{paths[0]} and {path} can't share a table: {told} in one, {told_other} in the other; merge "
                "those of one protocol"
            )
    files = _told_apart(paths, files)
    _refuse_twice(paths, files)
    notes = []
    for each in {each.dataset.name: each for each in files}.values():
        domains = first[0] == "leave_one_domain_out"
        over = f", average over {', '.join(each.protocol.targets)}" if domains else ""
        notes.append(f"{each.dataset.name}: {each.dataset.classes} classes{over}.")
    return _table(files, _columns(files), notes=notes)


def _table(
    files: Sequence[Comparison], columns: list[Column], *, where: str = "", notes: Sequence[str] = ()
) -> BenchmarkTable:
    """The table of comparisons under one protocol; `columns` are without their average."""
    protocol = files[0].protocol
    terms = protocol.terms
    paired = len({tuple(each.protocol.seeds) for each in files}) == 1
    methods = list(dict.fromkeys(method for each in files for method in each.protocol.methods))
    backbones = list(dict.fromkeys(each.backbone.title for each in files))
    blocks = []
    for backbone in backbones:
        own = [each for each in files if each.backbone.title == backbone]
        for selection in terms.selections:
            lines = {}
            for method in methods:
                series = [_series(own, column, method, selection) for column in columns]
                if not all(isinstance(values, str) for values in series):
                    lines[method] = _cells(series, terms, paired=paired)
            title = f"{backbone}, {selection.title}" if len(backbones) > 1 else selection.title
            blocks.append(Block(title, selection.name, backbone, lines))
    found = {block.selection for block in blocks if block.lines}
    unseen = [selection.name for selection in terms.selections if selection.name not in found]
    complete = {
        each.dataset.name
        for each in files
        if protocol.name != "leave_one_domain_out"
        or len(each.protocol.targets) == DOMAINS.get(each.dataset.name)
    }
    if len(columns) > 1:
        columns = [*columns, Column("all" if len(files) > 1 else columns[0].dataset, "average", "Average")]
    repeats = [len(each.protocol.seeds) for each in files]
    blocks_published, notes_published = published(protocol.name, columns, complete, backbones)
    return BenchmarkTable(
        caption=f"Test accuracy in percent{where} with {' and '.join(backbones)}. "
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
    """Of several datasets; see `merge`."""
    name, terms = files[0].protocol.name, files[0].protocol.terms
    datasets = dict.fromkeys(each.dataset.name for each in files)
    if name != "sampling_ratios":
        target = "average" if name == "leave_one_domain_out" else "all"
        return [Column(dataset, target, dataset) for dataset in datasets]
    columns = []
    for dataset in datasets:
        targets = {
            target for each in files if each.dataset.name == dataset for target in each.protocol.targets
        }
        columns += [
            Column(dataset, target, terms.title_of(target), dataset) for target in sorted(targets, key=float)
        ]
    return columns


def _series(files: Sequence[Comparison], column: Column, method: str, selection: Selection) -> Series:
    """The accuracies of a cell by trial, or why there are none."""
    files = [each for each in files if each.dataset.name == column.dataset]
    if not files:
        return f"{column.dataset} was not run with this backbone"
    with_method = [each for each in files if method in each.protocol.methods]
    if not with_method:
        return f"not trained on {column.dataset}: its protocol.baseline and protocol.combined lack {method}"
    for results in with_method:
        targets = results.protocol.targets if column.target == "average" else [column.target]
        if set(targets) - set(results.protocol.targets):
            continue
        found = [results.accuracies(method, target, selection.metric) for target in targets]
        known = [values for values in found if values is not None]
        if len(known) < len(found):
            return f"the runs on {column.dataset} did not evaluate the {selection.name}"
        return [fmean(trial) for trial in zip(*known, strict=True)]
    return f"{column.dataset} was not run at {files[0].protocol.terms.title_of(column.target)}"


def _cells(series: Sequence[Series], terms: Terms, *, paired: bool) -> list[Cell]:
    """One per series; where there are several, then their average.

    Unless the trials are `paired` over the series, the average has no error.
    """

    def cell(values: Sequence[float]) -> Cell:
        return Cell(fmean(values), terms.error_of(Spread.of(values)), len(values))

    known = [each for each in series if not isinstance(each, str)]
    cells = [Cell(None, missing=each) if isinstance(each, str) else cell(each) for each in series]
    if len(series) == 1:
        return cells
    if len(known) < len(series):
        average = Cell(None, missing="an average needs every column")
    elif paired:
        average = cell([fmean(trial) for trial in zip(*known, strict=True)])
    else:
        average = Cell(fmean(map(fmean, known)))
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
        averaged = each.protocol.name == "leave_one_domain_out"  # one column for all targets
        cells = [(run.method, "" if averaged else run.target) for run in each.runs]
        for method, target in dict.fromkeys(cells):
            key = (each.dataset.name, each.backbone.title, method, target)
            if key in seen:
                raise UserError(
                    f"{seen[key]} and {path} both hold {method} on {key[0]} with {key[1]}; "
                    "name only one of them"
                )
            seen[key] = path
