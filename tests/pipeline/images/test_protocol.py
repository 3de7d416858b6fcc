"""Which images each protocol gives, against sets that are counted by hand; and the poisoned target."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.images.prepared import Prepared, PreparedImages
from pipeline.images.protocol import images_for
from stochca.config import Method, Swad
from stochca.config.training import Training
from stochca.errors import UserError
from stochca.training.fit import Fitted, find_evaluated, fit
from stochca.training.inputs import Inputs
from tests.pipeline.prepared_folder import Row, write_prepared_folder
from tests.stochca.tiny import PREPROCESSING, tiny_vit

CLASSES = ("red", "green", "blue")
DOMAINS = ("photo", "sketch", "clip")
PER_CLASS = 10  # in each domain


def pixels(label: int, number: int) -> bytes:
    noise = np.random.default_rng(number).normal(100, 40, (16, 16, 3))
    noise[..., label] += 60
    encoded = io.BytesIO()
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def prepared_images(
    folder: Path,
    *,
    paired: bool = False,
    poisoned: str | None = None,
    left_out: Sequence[tuple[str, int]] = (),
    splits: Callable[[int], str] = lambda number: "train",
    domains: Sequence[str] = DOMAINS,
    shared: Sequence[str] = (),
    **manifest: Any,
) -> Prepared:
    """Ten images per class and domain; the images and labels of the domain `poisoned` are nonsense.

    The groups `shared`, such as 0/1, are one over all domains, as `prepare` makes them of equal pictures.
    """
    places = [
        (domain, label, number)
        for domain in domains
        for label in range(len(CLASSES))
        for number in range(PER_CLASS)
        if (domain, label) not in left_out or number == 0
    ]
    rows = [
        Row(
            b"no image" if domain == poisoned else pixels(label, place),
            (label + 1) % len(CLASSES) if domain == poisoned else label,
            f"{domain}/{label}/{number}",
            splits(number),
            domain,
            group=f"{'' if paired or f'{label}/{number}' in shared else domain}{label}/{number}",
        )
        for place, (domain, label, number) in enumerate(places)
    ]
    return write_prepared_folder(
        folder, CLASSES, rows, paired=paired, validation=0.2, split_seed=0, **manifest
    )


def trained_without(prepared: Prepared, target: str, method: Method, folder: Path) -> tuple[Any, Fitted]:
    images = images_for(prepared, "leave_one_domain_out", target, 3)
    student = tiny_vit()
    fitted = fit(
        Inputs(
            student,
            images.train,
            images.validation,
            method=method,
            settings=Training(steps=12, batch_size=8, lr=1e-2, evaluations=6, precision="fp32", workers=0),
            preprocessing=PREPROCESSING,
            domains=images.domains,
        ),
        work_folder=folder,
        keep_evaluated="all",
        device=torch.device("cpu"),
    )
    return student.state_dict(), fitted


def ids(images: PreparedImages) -> set[str]:
    return set(images.ids)


@pytest.mark.parametrize("method", [Method(), Method(average=Swad(n_converge=2, n_tolerance=2))])
def test_a_poisoned_target_changes_no_bit_of_the_weights(tmp_path: Path, method: Method) -> None:
    weights: list[dict[str, Tensor]] = []
    looks = []
    for poisoned in (None, "sketch"):
        prepared = prepared_images(tmp_path / f"{poisoned}", poisoned=poisoned)
        state, fitted = trained_without(prepared, "sketch", method, tmp_path / f"work-{poisoned}")
        weights.append(state)
        looks.append(fitted.validation)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert looks[0] == looks[1]
    assert sorted(find_evaluated(tmp_path / "work-sketch")) == [2, 4, 6, 8, 10, 12]
    with pytest.raises(Exception, match="identify image"):  # the poison is real
        images_for(prepared, "leave_one_domain_out", "sketch", 3).test[0]
    other = prepared_images(tmp_path / "source", poisoned=None, left_out=[("photo", 0)])
    state, _ = trained_without(other, "sketch", method, tmp_path / "work-other")
    assert any(not torch.equal(weights[0][name], state[name]) for name in state)  # sources do matter


def test_one_domain_is_tested_and_the_others_are_split_by_the_trial(tmp_path: Path) -> None:
    prepared = prepared_images(tmp_path / "data")
    validations = []
    for trial in (0, 1):
        images = images_for(prepared, "leave_one_domain_out", "photo", trial)
        assert set(images.test.domains) == {"photo"}
        assert len(images.test) == 30
        assert Counter(images.train.domains) == {"sketch": 24, "clip": 24}
        assert Counter(images.validation.domains) == {"sketch": 6, "clip": 6}
        assert Counter(images.train.labels) == {0: 16, 1: 16, 2: 16}
        assert images.train.known_labels.tolist() == [images.train[i][1] for i in range(48)]
        assert not ids(images.train) & ids(images.validation)
        assert images.domains == images.train.domains
        validations.append(ids(images.validation))
    assert validations[0] != validations[1]


def test_a_subject_that_is_tested_is_seen_in_no_domain(tmp_path: Path) -> None:
    prepared = prepared_images(
        tmp_path / "data", paired=True, splits=lambda n: "test" if n < 3 else "unused" if n == 9 else "train"
    )
    images = images_for(prepared, "leave_one_domain_out", "clip", 0)
    assert {name.split("/")[0] for name in images.test.ids} == {"clip"}
    subjects = [
        {name.split("/", 1)[1] for name in part.ids}
        for part in (images.train, images.validation, images.test)
    ]
    assert not subjects[0] & subjects[1]
    assert not (subjects[0] | subjects[1]) & subjects[2]
    assert {name[-1] for name in subjects[2]} == {"0", "1", "2"}
    assert "9" not in {name[-1] for name in subjects[0] | subjects[1]}


def test_a_picture_that_comes_in_two_domains_is_not_learned_before_it_is_tested(tmp_path: Path) -> None:
    prepared = prepared_images(tmp_path / "data", shared=["0/1", "2/5"])
    images = images_for(prepared, "leave_one_domain_out", "clip", 0)
    assert ids(images.test) == {f"clip/{label}/{number}" for label in range(3) for number in range(10)}
    learned = {name.split("/", 1)[1] for name in ids(images.train) | ids(images.validation)}
    assert learned == {f"{label}/{number}" for label in range(3) for number in range(10)} - {"0/1", "2/5"}
    assert images.notes == [
        "4 images of other domains were left out: they, or others of their group, are tested in clip."
    ]


@pytest.mark.parametrize(
    ("splits", "fraction_of"),
    [  # of ten: four to test on, one to validate on and two to train on of twice as many
        ("TTTTvttuuu", ["train", "val"]),
        # and two to validate on as the dataset says, of which none was left out
        ("TTTTvvttuu", ["train"]),
    ],
)
def test_a_share_of_the_sources_is_one_of_all_their_images(
    splits: str, fraction_of: list[str], tmp_path: Path
) -> None:
    names = {"T": "test", "v": "val", "t": "train", "u": "unused"}
    prepared = prepared_images(
        tmp_path / "data",
        splits=lambda number: names[splits[number]],
        train_fraction=0.5,
        train_fraction_of=fraction_of,
    )
    images = images_for(prepared, "leave_one_domain_out", "clip", 0)
    strata = Counter(
        name.rsplit("/", 1)[0] for part in (images.train, images.validation) for name in part.ids
    )
    assert strata == {f"{domain}/{label}": 5 for domain in ("photo", "sketch") for label in range(3)}
    assert len(images.test) == 30


def test_a_picture_that_was_left_out_as_repeated_is_not_tested_either(tmp_path: Path) -> None:
    prepared = prepared_images(
        tmp_path / "data", splits=lambda n: "repeated" if n == 3 else "unused" if n == 9 else "train"
    )
    images = images_for(prepared, "leave_one_domain_out", "clip", 0)
    last = [{name[-1] for name in part.ids} for part in (images.train, images.validation, images.test)]
    assert last[2] == set("012456789")  # what train_fraction left out for training is tested
    assert not (last[0] | last[1]) & set("39")


def test_what_leaving_a_domain_out_refuses_or_tells(tmp_path: Path) -> None:
    prepared = prepared_images(tmp_path / "data", left_out=[("photo", 1)])
    with pytest.raises(UserError, match=r"domain 'cartoon', .* they have photo, sketch, clip"):
        images_for(prepared, "leave_one_domain_out", "cartoon", 0)
    single = prepared_images(tmp_path / "single", domains=["photo"])
    with pytest.raises(UserError, match=r"needs two domains or more, .* only photo"):
        images_for(single, "leave_one_domain_out", "photo", 0)
    assert images_for(prepared, "leave_one_domain_out", "clip", 0).notes == [
        "Only one image to train on, and none to validate on: green in photo."
    ]


def test_what_leaving_a_domain_out_leaves_without_images_is_refused(tmp_path: Path) -> None:
    few = [(domain, label) for domain in ("photo", "sketch") for label in range(3)]
    few_of_sources = prepared_images(tmp_path / "few", left_out=few)
    with pytest.raises(UserError, match="domains other than clip leave none to validate on; take clip out"):
        images_for(few_of_sources, "leave_one_domain_out", "clip", 0)
    alone = [("photo", 2), ("sketch", 2)]  # whose only image is a picture that is tested
    unlearned = prepared_images(tmp_path / "alone", left_out=alone, shared=["2/0"])
    with pytest.raises(UserError, match="other than clip leave none of the class blue, which has 10, to tr"):
        images_for(unlearned, "leave_one_domain_out", "clip", 0)
    assert set(images_for(unlearned, "leave_one_domain_out", "photo", 0).train.labels) == {0, 1, 2}
    untested = prepared_images(tmp_path / "untested", paired=True)
    with pytest.raises(UserError, match="the domain 'clip', which has no image of the split test to test on"):
        images_for(untested, "leave_one_domain_out", "clip", 0)


def test_ratios_are_stratified_nested_and_leave_the_test_alone(tmp_path: Path) -> None:
    prepared = prepared_images(
        tmp_path / "data", splits=lambda n: "test" if n < 2 else "val" if n < 4 else "train"
    )
    found = [images_for(prepared, "sampling_ratios", ratio, 0) for ratio in ("15", "50", "100")]
    # 8 of 10 images are no test images; a fifth of them, 2, validates.
    assert [len(images.train) for images in found] == [9, 27, 54]
    assert [len(images.validation) for images in found][1:] == [9, 18]
    assert 0 < len(found[0].validation) <= 9  # 2.7 of 18, rounded up or down in each of 9 strata
    for smaller, larger in pairwise(found):
        assert ids(smaller.train) < ids(larger.train)
        assert ids(smaller.validation) <= ids(larger.validation)
        assert ids(smaller.test) == ids(larger.test)
    assert Counter(found[1].train.labels) == {0: 9, 1: 9, 2: 9}
    again = images_for(prepared, "sampling_ratios", "50", 7)
    assert ids(again.train) == ids(found[1].train)  # whatever the training seed


def test_a_ratio_that_leaves_a_class_empty(tmp_path: Path) -> None:
    prepared = prepared_images(
        tmp_path / "data", domains=["photo"], splits=lambda n: "test" if n == 0 else "train"
    )
    with pytest.raises(
        UserError, match=r"^3 % of the training images leave none of the class red, which has 9"
    ):
        images_for(prepared, "sampling_ratios", "3", 0)
