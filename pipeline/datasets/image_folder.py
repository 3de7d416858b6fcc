"""Your own images: root/CLASS/*, with splits or domains above or splits below, or with a table of labels.

Which of them it is, is recognised by what is there. Where names and places contradict each other, nothing is
guessed.
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from pipeline.config.datasets import register
from pipeline.config.params import Dataset
from pipeline.datasets.alike import refuse_alike
from pipeline.datasets.label_files import find_tables
from pipeline.datasets.label_tables import labelled_source
from pipeline.datasets.links import leads_out
from pipeline.datasets.masks import refuse_masks
from pipeline.datasets.source import (
    LEFT_OUT,
    ClassFolder,
    Problem,
    Source,
    folder_records,
    select_domains,
    shown,
)
from pipeline.datasets.split_names import (
    CLASSES_TOO,
    names_contents,
    refuse_overlaps,
    split_named,
    splits_among,
    without_partner,
)
from pipeline.datasets.table_files import FORMATS
from pipeline.datasets.versions import refuse_versions, versions_within
from pipeline.images.image_files import named_like_an_image, printable
from pipeline.images.sizes import Sides
from stochca.errors import UserError

LAYOUTS = (
    "expected are root/CLASS/*.jpg, root/SPLIT/CLASS/*.jpg, root/CLASS/SPLIT/*.jpg or "
    "root/DOMAIN/CLASS/*.jpg, or a table that dataset.labels names (stochca new: --labels)"
)
NOT_FOLLOWED = "not followed"  # the action for a link that leads out
MANY = 20  # domains, which may rather be patients
PATIENTS = "each is in all splits; if they are patients or the like, name them as groups in a table"
SHAPES = {"class": "CLASS", "split": "SPLIT/CLASS", "class split": "CLASS/SPLIT", "domain": "DOMAIN/CLASS"}

register("image_folder", __name__, sources=(), takes=("labels", "label_column", "group_column"))


def load(dataset: Dataset, sides: Sides) -> Source:
    """Recognise the layout of `dataset.root` and list its images; none is opened yet.

    Raises:
        UserError: the root is missing, unreadable or empty, its layout is ambiguous, it holds fewer than
            two classes or two names that look alike, a class folder holds no image, or a wanted domain is
            not there; or masks lie among the images; or a table is wrong.
    """
    scan = Scan(Path(dataset.root))
    if tables := find_tables(dataset, scan.root):
        return labelled_source(dataset, sides, scan.root, tables)
    layout, folders = _recognise(scan)
    there = sorted({folder.domain for folder in folders})
    refuse_alike(scan.described, "domains", there)
    domains = select_domains(dataset.domains, there)
    folders = [folder for folder in folders if folder.domain in domains]
    refuse_masks(scan.described, folders)
    refuse_versions(scan.described, folders)
    versions, notes = versions_within(folders)
    if len(domains) > MANY:
        problem = f"has {len(domains)} folders that are taken for domains"
        scan.problems.append({"file": "dataset.root", "problem": problem, "action": PATIENTS})
    classes = sorted({folder.class_name for folder in folders})
    refuse_alike(scan.described, "classes", classes)
    if len(classes) < 2:
        raise UserError(
            f"{scan.described} holds only the class {classes[0]}; at least two are needed, {LAYOUTS}"
        )
    count = sum(len(folder.names) for folder in folders)
    return Source(
        layout=layout,
        summary=_summary(scan, layout, folders, classes, count),
        classes=classes,
        domains=domains,
        records=partial(folder_records, folders, versions),
        count=count,
        stored_side=sides.stored,
        root=dataset.root,
        problems=[*notes, *scan.problems],
        grouped=bool(versions),
    )


class Scan:
    """Looks into folders under a root, and notes what it skips, such as links that lead out of it."""

    def __init__(self, root: Path) -> None:
        self.described = f"dataset.root {root}"
        self.root = root.expanduser().resolve()
        if not self.root.exists():
            raise UserError(f"{self.described} does not exist; put the images there or change it, {LAYOUTS}")
        if not self.root.is_dir():
            raise UserError(f"{self.described} is a file, not a folder; {LAYOUTS}")
        self.problems: list[Problem] = []

    @property
    def expected(self) -> str:
        """For the end of a sentence: what may be in the root, and the tables that are."""
        tables = [entry.name for entry in shown(self.root) if Path(entry.name).suffix.lower() in FORMATS]
        there = f"; there is {', '.join(map(printable, tables[:3]))}" if tables else ""
        return LAYOUTS + there

    def look(self, folder: Path) -> tuple[list[str], list[Path]]:
        """The images' names and the folders directly in `folder`, in order; hidden ones are ignored."""
        images: list[str] = []
        folders: list[Path] = []
        for entry in shown(folder):  # which says without a further question what each is
            path = folder / entry.name
            if entry.is_symlink() and not path.exists():
                self.note(path, "is a link to nothing", LEFT_OUT)
            elif entry.is_symlink() and leads_out(path, self.root):
                self.note(path, "is a link that leads out of dataset.root", NOT_FOLLOWED)
            elif entry.is_dir():
                folders.append(path)
            elif entry.is_file() and named_like_an_image(entry.name):
                images.append(entry.name)
            else:
                self.note(path, "has no file name extension of an image", LEFT_OUT)
        return images, folders

    def name(self, path: Path) -> str:
        """The path below the root, as text that can be stored whatever bytes the file name holds."""
        return printable(path.relative_to(self.root).as_posix())

    def note(self, path: Path, problem: str, action: str) -> None:
        self.problems.append({"file": self.name(path), "problem": problem, "action": action})


def _holds_images(folder: Path) -> bool:
    """Whether there is an image anywhere below `folder`."""
    return any(named_like_an_image(name) for _, _, names in os.walk(folder) for name in names)


def _recognise(scan: Scan) -> tuple[str, list[ClassFolder]]:
    """Name the layout, one of SHAPES, and find its class folders."""
    loose, tops = scan.look(scan.root)
    for name in loose:
        scan.note(scan.root / name, "lies in no class folder", LEFT_OUT)
    if not tops:
        found = "images but no class folders" if loose else "no class folders"
        if any(problem["action"] == NOT_FOLLOWED for problem in scan.problems):
            found += " (links that lead out of it are not followed)"
        raise UserError(f"{scan.described} holds {found}; {scan.expected}")

    inside = {top: scan.look(top) for top in tops}
    shallow = [top for top, (images, _) in inside.items() if images]
    filled = {top: [path for path in below if _holds_images(path)] for top, (_, below) in inside.items()}
    deep = [top for top, below in filled.items() if below]
    named = splits_among(top.name for top in tops)
    splits = {top: split for top in tops if (split := named[top.name])}
    if shallow and deep:
        raise UserError(
            f"{scan.described} is ambiguous: {scan.name(shallow[0])} holds images and {scan.name(deep[0])} "
            f"holds folders of images; {scan.expected}"
        )
    if not deep:
        if shallow and len(splits) == len(tops):
            raise UserError(
                f"{scan.described}: the folder {scan.name(shallow[0])} is named like a split but holds "
                f"images instead of class folders; {scan.expected}"
            )
        folders = [_class_folder(scan, top, images, below) for top, (images, below) in inside.items()]
        return "class", _classes(scan, folders)
    if splits and len(splits) < len(tops):
        other = next(top for top in tops if top not in splits)
        raise _half_named(scan, next(iter(splits)).name, other.name)
    refuse_overlaps(named)
    if not splits and all(split_named(path.name) for below in filled.values() for path in below):
        below = {top: found for top, (_, found) in inside.items()}
        return "class split", _splits_of_classes(scan, below, filled)
    if not splits:
        if half := without_partner([top.name for top in tops]):
            raise _half_named(scan, *half)
        _check_domains_alike(
            scan, {top: {folder.name for folder in below} for top, (_, below) in inside.items()}
        )
    folders = []
    for top, (_, class_folders) in inside.items():
        for path in class_folders:
            folder = _class_folder(scan, path, *scan.look(path))
            if splits:
                folders.append(folder._replace(split=splits[top]))
            else:
                folders.append(folder._replace(domain=scan.name(top)))
    folders = _classes(scan, folders)
    if splits:
        _check_splits(scan, splits, folders)
    return ("split" if splits else "domain"), folders


def _half_named(scan: Scan, split: str, other: str) -> UserError:
    return UserError(
        f"{scan.described} is ambiguous: {printable(split)} is named like a split, {printable(other)} is "
        f"not; if both are domains, rename one; {scan.expected}"
    )


def _check_splits(scan: Scan, splits: Mapping[Path, str], folders: Sequence[ClassFolder]) -> None:
    """Each has images, or else they would be drawn from those to train on; two names of one are told."""
    if not any(folder.split == "train" for folder in folders):
        raise UserError(f"{scan.described} has folders for splits, but no images to train on in root/train")
    filled = {folder.split for folder in folders}
    for path, split in splits.items():
        if split not in filled:
            raise UserError(
                f"{scan.described}: the folder {scan.name(path)} is named like a split and holds no image; "
                "add some, or remove it, and its images are drawn from those to train on"
            )
    names: dict[str, str] = {}
    for path, split in splits.items():
        if (first := names.setdefault(split, path.name)) != path.name:
            scan.note(path, f"is the split {split}, and so is {printable(first)}", "taken for one")


def _splits_of_classes(
    scan: Scan, below: Mapping[Path, Sequence[Path]], filled: Mapping[Path, Sequence[Path]]
) -> list[ClassFolder]:
    """Of root/CLASS/SPLIT/*, which images/train beside labels/train is not.

    Args:
        below: the folders in each class.
        filled: those of them that hold images.
    """
    seen = [path for paths in filled.values() for path in paths]
    if len(filled) < 2 or not all(filled.values()) or all(names_contents(top.name) for top in filled):
        named = " and ".join(scan.name(path) for path in seen[:2])
        raise UserError(
            f"{scan.described} holds {named}, named like splits, where classes should be; {scan.expected}"
        )
    folders = []
    for top, paths in filled.items():
        for path in paths:
            folder = _class_folder(scan, path, *scan.look(path))
            name = Path(scan.name(top)).name
            folders.append(folder._replace(class_name=name, split=split_named(path.name)))
    every = [path for paths in below.values() for path in paths]
    refuse_overlaps({path.name: split_named(path.name) for path in every})
    _check_splits(scan, {path: split for path in every if (split := split_named(path.name))}, folders)
    for path in (path for path in every if path not in seen):
        scan.note(path, "is a folder without images in a class folder", LEFT_OUT)
    return folders


def _check_domains_alike(scan: Scan, classes: dict[Path, set[str]]) -> None:
    """Domains hold the same classes, or most of them; classes with folders inside do not.

    Nor are images and their masks domains.
    """
    if len(classes) > 1 and all(names_contents(top.name) for top in classes):
        named = " and ".join(scan.name(top) for top in list(classes)[:2])
        raise UserError(
            f"{scan.described} holds {named}, whose names say no domain; give the folder of the images "
            "to train on"
        )
    every = set().union(*classes.values())
    for top, names in classes.items():
        if 2 * len(names) <= len(every):
            raise UserError(
                f"{scan.described} is ambiguous: {scan.name(top)} holds the folders "
                f"{', '.join(sorted(names)[:3]) or 'none'}, which are not most of the {len(every)} that are "
                f"found in {', '.join(scan.name(path) for path in list(classes)[:3])}; {scan.expected}"
            )


def _class_folder(scan: Scan, path: Path, images: list[str], below: list[Path]) -> ClassFolder:
    for folder in below:
        if _holds_images(folder):
            raise UserError(
                f"{scan.described} is ambiguous: the class folder {scan.name(path)} holds the folder "
                f"{folder.name} with more images; {scan.expected}"
            )
        scan.note(folder, "is a folder without images in a class folder", LEFT_OUT)
    return ClassFolder(Path(scan.name(path)).name, path, scan.name(path), images)


def _classes(scan: Scan, folders: Sequence[ClassFolder]) -> list[ClassFolder]:
    """As `_with_images`; what is named like a split among them is no class, unless its name may be one."""
    folders = _with_images(scan, folders)
    if all(names_contents(folder.class_name) for folder in folders):
        places = " and ".join(folder.place for folder in folders[:2])
        raise UserError(f"{scan.described} holds {places}, whose names say no class; {scan.expected}")
    splits = splits_among(sorted({folder.class_name for folder in folders}))
    named = [name for name, split in splits.items() if split]
    for folder in (folder for folder in folders if folder.class_name in named):
        if len(named) > 1 or folder.class_name.lower() not in CLASSES_TOO:
            raise UserError(
                f"{scan.described}: the folder {folder.place} is named like a split but stands where classes "
                f"are; if it is a class, rename it, else take it away: {scan.expected}"
            )
        scan.note(folder.path, "is named like a split, but stands where classes are", "taken for a class")
    return folders


def _with_images(scan: Scan, folders: Sequence[ClassFolder]) -> list[ClassFolder]:
    """The folders that hold images; a class that is empty everywhere is an error."""
    filled = [folder for folder in folders if folder.names]
    empty = sorted({folder.class_name for folder in folders} - {folder.class_name for folder in filled})
    if empty:
        places = [f"{folder.place}/" for folder in folders if folder.class_name == empty[0]]
        skipped = (p for p in scan.problems if p["file"].startswith(tuple(places)) and "link" in p["problem"])
        why = next((f" (for example {p['file']} {p['problem']})" for p in skipped), "")
        raise UserError(
            f"{scan.described}: the class folder {empty[0]} holds no image{why}; add some or remove the "
            "folder"
        )
    return filled


def _summary(
    scan: Scan, layout: str, folders: Sequence[ClassFolder], classes: Sequence[str], count: int
) -> str:
    parts = sorted({folder.split or folder.domain for folder in folders})
    kind = "domains" if layout == "domain" else "splits"
    within = "" if layout == "class" else f" in the {kind} {', '.join(parts)}"
    return (
        f"{scan.described}: recognised root/{SHAPES[layout]}/*: {len(classes)} classes "
        f"({', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}), {count:,} images{within}"
    )
