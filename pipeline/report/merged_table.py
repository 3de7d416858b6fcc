"""One table over several datasets, from the comparison.json of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pipeline.report.comparison_file import BackboneFacts, ComparisonFile, read_comparison
from pipeline.report.paper_table import (
    Block,
    Column,
    PaperTable,
    Series,
    explanation,
    make_line,
    no_block,
    paper_table,
    published_blocks,
    published_notes,
)
from pipeline.report.published import DOMAINS
from pipeline.report.terms import Selection
from stochca.errors import UserError


@dataclass(frozen=True)
class Named:
    """A comparison under the title of its column and of its backbone."""

    path: Path
    results: ComparisonFile
    dataset: str
    backbone: str


def merge(paths: Sequence[Path]) -> PaperTable:
    """The table of one comparison, or of several: datasets across, a block for each backbone.

    Of transfer a column is a dataset, of sampling_ratios a dataset's share of the training images, of
    leave_one_domain_out the average over a dataset's domains.

    Raises:
        UserError: a file can't be read, the protocols differ, or two files hold the same runs.
    """
    files = [read_comparison(path) for path in paths]
    if len(files) == 1:
        return paper_table(files[0])
    first = files[0].protocol
    for path, results in zip(paths, files, strict=True):
        if results.protocol.name != first.name or results.protocol.refit != first.refit:
            raise UserError(
                f"{paths[0]} and {path} can't share a table: {_told(first.name, first.refit)} in one, "
                f"{_told(results.protocol.name, results.protocol.refit)} in the other; merge those of one "
                "protocol"
            )
    named = _with_names(paths, files)
    _refuse_twice(named)
    return _table(named)


def _table(named: Sequence[Named]) -> PaperTable:
    protocol = named[0].results.protocol
    columns = _columns(named)
    paired = len({tuple(each.results.protocol.seeds) for each in named}) == 1
    methods = list(dict.fromkeys(method for each in named for method in each.results.protocol.methods))
    backbones = list(dict.fromkeys(each.backbone for each in named))
    blocks = []
    for backbone in backbones:
        own = [each for each in named if each.backbone == backbone]
        for selection in protocol.terms.selections:
            title = f"{backbone}, {selection.title}" if len(backbones) > 1 else selection.title
            lines = {
                method: [_series(own, column, method, selection) for column in columns] for method in methods
            }
            blocks.append(
                Block(
                    title,
                    selection.name,
                    backbone,
                    [
                        make_line(method, series, protocol.terms, paired=paired)
                        for method, series in lines.items()
                        if not all(isinstance(each, str) for each in series)
                    ],
                )
            )
    notes = [_about(each) for each in {each.dataset: each for each in named}.values()]
    complete = {
        each.dataset
        for each in named
        if protocol.name != "leave_one_domain_out"
        or len(each.results.protocol.targets) == DOMAINS.get(each.dataset)
    }
    found = {block.selection for block in blocks if block.lines}
    notes += [no_block(selection) for selection in protocol.terms.selections if selection.name not in found]
    blocks = [block for block in blocks if block.lines]
    if len(columns) > 1:
        columns.append(Column("all", "average", "Average"))
    blocks += published_blocks(protocol.name, columns, complete)
    notes += published_notes(protocol.name, complete, backbones)
    repeats = [len(each.results.protocol.seeds) for each in named]
    caption = f"Test accuracy in percent with {' and '.join(backbones)}. " + explanation(
        protocol.terms, protocol.name, repeats, len(columns)
    )
    return PaperTable(caption, columns, blocks, protocol.terms.error, notes)


def _columns(named: Sequence[Named]) -> list[Column]:
    name, terms = named[0].results.protocol.name, named[0].results.protocol.terms
    columns: list[Column] = []
    for dataset in dict.fromkeys(each.dataset for each in named):
        if name == "leave_one_domain_out":
            columns.append(Column(dataset, "average", dataset))
        else:
            own = [each.results.protocol.targets for each in named if each.dataset == dataset]
            targets = dict.fromkeys(target for each in own for target in each)
            if name == "sampling_ratios":
                columns += [
                    Column(dataset, target, terms.title_of(target), dataset)
                    for target in sorted(targets, key=float)
                ]
            else:
                columns.append(Column(dataset, "all", dataset))
    return columns


def _series(named: Sequence[Named], column: Column, method: str, selection: Selection) -> Series:
    """The accuracies of a cell by trial, or why there are none."""
    files = [each.results for each in named if each.dataset == column.dataset]
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
            return f"the runs on {column.dataset} did not look at the {selection.name}"
        return [fmean(trial) for trial in zip(*known, strict=True)]
    return f"{column.dataset} was not run at {files[0].protocol.terms.title_of(column.target)}"


def _with_names(paths: Sequence[Path], files: Sequence[ComparisonFile]) -> list[Named]:
    """Different datasets of one name are told apart by their files, different backbones by their weights."""
    named = []
    for path, results in zip(paths, files, strict=True):
        dataset = results.dataset.name
        prints = {each.dataset.fingerprint for each in files if each.dataset.name == dataset}
        if len(prints) > 1:
            dataset = f"{dataset} of {path}"
        title = results.backbone.title
        alike: set[BackboneFacts] = {each.backbone for each in files if each.backbone.title == title}
        if len(alike) > 1:
            title = results.backbone.full_title
        named.append(Named(path, results, dataset, title))
    return named


def _refuse_twice(named: Sequence[Named]) -> None:
    seen: dict[tuple[str, str, str, str], Path] = {}
    for each in named:
        averaged = each.results.protocol.name == "leave_one_domain_out"  # one column for all targets
        for method, target in {(run.method, "" if averaged else run.target) for run in each.results.runs}:
            key = (each.dataset, each.backbone, method, target)
            if key in seen:
                raise UserError(
                    f"{seen[key]} and {each.path} both hold {method} on {each.dataset} with {each.backbone}; "
                    "name only one of them"
                )
            seen[key] = each.path


def _about(named: Named) -> str:
    """A dataset's size, and the domains that its average is taken over."""
    protocol, classes = named.results.protocol, named.results.dataset.classes
    over = f", average over {', '.join(protocol.targets)}" if protocol.name == "leave_one_domain_out" else ""
    return f"{named.dataset}: {classes} classes{over}."


def _told(protocol: str, refit: bool) -> str:
    return f"{protocol} with refit" if refit else protocol
