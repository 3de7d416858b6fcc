"""Stage `prepare`: a dataset becomes one Arrow table of small RGB images with splits, and a manifest.

python -m pipeline.prepare
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import Any

from pipeline.config.params import Dataset, Params, load_params, settings_kept
from pipeline.datasets.preparing.duplicates import (
    leave_out_repeated,
    merge_groups,
    refuse_across_splits,
    report,
)
from pipeline.datasets.preparing.ingest import Row, ingest
from pipeline.datasets.source import LEFT_OUT, USED, Problem, Source, open_source
from pipeline.images.group_splits import splitting
from pipeline.images.levels import Levels
from pipeline.images.prepared import FOLDER, MANIFEST, SPLITS, TABLE, TableRow, write_table
from pipeline.images.sizes import LONG, Sides
from pipeline.images.splits import Item
from pipeline.runtime import boundary
from pipeline.runtime.code import code_of
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, write_json
from stochca.errors import UserError

SHOWN_PROBLEMS = 10
OFF = 0.07  # of the images drawn from: how far a split may be from its share untold


def prepare(dataset: Dataset, sides: Sides, folder: Path) -> dict[str, Any]:
    """Fill `folder`, all or nothing, and return its manifest.

    Raises:
        UserError: the dataset can't be used as it is; the sentence says what to change.
    """
    source = open_source(dataset, sides)
    print(source.summary, flush=True)
    # An image's split may depend on all others, so they wait beside the table until every one is read.
    with replace_folder(folder) as temporary, TemporaryFile(dir=temporary) as store:
        rows, problems, levels = ingest(source, store, dataset.max_megapixels)
        problems = [*source.problems, *problems]
        _check_usable(rows, source, problems)
        groups = merge_groups(rows)
        splits, split_problems = assign_splits(rows, groups, source, dataset)
        store.seek(0)
        table = (
            TableRow(store.read(row.stored_bytes), row.label, row.domain, row.id, split, group)
            for row, split, group in zip(rows, splits, groups, strict=True)
        )
        write_table(temporary / TABLE, source.classes, table)
        problems = [*problems, *_gaps(rows, source), *_cut_off(rows, sides), *split_problems]
        manifest = _manifest(source, dataset, rows, groups, splits, problems, levels)
        write_json(temporary / MANIFEST, manifest)
    _log(manifest)
    return manifest


def assign_splits(
    rows: Sequence[Row], groups: Sequence[str], source: Source, dataset: Dataset
) -> tuple[list[str], list[Problem]]:
    """The split of each row, drawn where the dataset does not say, and what is odd about it.

    Of the training images, and of the validation images where they are drawn from them, the share
    `dataset.train_fraction` is used.

    Raises:
        UserError: a split or a class has no images, or an image is in two splits and that is an error.
    """
    given = {row.split for row in rows}
    shares = {"test": dataset.test, "val": dataset.validation}
    missing = {name: share for name, share in shares.items() if name not in given}
    splits = [row.split or "train" for row in rows]
    drawn_from = [index for index, split in enumerate(splits) if split == "train"]
    items = [Item(row.label, row.domain, group) for row, group in zip(rows, groups, strict=True)]
    draw, keep = splitting(source.grouped)
    drawn = draw([items[index] for index in drawn_from], missing, dataset.split_seed)
    for index, split in zip(drawn_from, drawn, strict=True):
        splits[index] = split

    problems = [
        *_large_group(rows, groups),
        *_off_shares(drawn, missing),
        *report(rows, splits, source.classes),
        *_check_splits(rows, groups, splits, source.classes),
    ]
    if dataset.duplicates == "error":
        refuse_across_splits(rows, splits)
    elif dataset.duplicates == "leave_out":
        splits, repeated = leave_out_repeated(rows, splits)
        problems.extend(repeated)

    kept = keep(items, splits, _used_in_part(rows), dataset.train_fraction, dataset.split_seed)
    splits = [split if stays else "unused" for split, stays in zip(splits, kept, strict=True)]
    _refuse_unused_classes(rows, splits, source.classes, dataset)
    return splits, problems


def _large_group(rows: Sequence[Row], groups: Sequence[str]) -> list[Problem]:
    """That of more than a third of the images, which may be none: of what is unknown, or joined by chance."""
    name, count = Counter(groups).most_common(1)[0]
    if count == 1 or 3 * count <= len(rows):
        return []
    joined = len({row.group for row, group in zip(rows, groups, strict=True) if group == name})
    of = f", of {joined} that share images" if joined > 1 else ""
    problem = f"the group has {count:,} of {len(rows):,} images{of}"
    return [{"file": name, "problem": problem, "action": "counts as one; look whether it is one"}]


def _off_shares(drawn: Sequence[str], shares: Mapping[str, float]) -> list[Problem]:
    """The splits that came out smaller or larger than params.yaml says."""
    found = {name: drawn.count(name) / max(1, len(drawn)) for name in shares}
    why = "kept; few images of a class in a domain, or large groups, come no nearer"
    return [
        {
            "file": name,
            "problem": f"the split has {found[name]:.0%} of the images it is drawn from, not {share:.0%}",
            "action": why,
        }
        for name, share in shares.items()
        if abs(found[name] - share) > OFF
    ]


def _used_in_part(rows: Sequence[Row]) -> list[str]:
    """The splits of which `dataset.train_fraction` is used."""
    return ["train"] if any(row.split == "val" for row in rows) else ["train", "val"]


def _check_usable(rows: Sequence[Row], source: Source, problems: Sequence[Problem]) -> None:
    """Every class that the dataset announced must have at least one image that could be read."""
    counts = Counter(row.label for row in rows)
    for label, name in enumerate(source.classes):
        if not counts[label]:
            left_out = (p for p in problems if p["action"] == LEFT_OUT and name in Path(p["file"]).parts)
            why = next(left_out, None)
            example = f" (for example {why['file']} {why['problem']})" if why else ""
            raise UserError(
                f"no image of the class {name} could be used{example}; repair them or remove the class"
            )


def _refuse_unused_classes(
    rows: Sequence[Row], splits: Sequence[str], classes: Sequence[str], dataset: Dataset
) -> None:
    counts = Counter((row.label, split) for row, split in zip(rows, splits, strict=True))
    for label, name in enumerate(classes):
        if counts[label, "train"]:
            continue
        if unused := counts[label, "unused"]:
            raise UserError(
                f"dataset.train_fraction {dataset.train_fraction:g} leaves no image of the class {name}, "
                f"which has {unused} to train on; take a larger share or add images"
            )
        raise UserError(
            f"dataset.duplicates: leave_out leaves no image of the class {name} to train on: the "
            f"{counts[label, 'repeated']} that there were are also tested or validated on; add images, or "
            "choose warn"
        )
    if "val" not in splits:
        raise UserError(
            f"dataset.train_fraction {dataset.train_fraction:g} leaves no image to validate on; take a "
            "larger share"
        )


def _gaps(rows: Sequence[Row], source: Source) -> list[Problem]:
    """Classes that are missing in one of several domains; allowed, but good to know."""
    there = {(row.domain, row.label) for row in rows}
    problem = "has no images in the domain {}"
    return [
        {"file": name, "problem": problem.format(domain), "action": "kept where it has some"}
        for domain in source.domains
        for label, name in enumerate(source.classes)
        if (domain, label) not in there
    ]


def _cut_off(rows: Sequence[Row], sides: Sides) -> list[Problem]:
    """That of long images only the middle is seen."""
    length = round(median(row.length for row in rows), 1)
    if sides.squashed or length <= LONG:
        return []
    problem = f"are {length} times as long as wide (the median), and the middle {1 / length:.0%} is seen"
    action = f"to see all of each, squashed to a square, set resize to image_size, {sides.image}"
    return [{"file": f"{len(rows):,} images", "problem": problem, "action": action}]


def _check_splits(
    rows: Sequence[Row], groups: Sequence[str], splits: Sequence[str], classes: Sequence[str]
) -> list[Problem]:
    counts = Counter((row.label, split) for row, split in zip(rows, splits, strict=True))
    images = Counter(row.label for row in rows)
    for label, name in enumerate(classes):
        if images[label] < len(USED):
            found = ", ".join(row.id for row in rows if row.label == label)
            raise UserError(
                f"the class {name} has fewer images ({found}) than there are splits ({', '.join(USED)}); add "
                "some or remove the class"
            )
    for split in USED:
        if split not in splits:
            together = len(set(groups))
            alone = f"{together:,} group{'s' * (together > 1)} that share no image"
            in_groups = f" in {alone}" if together < len(rows) else ""
            raise UserError(
                f"the {len(rows):,} images{in_groups} leave none for {split}; add others, or a folder "
                f"{split} with some"
            )
    problems: list[Problem] = []
    for label, name in enumerate(classes):
        if not counts[label, "train"]:
            raise UserError(f"the class {name} has no image to train on; add some or remove the class")
        absent = [split for split in ("val", "test") if not counts[label, split]]
        if absent:
            together = len({group for row, group in zip(rows, groups, strict=True) if row.label == label})
            in_groups = f" in {together} groups" if together < images[label] else ""
            nowhere = f"none of them in {' and '.join(absent)}"
            problem = f"the class has only {images[label]} images{in_groups}, {nowhere}"
            problems.append({"file": name, "problem": problem, "action": "kept"})
    return problems


def _manifest(
    source: Source,
    dataset: Dataset,
    rows: Sequence[Row],
    groups: Sequence[str],
    splits: Sequence[str],
    problems: list[Problem],
    levels: Levels | None,
) -> dict[str, Any]:
    found = Counter(
        (split, row.domain, source.classes[row.label]) for row, split in zip(rows, splits, strict=True)
    )
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for split, domain, name in product(SPLITS, source.domains, source.classes):
        if number := found[split, domain, name]:
            counts.setdefault(split, {}).setdefault(domain, {})[name] = number
    draws = {  # by which protocols draw among them, also where every image has its split
        "paired": source.paired,
        "grouped": source.grouped,
        "validation": dataset.validation,
        "split_seed": dataset.split_seed,
        "train_fraction": dataset.train_fraction,
        "train_fraction_of": _used_in_part(rows),
    }
    fingerprint = hashlib.sha256(json.dumps(draws).encode())
    for row, group, split in zip(rows, groups, splits, strict=True):
        line = [row.id, row.label, row.domain, group, split, row.stored_hash.hex()]
        fingerprint.update(json.dumps(line).encode() + b"\n")
    return {
        "dataset": dataset.name,
        "settings": dataset.which_images,
        "root": source.root,
        "layout": source.layout,
        "classes": source.classes,
        "domains": source.domains,
        "image_size": source.stored_side,
        **draws,
        "totals": {split: splits.count(split) for split in SPLITS},
        "counts": counts,
        "fingerprint": fingerprint.hexdigest(),
        **({} if levels is None else {"levels": levels}),
        "license": source.license,
        "attribution": source.attribution,
        "problems": problems,
    }


def _log(manifest: dict[str, Any]) -> None:
    totals = ", ".join(f"{count:,} {split}" for split, count in manifest["totals"].items() if count)
    print(f"prepared {totals} images of {len(manifest['classes'])} classes")
    problems = manifest["problems"]
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"  {problem['file']}: {problem['problem']}; {problem['action']}")
    if len(problems) > SHOWN_PROBLEMS:
        print(f"  ... {len(problems) - SHOWN_PROBLEMS} more; all of them are in the manifest")


def main() -> None:
    params = load_params()

    def view(settings: Params) -> Any:
        return settings.extensions, settings.dataset, settings.image_size, settings.resize

    files = (*code_of("prepare"), Path(params.dataset.root))
    with exclusive("prepare"), settings_kept(params, view, "the stage prepare", *files):
        prepare(params.dataset, Sides.of(params.image_size, params.resize), FOLDER)


if __name__ == "__main__":
    boundary.run(main)
