import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import pytest

from pipeline.datasets.source import ClassFolder
from pipeline.datasets.versions import refuse_versions
from stochca.errors import UserError

DRAW = random.Random(0)
LEAVES = [f"{UUID(int=DRAW.getrandbits(128))}___FREC_Scab {number}" for number in range(3300, 3340)]
SHOTS = [f"IMG_2021{DRAW.randrange(300, 999):04}_{DRAW.randrange(10**5, 10**6)}" for _ in range(30)]
IMAGENET = [f"ILSVRC2012_val_{number:08}" for number in sorted(DRAW.sample(range(50_000), 50))]


def refuse(names: Mapping[str, Sequence[str]]) -> None:
    """Each domain's names, in one of two classes."""
    folders = []
    for domain, stems in names.items():
        folders.append(ClassFolder("scab", Path(), f"{domain}/scab", [f"{s}.JPG" for s in stems], domain))
        folders.append(ClassFolder("rust", Path(), f"{domain}/rust", [f"{domain}.png"], domain))
    refuse_versions("dataset.root raw", folders)


@pytest.mark.parametrize(
    "names",
    [
        {"color": LEAVES, "grayscale": LEAVES},
        {"color": LEAVES, "segmented": [f"{stem}_final_masked" for stem in LEAVES]},
        {"Original": SHOTS, "More": [f"{stem}_rot{turn}" for stem in SHOTS for turn in (90, 180)]},
        {"1": IMAGENET, "3": IMAGENET[:40], "5": IMAGENET[10:]},
        {"Original Images": ["1"], "Augmented Images": ["7"]},
    ],
)
def test_versions_of_the_same_pictures_are_no_domains(names: dict[str, list[str]]) -> None:
    with pytest.raises(UserError, match=r"dataset.root raw holds .* dataset\.domains, or .* column group"):
        refuse(names)
    for domain, stems in names.items():
        refuse({domain: stems})


def counted(form: str, *numbers: int) -> list[str]:
    return [form.format(number) for number in range(*numbers)]


@pytest.mark.parametrize(
    "names",
    [
        {  # PACS
            "art_painting": counted("pic_{:03}", 1, 380),
            "cartoon": counted("pic_{:03}", 1, 390),
            "photo": counted("056_{:04}", 1, 190),
            "sketch": [f"n02103406_{number}-{k}" for number in range(40, 9000, 97) for k in (1, 2)],
        },
        {name: counted("{:05}", 1, end) for name, end in (("Art", 73), ("Clipart", 65), ("Product", 44))},
        {
            name: counted("frame_{:04}", 1, end)
            for name, end in (("amazon", 93), ("dslr", 13), ("webcam", 30))
        },
        {name: counted(name + "_001_{:06}", 1, 90) for name in ("clipart", "real", "sketch")},  # DomainNet
        {
            "LabelMe": counted("{}", 1, 80),
            "VOC2007": [f"{number:06}" for number in sorted(DRAW.sample(range(1, 9964), 330))],
        },
        {
            "40X": counted("SOB_B_A-14-22549AB-40-{:03}", 1, 30),
            "100X": counted("SOB_B_A-14-22549AB-100-{:03}", 30),
        },
        {name: counted("{}_100", 0, 160) for name in ("Training room", "Shop")},  # as Fruits-360
        {  # of which some were taken away
            name: sorted(random.Random(name).sample(counted("dog.{}", 1, 900), count))
            for name, count in (("day", 90), ("night", 450), ("dusk", 850))
        },
        {name: [str(UUID(int=DRAW.getrandbits(128))) for _ in range(20)] for name in ("L38", "L43", "L46")},
        {name: ["happy", "sad", "angry"] for name in ("apple", "google")},
    ],
)
def test_names_that_count_are_the_same_by_chance(names: dict[str, list[str]]) -> None:
    refuse(names)
