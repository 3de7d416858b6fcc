"""What one's own images are: all counted, as the stage `prepare` reads them, and some looked at."""

import io
import random
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from pipeline.commands.cost import Split
from pipeline.config.params import Dataset
from pipeline.datasets.image_folder import NOT_FOLLOWED
from pipeline.datasets.source import LEFT_OUT, Record, open_source
from pipeline.images.decoding import UnusableImage, decode, hash_of_pixels
from pipeline.images.sizes import LONG, Sides
from stochca.errors import UserError

LOOKED_AT = 300  # images at most that are opened, drawn from all of them
SPLITS = 3  # train, val and test, of which each needs an image of every class
NAMED = 5  # classes, and notes, at most that are listed
SQUASHED = 2  # times as long as wide, from which training sees little but the middle as well
DECODED_SIDE = 64  # pixels; to decode at this size shows what is broken, and is quick


@dataclass(frozen=True)
class Survey:
    """What was found in a folder of labelled images."""

    layout: str  # class | split | class split | domain | table
    classes: Mapping[str, int]  # images of each
    domains: list[str]
    splits: Mapping[
        str, int
    ]  # images of each split that the folder gives; all are `train` where it gives none
    looked_at: int  # how many images were opened
    short_side: int  # pixels, the median of those
    sides: tuple[int, int]  # pixels, the shortest and the longest short side of those
    length: float = 1.0  # of the long side, in short sides, the median of those
    doubles: int = 0  # files among those whose content another of them has
    broken: tuple[str, ...] = ()  # a sentence for each of those that can't be used
    grouped: bool = False  # some images belong together, and stay in one split
    notes: tuple[str, ...] = ()  # what is odd about the folder or the table

    @property
    def count(self) -> int:
        return sum(self.classes.values())

    @property
    def imbalance(self) -> float:
        """How many times as many images the largest class has as the smallest."""
        return max(self.classes.values()) / min(self.classes.values())

    @property
    def squashed(self) -> bool:
        """Whether so much would be cut off of most that they are rather resized to squares."""
        return self.length > SQUASHED

    def split(self, validation: float, test: float) -> Split:
        """How many images each split will have, where these shares are drawn if they are not given."""
        pool = self.splits.get("train", 0)
        drawn_test = 0 if "test" in self.splits else round(pool * test)
        drawn_validation = 0 if "val" in self.splits else round(pool * validation)
        return Split(
            train=pool - drawn_test - drawn_validation,
            validation=self.splits.get("val", drawn_validation),
            test=self.splits.get("test", drawn_test),
        )

    @property
    def lines(self) -> list[str]:
        """What a user should know of the images, a line each."""
        by_number = sorted(self.classes, key=lambda name: -self.classes[name])
        named = ", ".join(f"{name} {self.classes[name]:,}" for name in by_number[:NAMED])
        more = ", ..." if len(by_number) > NAMED else ""
        low, high = self.sides
        sides = f"{low}" if low == high else f"{low} to {high}, half of them up to {self.short_side}"
        which = "all of them" if self.looked_at == self.count else f"{self.looked_at} of them, a sample,"
        lines = [
            f"images: {self.count:,} of {len(self.classes)} classes ({named}{more})",
            f"{which} looked at: short side {sides} pixels; {self.doubles} the same as another, "
            f"{len(self.broken)} broken",
        ]
        if self.broken:
            lines.append(f"broken, for example: {self.broken[0]}; it will be left out")
        if self.length > LONG:
            middle = (
                f"the middle {1 / self.length:.0%} is seen; to see all, squashed, set resize to image_size"
            )
            seen = "resize squashes them to squares, or the ends were cut off" if self.squashed else middle
            lines.append(f"they are {self.length} times as long as wide (the median): {seen}")
        if self.layout == "domain" or len(self.domains) > 1:
            lines.append(f"domains: {', '.join(self.domains)}")
        if len(self.splits) > 1:
            lines.append(f"splits: {', '.join(f'{name} {n:,}' for name, n in self.splits.items())}")
        if self.grouped:
            lines.append("groups: their images stay in one split")
        elif self.layout == "table":
            lines.append("no groups; if several images show one subject, say its column: --group-column NAME")
        lines += self.notes[:NAMED]
        if len(self.notes) > NAMED:
            lines.append(f"... {len(self.notes) - NAMED} more; make repro lists them")
        return lines


def survey(dataset: Dataset) -> Survey:
    """Count the images of `dataset`, and look at some.

    Raises:
        UserError: the stage `prepare` would refuse them: the folder's layout is unknown or ambiguous, it
            holds no images or a single class, a class has fewer images than there are splits, or none of
            those that were looked at can be read.
    """
    source = open_source(dataset, Sides.of(8, None))  # the size that is stored decides nothing here
    count = source.count
    drawn = set(random.Random(0).sample(range(count), min(LOOKED_AT, count)))
    classes, splits = Counter[str](), Counter[str]()
    sides, lengths, hashes, broken = [], [], [], []
    for number, record in enumerate(source.records()):
        classes[record.class_name] += 1
        splits[record.split or "train"] += 1
        if number in drawn:
            try:
                short, long, digest = _look_at(record, dataset.max_megapixels)
            except (OSError, UnusableImage) as error:
                problem = error.strerror if isinstance(error, OSError) else str(error)
                broken.append(f"{record.id}: {problem}")
            else:
                sides.append(short)
                lengths.append(long / short)
                hashes.append(digest)
    if not sides:
        raise UserError(
            f"none of the {len(broken)} images looked at in {dataset.root} can be read, for example "
            f"{broken[0]}; mend them, or give another folder"
        )
    few = min(classes, key=lambda name: classes[name])
    if classes[few] < SPLITS:
        raise UserError(
            f"the class {few} in {dataset.root} has fewer images, {classes[few]}, than the {SPLITS} that it "
            "needs, to train, to validate and to test; add some or remove the class"
        )
    table = source.layout == "table"  # of folders, each file that is no image, and each link, is a problem
    notes = [each for each in source.problems if table or each["action"] not in (LEFT_OUT, NOT_FOLLOWED)]
    return Survey(
        layout=source.layout,
        classes=dict(sorted(classes.items())),
        domains=source.domains,
        splits=dict(splits),
        looked_at=len(drawn),
        short_side=round(statistics.median_low(sides)),
        sides=(min(sides), max(sides)),
        length=round(statistics.median(lengths), 1),
        doubles=len(hashes) - len(set(hashes)),
        broken=tuple(broken),
        grouped=source.grouped,
        notes=tuple("{file} {problem}: {action}".format(**problem) for problem in notes),
    )


def _look_at(record: Record, max_megapixels: float) -> tuple[int, int, bytes]:
    """The short and the long side in pixels, and what is equal only for equal pictures."""
    content = record.read()
    decoded = decode(content, short_side=DECODED_SIDE, max_megapixels=max_megapixels)
    with Image.open(io.BytesIO(content)) as image:
        return min(image.size), max(image.size), hash_of_pixels(decoded.image)
