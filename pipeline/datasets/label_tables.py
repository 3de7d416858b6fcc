"""What a table says of one's own images: path, label, and perhaps split, domain and group.

It is a table that `dataset.labels` names, or Hugging Face's metadata.csv, which lies among the images.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.config.params import Dataset
from pipeline.datasets.alike import alike, both, forms, refuse_alike
from pipeline.datasets.label_files import Table, within
from pipeline.datasets.source import ALL, LEFT_OUT, Problem, Record, Source, select_domains
from pipeline.datasets.split_names import SPLITS, splits_among
from pipeline.datasets.table_files import INDEXES, read_table
from pipeline.images.image_files import images_below, printable
from pipeline.images.sizes import Sides
from stochca.errors import UserError

PATH, FILE_NAME = "path", "file_name"  # the column with the image: ours, and Hugging Face's
COLUMNS = (PATH, "label", "split", "domain", "group")
NEVER_EMPTY = COLUMNS[:-1]  # without a group an image is on its own
NO_VALUE = ("nan", "NaN", "NA", "N/A", "<NA>", "NULL")  # what pandas, R and databases write for nothing
# Python, JSON, MySQL and Excel too, and people: any of these may name a class, but hardly a patient.
NO_GROUP = {*map(str.lower, NO_VALUE), "none", "null", r"\n", "#n/a", "-", "?", "-1", "unknown"}


class Labelled(NamedTuple):
    """A row."""

    place: str  # table and line
    id: str  # the image's path below the root
    label: str
    split: str | None
    domain: str
    group: str | None

    @property
    def said(self) -> dict[str, str | None]:
        return {"label": self.label, "split": self.split, "domain": self.domain, "group": self.group}


def labelled_source(dataset: Dataset, sides: Sides, root: Path, tables: Sequence[Table]) -> Source:
    """The images that tables name, of the chosen domains; none is opened yet.

    Raises:
        UserError: a table can't be read or contradicts itself, an image is not there, or there are fewer than
            two classes; the sentence names the table and the line.
    """
    problems: list[Problem] = []
    rows = _without_contradictions(
        [row for table in tables for row in _rows(dataset, root, table, problems)], problems
    )
    names = ", ".join(_below(table.path, root) for table in tables)
    described = f"{names} in dataset.root {dataset.root}"
    problems += [*_not_named(root, rows, names), *_split_by_folders_alone(rows, names)]
    there = sorted({row.domain for row in rows})
    refuse_alike(described, "domains", there)
    domains = select_domains(dataset.domains, there or [ALL])
    rows = [row for row in rows if row.domain in domains]
    classes = sorted({row.label for row in rows})
    refuse_alike(described, "classes", classes)
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no image"
        raise UserError(f"{described} names {found}; images of two classes or more are needed")
    domains_of: dict[str, set[str]] = {}
    for row in rows:
        if row.group is not None:
            domains_of.setdefault(row.group, set()).add(row.domain)
    for one, other in alike(domains_of):
        problem = f"has the groups {both(one, other)}, which look alike"
        problems.append({"file": names, "problem": problem, "action": "taken for two"})
    return Source(
        layout="table",
        summary=_summary(described, rows, classes, len(domains_of)),
        classes=classes,
        domains=domains,
        records=partial(_records, root, rows),
        count=len(rows),
        stored_side=sides.stored,
        root=dataset.root,
        problems=problems,
        paired=any(len(found) > 1 for found in domains_of.values()),
        grouped=bool(domains_of),
    )


def _records(root: Path, rows: Sequence[Labelled]) -> Iterator[Record]:
    for row in rows:
        yield Record(
            id=printable(row.id),
            class_name=row.label,
            read=(root / row.id).read_bytes,
            split=row.split,
            domain=row.domain,
            group=row.group,
        )


def _rows(dataset: Dataset, root: Path, table: Table, problems: list[Problem]) -> Iterator[Labelled]:
    file = f"{dataset.root}/{_below(table.path, root)}"
    columns, rows = read_table(table.path, file)
    named = _named_columns(dataset, file, columns)
    unused = [name for name in columns if name not in (*named.values(), *INDEXES)]
    if unused:
        problem = f"has columns that mean nothing here: {', '.join(unused)}"
        problems.append({"file": _below(table.path, root), "problem": problem, "action": "not used"})
    places = {name: columns.index(column) for name, column in named.items()}
    names: dict[str, str] = {}  # of splits, as they are written
    missing: list[str] = []
    on_their_own: list[str] = []
    for line, values in rows:
        place = f"{file}, {line}"
        said = {name: values[index] for name, index in places.items()}
        for name in NEVER_EMPTY:
            if said.get(name) == "":
                raise UserError(f"{place}: the column {named[name]} is empty; fill it in or take the row out")
            if (value := said.get(name)) in NO_VALUE:
                raise UserError(
                    f"{place}: the column {named[name]} says {value}, which stands for no value; fill it in "
                    "or take the row out, or if it is a name, write another, such as its full form"
                )
        if (group := said.get("group", "")).lower() in NO_GROUP:
            on_their_own.append(f"{line}, {group}")
            group = ""
        split = said.get("split")
        if split is not None and split.lower() not in SPLITS:
            raise UserError(f"{place}: the split must be train, val or test, found {split!r}")
        if split is not None and split not in names:
            names[split] = SPLITS[split.lower()]
            first = next(name for name, its_split in names.items() if its_split == names[split])
            if first != split:
                problem = f"names the split {split!r}, which is also called {first!r}"
                problems.append(
                    {"file": _below(table.path, root), "problem": problem, "action": "taken for one"}
                )
        path = _find(place, said[PATH], table, root)
        if path is None:
            missing.append(f"{place}: the image {said[PATH]}")
        elif not path.is_relative_to(root):
            raise UserError(
                f"{place}: the image {said[PATH]} lies outside of dataset.root {dataset.root}; put it there, "
                "where its changes are seen"
            )
        else:
            yield Labelled(
                place=place,
                id=_below(path, root),
                label=said["label"],
                split=SPLITS[split.lower()] if split else table.split,
                domain=said.get("domain", ALL),
                group=group or None,
            )
    if on_their_own:
        column, rows_said = named["group"], f"{len(on_their_own):,} rows, first in {on_their_own[0]}"
        problem = f"says no value in the column {column} in {rows_said}"
        action = "each such image is on its own"
        problems.append({"file": _below(table.path, root), "problem": problem, "action": action})
    if missing:
        others = f", and {len(missing) - 1:,} more are not there either" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]} is neither beside the table nor in dataset.root{others}; put it there or take the "
            "row out"
        )


def _named_columns(dataset: Dataset, file: str, columns: Sequence[str]) -> dict[str, str]:
    """What the table calls each of COLUMNS that it has.

    Of a table of ours every column has to be known, since of one that is misspelt nothing would be seen; in
    Hugging Face's there may be any.
    """
    listed = ", ".join(name for name in columns if name not in INDEXES) or "none"
    path = next((name for name in (PATH, FILE_NAME) if name in columns), None)
    if path is None:
        raise UserError(
            f"{file} has no column {PATH} or {FILE_NAME}, which names the image; its columns are {listed}"
        )
    label, group = dataset.label_column or "label", dataset.group_column or "group"
    if label not in columns:
        raise UserError(
            f"{file} has no column {label}, which says the class; its columns are {listed}: name one of "
            "them in dataset.label_column (stochca new: --label-column)"
        )
    if dataset.group_column is not None and group not in columns:
        raise UserError(
            f"{file} has no column {group}, which dataset.group_column names; its columns are {listed}"
        )
    if path == PATH:
        _refuse_unknown(file, columns, {*COLUMNS, label, group})
    named = {PATH: path, "label": label, "split": "split", "domain": "domain", "group": group}
    return {name: column for name, column in named.items() if column in columns}


def _refuse_unknown(file: str, columns: Sequence[str], known: set[str]) -> None:
    for name in columns:
        if name not in known and name not in INDEXES:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(
                f"{file} has the unknown column {name!r}; {hint}known are {', '.join(COLUMNS)} and what "
                f"dataset.label_column and dataset.group_column name (stochca new: --label-column, "
                f"--group-column), any others only beside {FILE_NAME} in place of {PATH}"
            )


def _find(place: str, name: str, table: Table, root: Path) -> Path | None:
    """The image, its path told from the table or the root; in Hugging Face's splits, from the table first.

    Raises:
        UserError: it may be either of two.
    """
    found: dict[Path, None] = {}
    for base in (table.path.parent, root):
        for form in forms(name):
            # A name too long or with a zero byte, links in a circle.
            with suppress(OSError, ValueError, RuntimeError):
                if (path := within(base / form, root)) is not None:
                    found[path] = None
                    break
    if len(found) > 1 and table.split is None:
        one, other = (_below(path, root) if path.is_relative_to(root) else path for path in found)
        raise UserError(
            f"{place}: the image {name} may be {one}, beside the table, or {other}; put the table into "
            "dataset.root, and give paths from there"
        )
    return next(iter(found), None)


def _without_contradictions(rows: Sequence[Labelled], problems: list[Problem]) -> list[Labelled]:
    """Each image once, and each group in one split."""
    images: dict[str, Labelled] = {}
    groups: dict[str, Labelled] = {}
    for row in rows:
        first = images.setdefault(row.id, row)
        if first is not row:
            for key, said, before in _differences(row.said, first.said):
                raise UserError(
                    f"{row.place}: {row.id} has the {key} {said}, but in {first.place} {before}; keep one of "
                    "the two"
                )
            problems.append(
                {"file": row.id, "problem": f"is named again in {row.place}", "action": "used once"}
            )
            continue
        if row.group is not None and (other := groups.setdefault(row.group, row)).split != row.split:
            raise UserError(
                f"{row.place}: the group {row.group} is in {row.split}, but in {other.place} in "
                f"{other.split}; put all of it into one split"
            )
    return list(images.values())


def _differences(
    said: Mapping[str, str | None], before: Mapping[str, str | None]
) -> Iterator[tuple[str, str | None, str | None]]:
    return ((key, value, before[key]) for key, value in said.items() if value != before[key])


def _not_named(root: Path, rows: Sequence[Labelled], tables: str) -> list[Problem]:
    named = {row.id for row in rows}
    others = [path for path in images_below(root) if _below(path, root) not in named]
    if not others:
        return []
    what = f"{len(others):,} images, of which the first is {printable(_below(others[0], root))}"
    return [{"file": tables, "problem": f"does not name {what}", "action": LEFT_OUT}]


def _split_by_folders_alone(rows: Sequence[Labelled], tables: str) -> list[Problem]:
    """That folders of a train and a test split are mixed, where the table has no column for it."""
    folders = {part for row in rows if row.split is None for part in PurePosixPath(row.id).parts[:-1]}
    splits = {name: split for name, split in splits_among(sorted(folders)).items() if split}
    if len(set(splits.values())) < 2:
        return []
    problem = f"has no column split, and names images in {', '.join(map(printable, splits))}"
    return [{"file": tables, "problem": problem, "action": "splits are drawn from all of them"}]


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _summary(described: str, rows: Sequence[Labelled], classes: Sequence[str], groups: int) -> str:
    splits = sorted({row.split for row in rows if row.split})
    parts = [
        f"{len(classes)} classes ({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''})",
        f"{len(rows):,} images",
        *([f"{groups:,} groups"] if groups else []),
        *([f"the splits {', '.join(splits)}"] if splits else []),
    ]
    return f"{described}: {', '.join(parts)}"
