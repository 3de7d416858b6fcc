"""Which images a run trains on, is chosen by, and is tested on, by protocol."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.images.group_splits import splitting
from pipeline.images.prepared import Prepared, PreparedImages
from pipeline.images.splits import Item
from stochca.config.selection import Selection
from stochca.errors import UserError
from stochca.evaluation import check_every_class

HELD_OUT = 0.2  # of every source domain, as in DomainBed (Gulrajani and Lopez-Paz, ICLR 2021)


@dataclass(frozen=True)
class RunImages:
    """The images of one run."""

    train: PreparedImages
    validation: PreparedImages
    test: PreparedImages
    domains: Sequence[str] | None = None  # of each training image, where all domains count the same
    notes: list[str] = field(default_factory=list)  # what a person should know about them

    def check(self, classes: Sequence[str], selection: Selection) -> None:
        """Raise `UserError` where the metric that selects can't be measured on them."""
        if selection == "auroc":
            check_every_class(self.validation.labels, classes, "validation images")
            check_every_class(self.test.labels, classes, "test images")

    def balanced_domains(self, refit: bool) -> list[str] | None:
        """The domain of each image that is trained on, those of validation included if `refit`."""
        if self.domains is None:
            return None
        return [*self.domains, *(self.validation.domains if refit else ())]


def images_for(prepared: Prepared, protocol: str, target: str, trial: int) -> RunImages:
    """The images of the run `trial` of a protocol for one of its targets.

    Of the protocol transfer they are of all domains, by the splits as they were prepared.

    Raises:
        UserError: the prepared images have no such target, or leave a class without training images, or
            nothing to validate or to test on.
    """
    if protocol == "leave_one_domain_out":
        return _leave_one_domain_out(prepared, target, trial)
    if protocol == "sampling_ratios":
        return _sampling_ratios(prepared, target)
    return RunImages(prepared.images("train"), prepared.images("val"), prepared.images("test"))


def images_of_trials(
    prepared: Prepared, protocol: str, target: str, trials: Sequence[int]
) -> dict[int, RunImages]:
    """`images_for` of several trials; the same object where a protocol does not split by the trial."""
    if protocol == "leave_one_domain_out":
        return {trial: images_for(prepared, protocol, target, trial) for trial in trials}
    return dict.fromkeys(trials, images_for(prepared, protocol, target, trials[0]))


def _sampling_ratios(prepared: Prepared, target: str) -> RunImages:
    """A percentage of the training images: stratified, and every smaller one is part of the larger."""
    manifest = prepared.manifest
    seed, share = manifest["split_seed"], manifest["validation"]
    pool = [row for row, split in enumerate(prepared.splits) if split in ("train", "val")]
    items = prepared.items(pool)
    draw, keep = splitting(prepared.grouped)
    drawn = draw(items, {"val": share}, seed)
    kept = keep(items, drawn, ("train", "val"), float(target) / 100, seed)
    train, validation = (
        [row for row, split, stays in zip(pool, drawn, kept, strict=True) if stays and split == part]
        for part in ("train", "val")
    )
    larger = "take a larger share in protocol.targets"
    _refuse_gaps(prepared, pool, train, validation, f"{target} % of the training images", larger)
    return RunImages(prepared.select(train), prepared.select(validation), prepared.images("test"))


def _leave_one_domain_out(prepared: Prepared, target: str, trial: int) -> RunImages:
    """Train on all domains but one, each split 80/20 by the trial, and test on that one (DomainBed).

    Where the same subjects come in every domain, the target is tested on those of the prepared test split,
    which are left out of the sources. So is a picture of a source that is tested in the target too: what is
    tested has been seen in no domain.
    """
    domains = prepared.manifest["domains"]
    if len(domains) < 2:
        raise UserError(
            "leave_one_domain_out needs two domains or more, but the prepared images have only "
            f"{domains[0]}; set dataset.domains, or protocol.name: transfer"
        )
    if target not in domains:
        raise UserError(
            f"protocol.targets names the domain {target!r}, which the prepared images do not have; they have "
            f"{', '.join(domains)}"
        )
    paired = prepared.manifest["paired"]
    sources, test = [], []
    for row, (domain, split) in enumerate(zip(prepared.domains, prepared.splits, strict=True)):
        if domain == target:
            if split == "test" or not (paired or split == "repeated"):
                test.append(row)
        elif split not in ("unused", "repeated") and not (paired and split == "test"):
            sources.append(row)
    items = prepared.items(range(len(prepared.table)))
    if not test:
        of_split = " of the split test" if paired else ""
        raise UserError(
            f"protocol.targets names the domain {target!r}, which has no image{of_split} to test on; add "
            "some, or hold out another domain"
        )
    tested = {items[row].group for row in test}
    unseen = [row for row in sources if items[row].group not in tested]
    used = _used_of_sources(prepared, items, unseen)
    draw, _ = splitting(prepared.grouped)
    drawn = draw([items[row] for row in used], {"val": HELD_OUT}, trial)
    learned, validated = (
        [row for row, split in zip(used, drawn, strict=True) if split == part] for part in ("train", "val")
    )
    other = f"take {target} out of protocol.targets"
    _refuse_gaps(prepared, [*used, *test], learned, validated, f"the domains other than {target}", other)
    train = prepared.select(learned)
    return RunImages(
        train,
        prepared.select(validated),
        prepared.select(test),
        domains=train.domains,
        notes=[
            *_also_tested(len(sources) - len(unseen), target),
            *_too_small([items[row] for row in used], prepared.classes),
        ],
    )


def _used_of_sources(prepared: Prepared, items: Sequence[Item], rows: Sequence[int]) -> list[int]:
    """The share `dataset.train_fraction` of the rows, of which `prepare` kept some splits whole."""
    manifest, splits = prepared.manifest, [prepared.splits[row] for row in rows]
    whole = sorted({*splits} - {*manifest["train_fraction_of"]})
    _, keep = splitting(prepared.grouped)
    fraction, seed = manifest["train_fraction"], manifest["split_seed"]
    kept = keep([items[row] for row in rows], splits, whole, fraction, seed)
    return [row for row, stays in zip(rows, kept, strict=True) if stays]


def _also_tested(count: int, target: str) -> list[str]:
    group = "they, or others of their group, are tested in"
    return [f"{count:,} images of other domains were left out: {group} {target}."] if count else []


def _too_small(items: Sequence[Item], classes: Sequence[str]) -> list[str]:
    counts = Counter((item.domain, item.label) for item in items)
    alone = [f"{classes[label]} in {domain}" for (domain, label), count in counts.items() if count == 1]
    return [f"Only one image to train on, and none to validate on: {', '.join(alone)}."] if alone else []


def _refuse_gaps(
    prepared: Prepared,
    pool: Sequence[int],
    train: Sequence[int],
    validation: Sequence[int],
    what: str,
    instead: str,
) -> None:
    """Raise `UserError` where a class of `pool` is not trained on, or nothing is validated on."""
    there, left = (Counter(prepared.labels[row] for row in rows) for rows in (pool, train))
    for label, count in sorted(there.items()):
        if not left[label]:
            raise UserError(
                f"{what} leave none of the class {prepared.classes[label]}, which has {count}, to train on; "
                f"{instead}, or add images of that class"
            )
    if not validation:
        raise UserError(f"{what} leave none to validate on; {instead}, or add images")
