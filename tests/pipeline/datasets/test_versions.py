import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import pytest

from pipeline.datasets.source import ClassFolder
from pipeline.datasets.versions import refuse_versions, versions_within
from stochca.errors import UserError

DRAW = random.Random(0)
LEAVES = [f"{UUID(int=DRAW.getrandbits(128))}___FREC_Scab {number}" for number in range(3300, 3340)]
SHOTS = [f"IMG_2021{DRAW.randrange(300, 999):04}_{DRAW.randrange(10**5, 10**6)}" for _ in range(30)]
IMAGENET = [f"ILSVRC2012_val_{number:08}" for number in sorted(DRAW.sample(range(50_000), 50))]


def refuse(names: Mapping[str, Sequence[str]]) -> list[ClassFolder]:
    """Each domain's names, in one of two classes."""
    folders = []
    for domain, stems in names.items():
        folders.append(ClassFolder("scab", Path(), f"{domain}/scab", [f"{s}.JPG" for s in stems], domain))
        folders.append(ClassFolder("rust", Path(), f"{domain}/rust", [f"{domain}.png"], domain))
    refuse_versions("dataset.root raw", folders)
    return folders


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
    assert versions_within(refuse(names)) == ({}, [])


def test_versions_in_the_folder_of_their_class() -> None:
    turned = [f"{leaf}_{ending}" for leaf in LEAVES for ending in ("90deg", "flipLR")]
    again = [f"{LEAVES[0]}_flipLR_90deg", f"{LEAVES[1]}_flipLR_90deg"]
    shots = [f"{shot}_jpg.rf.{DRAW.getrandbits(128):032x}" for shot in SHOTS for _ in range(3)]
    scab = ClassFolder("scab", Path(), "scab", [f"{stem}.JPG" for stem in (*LEAVES, *turned, *again)])
    rust = ClassFolder("rust", Path(), "rust", [f"{stem}.jpg" for stem in sorted(shots)])
    versions, notes = versions_within([scab, rust])
    for stem in (*LEAVES, *turned, *again):
        original = re.sub(r"(_90deg|_flipLR)*$", "", stem)
        assert versions.get(f"scab/{stem}.JPG", f"scab/{stem}.JPG") == f"scab/{original}.JPG"
    of_rust = {
        versions.get(f"rust/{shot}.jpg", f"rust/{shot}.jpg"): shot.partition(".rf.")[0] for shot in shots
    }
    assert sorted(of_rust.values()) == sorted(f"{shot}_jpg" for shot in SHOTS)
    assert [note["file"] for note in notes] == [f"{80 + 2 + 60} images"]


def test_what_was_added_may_stand_before_the_name() -> None:
    added = {f"{word}{shot}": shot for shot in SHOTS for word in ("flipped_", "rot_90-")}
    twice = {f"noisy_flipped_{shot}": shot for shot in SHOTS}
    names = [f"{stem}.jpg" for stem in (*SHOTS, *added, *twice)]
    versions, _ = versions_within([ClassFolder("cat", Path(), "cat", names)])
    expected = {f"cat/{stem}.jpg": f"cat/{shot}.jpg" for stem, shot in {**added, **twice}.items()}
    assert versions == expected


def test_versions_that_splits_part_are_told() -> None:
    names = {"train": ["1", "2", "2_flip", "3", "3_flip", "4_flip"], "val": ["1", "2", "4"]}
    folders = [
        ClassFolder("cat", Path(), f"{split}/cat", [f"{stem}.png" for stem in stems], split=split)
        for split, stems in names.items()
    ]
    versions, notes = versions_within(folders)
    assert versions == {
        "train/cat/2_flip.png": "train/cat/2.png",  # although there is a 2 in the other split too
        "train/cat/3_flip.png": "train/cat/3.png",
        "train/cat/4_flip.png": "val/cat/4.png",
    }
    parted = "lie in another split than what they are versions of, as train/cat/4_flip.png of val/cat/4.png"
    assert [(note["file"], note["problem"]) for note in notes[1:]] == [("1 images", parted)]


@pytest.mark.parametrize(
    "stems",
    [
        ["img_1", "img_10", "img_1_a", "img_1_b", "img_2", "img_2_a", "img_1_1", "img_2_1"],
        ["IMG", *(f"IMG-202001{day}-WA{day:04}" for day in range(10, 30))],  # of WhatsApp
        [f"{number}" for number in range(30)],  # MNIST
        [f"image_{number:05}" for number in range(30)],  # 102 Flowers
        ["cat", "cat_asleep", "dog", "dog_asleep", *(f"photo_of_{word}" for word in LEAVES)],
        ["x", "x_left", "y", "y_right"],
        [f"{word}{number}" for word in ("", "cat_", "IMG.") for number in range(30)],  # put together
    ],
)
def test_ordinary_names_are_of_no_versions(stems: list[str]) -> None:
    names = [f"{stem}.{format}" for stem in stems for format in ("jpg", "png")]
    assert versions_within([ClassFolder("cat", Path(), "cat", names)]) == ({}, [])
