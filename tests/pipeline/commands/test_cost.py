import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.commands import cost
from pipeline.commands.cost import (
    RUN_SECONDS,
    Speed,
    Split,
    _seconds,
    cost_here,
    cost_lines,
    cost_of,
    hours,
    measure,
    search_cost_here,
    search_seconds,
    side_by_side,
    split_of,
    teacher_share,
    training_seconds,
)
from pipeline.config.params import Params
from pipeline.config.presets import find_preset
from pipeline.config.sections import Resources
from stochca.config import HeadAlone, Method, StochasticCrossAttention
from stochca.errors import UserError
from tests.pipeline.prepared_folder import Row, write_prepared_folder
from tests.stochca.pretend import pretended

SPEED = Speed("a device", "fp32", train_image=0.3, forward_image=0.1, step=1.0, blocks=12)


@pytest.fixture(scope="module")
def cub() -> Params:
    return find_preset("cub").params()


@pytest.fixture(scope="module")
def pacs() -> Params:
    return find_preset("pacs").params()


def test_the_cost_of_cub_by_hand(cub: Params) -> None:
    """120 runs of 10,000 steps of 16 images; 20 looks at 10 % of 15, 30, 50 and 100 % of 5,994 images."""
    teacher = 4.824 / 12  # the sum of 1 - 0.9^k for k = 0 to 11
    evaluated_images = train = 0.0
    for share in (0.15, 0.3, 0.5, 1.0):
        pool = round(5994 * share)
        validation = round(599.4 * share)
        evaluated_images += 3 * (
            10 * (20 * validation + 5794) + 2 * pool
        )  # lp_ft and stochca+lp_ft fit a head
        plain = 10_000 * (16 * 0.3 + 1.0)
        # Of ten methods four draw blocks, and DELTA runs the pretrained model.
        train += 3 * (10 * plain + 4 * 160_000 * teacher * 0.1 + 160_000 * 0.1)
    found = cost_of(cub, SPEED)
    assert (found.runs, found.training_images, found.evaluations) == (120, 120 * 160_000, 120 * 20)
    assert found.evaluated_images == pytest.approx(evaluated_images)
    assert found.seconds == pytest.approx(train + 0.1 * evaluated_images + 120 * RUN_SECONDS, rel=1e-4)


def test_refitting_looks_at_no_validation_images(cub: Params) -> None:
    refit = find_preset("cub/refit").params()
    found = cost_of(refit, SPEED)
    assert found.evaluations == 0
    assert found.evaluated_images == 120 * 5794 + 2 * 3 * sum(round(5994 * s) for s in (0.15, 0.3, 0.5, 1.0))
    assert found.training_images == cost_of(cub, SPEED).training_images


def test_a_held_out_domain_is_tested_at_every_evaluation(pacs: Params) -> None:
    assert split_of(pacs, "sketch") == Split(round(0.8 * 6062), round(0.2 * 6062), 3929)
    evaluations = {"finetune": 25, "swad": 50, "lp_ft": 25, "stochca": 25, "stochca+swad": 50}
    expected = 0
    for test in (2048, 2344, 1670, 3929):  # art_painting, cartoon, photo, sketch
        sources = 9991 - test
        for method, number in evaluations.items():
            expected += 3 * (number * round(0.2 * sources) + (number + 1) * test)
            expected += 3 * sources if method == "lp_ft" else 0
    found = cost_of(pacs, SPEED)
    assert found.runs == 60
    assert found.evaluations == 3 * 4 * sum(evaluations.values())
    assert found.evaluated_images == pytest.approx(expected, abs=3)


@pytest.mark.slow
def test_the_splits_of_openmoji_are_those_that_prepare_makes(tmp_path: Path) -> None:
    """Against the real thing: the stage prepare and the protocol, on the real images."""
    from pipeline.images.prepared import load_prepared
    from pipeline.images.protocol import images_for
    from pipeline.images.sizes import Sides
    from pipeline.prepare import prepare

    params = find_preset("openmoji_dg").params()
    # Which pictures are equal is only known when they have been drawn: what is left out for it is counted.
    dataset = params.dataset.model_copy(update={"domains": ["color", "line"], "duplicates": "warn"})
    params = params.model_copy(update={"dataset": dataset})
    prepare(params.dataset, Sides.of(14, None), tmp_path / "prepared")
    images = images_for(load_prepared(tmp_path / "prepared"), "leave_one_domain_out", "line", 0)
    split = split_of(params, "line")
    for real, counted in (
        (images.train, split.train),
        (images.validation, split.validation),
        (images.test, split.test),
    ):
        assert counted == pytest.approx(len(real), rel=0.03)
    shutil.rmtree(tmp_path / "prepared")


def test_official_splits_and_shares() -> None:
    flowers = split_of(find_preset("toast_fgvc/flowers").params(), "all")
    assert flowers == Split(1020, 1020, 6149)
    # ELPV has 2,624 photographs, of which two classes leave the doubtful out.
    for variant, images in (("solar_cells", 2_223), ("solar_cells/four", 2_624)):
        assert sum(vars(split_of(find_preset(variant).params(), "all")).values()) == images
    default = split_of(find_preset("default").params(), "all")
    assert default == Split(1898 - 1518 - 190, 190, 1518)


@pytest.mark.parametrize("prob", [0.0, 0.1, 0.5, 1.0])
def test_the_teachers_share_is_that_of_the_draws(prob: float) -> None:
    """Against a simulation: as many blocks as come before the deepest that is drawn."""
    drawn = np.random.default_rng(0).random((20_000, 12)) < prob
    deepest = np.where(drawn.any(axis=1), 11 - drawn[:, ::-1].argmax(axis=1), 0)
    method = Method(attention=StochasticCrossAttention(prob=prob))
    assert teacher_share(method, 12, 16) == pytest.approx(deepest.mean() / 12, abs=0.01)


def test_the_deepest_block_of_any_image_counts_and_no_other_than_may_be_drawn() -> None:
    drawn = np.random.default_rng(0).random((20_000, 16, 12)) < 0.1  # steps, images, blocks
    drawn[:, :, [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]] = False
    by_step = np.asarray(drawn.any(axis=1))
    deepest = np.where(by_step.any(axis=1), 11 - by_step[:, ::-1].argmax(axis=1), 0)
    by_image = StochasticCrossAttention(granularity="sample", blocks=(4, 5))
    assert teacher_share(Method(attention=by_image), 12, 16) == pytest.approx(deepest.mean() / 12, abs=0.01)


def test_stochca_costs_what_was_measured() -> None:
    """benchmarks/RESULTS.md: 1.12 to 1.143 times plain fine-tuning at p = 0.1, where a forward is a third."""
    share = teacher_share(Method(attention=StochasticCrossAttention()), 12, 16)
    assert 1.12 < 1 + share / 3 < 1.16
    assert teacher_share(Method(), 12, 16) == 0
    assert teacher_share(Method(attention=StochasticCrossAttention(prob=(0.0, 1.0, 0.0))), 3, 16) == 1 / 3


def test_a_linear_probe_goes_forward_alone(cub: Params) -> None:
    training = cub.training
    assert training_seconds(Method(), training, 10_000, SPEED) == pytest.approx(10_000 * (16 * 0.3 + 1.0))
    probe = Method(adapter=HeadAlone())
    assert training_seconds(probe, training, 10_000, SPEED) == pytest.approx(10_000 * (16 * 0.1 + 1.0))


def test_the_search_is_counted_by_trials_and_seeds(cub: Params) -> None:
    share = teacher_share(Method(attention=StochasticCrossAttention(prob=0.5)), 12, 16)
    one = 10_000 * (16 * (0.3 + share * 0.1) + 1.0) + 20 * 599 * 0.1
    assert search_seconds(cub, SPEED, 1) == pytest.approx(8 * one)
    assert search_seconds(cub, SPEED, 3) == pytest.approx(3 * one)  # the last two beside nothing


def test_the_search_is_announced(cub: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight trials; of a space with fewer values, as many as it has."""
    monkeypatch.setattr(cost, "measure", lambda params, device: SPEED)
    monkeypatch.setattr(cost, "cores_of_process", lambda: 3)
    share = teacher_share(Method(attention=StochasticCrossAttention(prob=0.5)), 12, 16)
    one = 10_000 * (16 * (0.3 + share * 0.1) + 1.0) + 20 * 599 * 0.1
    _, length, stopper = search_cost_here(cub)
    longest = f"{3 * one / 3600:,.0f} hours"
    assert length == f"  8 trials on one seed, up to 3 side by side: at most {longest} on a device (fp32)"
    assert stopper == "  bad ones may be stopped once 25% of their steps are over"
    few = cub.model_copy(update={"tune": cub.tune.model_copy(update={"lr": None})})
    assert search_seconds(few, SPEED, 1) == pytest.approx(5 * one)


@pytest.mark.parametrize(
    ("cpu", "gpu", "concurrent", "expected"),
    [
        (1, 0, "auto", 64),
        (3, 0, "auto", 21),
        (0.5, 0, "auto", 64),  # two trials on a core, at half its speed
        (1, 0, 1, 1),
        (100, 0, "auto", 1),
        (1, 1, "auto", 4),
        (1, 0.5, "auto", 4),  # likewise on a GPU
        (1, 2, "auto", 2),
        (20, 1, "auto", 3),
    ],
)
def test_trials_run_side_by_side_as_cores_and_gpus_allow(
    cpu: float, gpu: float, concurrent: Any, expected: int, cub: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine of 64 cores and 4 GPUs."""
    monkeypatch.setattr(cost, "cores_of_process", lambda: 64)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    changes = {"resources": Resources(cpu=cpu, gpu=gpu), "concurrent": concurrent}
    assert side_by_side(cub.tune.model_copy(update=changes)) == expected


@pytest.mark.parametrize("gpu", [0, 1])
def test_the_search_is_measured_as_its_trials_train(
    gpu: int, cub: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU with gpu: 0, which the GPU here is no measure of; its cores alone compute and load."""
    measured: list[tuple[str, int | str, int]] = []
    before = torch.get_num_threads()

    def measure(params: Params, device: torch.device) -> Speed:
        measured.append((device.type, params.training.workers, torch.get_num_threads()))
        return SPEED

    monkeypatch.setattr(cost, "measure", measure)
    for cpu in (1, 4):
        tune = cub.tune.model_copy(update={"resources": Resources(cpu=cpu, gpu=gpu)})
        with pretended() as device:
            lines = list(search_cost_here(cub.model_copy(update={"tune": tune})))
        assert any("is not used: tune.resources.gpu in params.yaml is 0" in line for line in lines) != gpu
    its = device.type if gpu else "cpu"
    assert measured == [(its, 0, 1), (its, 3, 4)]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("num_workers", "gpu", "on_cpus"), [(1, 0, False), (2, 0, True), (2, 1, False)])
def test_what_trains_on_cpus_is_measured_on_them(
    num_workers: int, gpu: int, on_cpus: bool, cub: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several workers without a GPU; one alone takes what the machine has."""
    measured: list[str] = []

    def measure(params: Params, device: torch.device) -> Speed:
        measured.append(device.type)
        return SPEED

    monkeypatch.setattr(cost, "measure", measure)
    resources = Resources(cpu=1, gpu=gpu)
    workers = cub.workers.model_copy(update={"num_workers": num_workers, "resources_per_worker": resources})
    with pretended() as device:
        lines = list(cost_here(cub.model_copy(update={"workers": workers})))
    assert measured == ["cpu" if on_cpus else device.type]
    told = "is not used: workers.resources_per_worker.gpu in params.yaml is 0"
    assert any(told in line for line in lines) == on_cpus


def test_the_sentences(pacs: Params) -> None:
    runs, images, time, _ = cost_lines(pacs, SPEED)
    assert runs == "60 runs: 5 methods x 4 targets x 3 seeds"
    assert images.startswith("28,800,000 training images; 2,100 evaluations on validation images, ")
    assert time.endswith(" hours on a device (fp32), measured 3.33 training images/s with plain fine-tuning")
    assert [hours(s) for s in (3, 1500, 12_240, 4_320_000)] == [
        "1 minutes", "25 minutes", "3.4 hours", "1,200 hours"
    ]  # fmt: skip


def in_epochs(params: Params, epochs: float, **changes: Any) -> Params:
    training = replace(params.training, epochs=epochs, steps=None)
    return params.model_copy(update={"training": training, **changes})


def test_epochs_cost_the_training_images(cub: Params) -> None:
    """Of 15, 30, 50 and 100 % of 5,994 images, a tenth validates; batches of 16."""
    found = cost_of(in_epochs(cub, 10), SPEED)
    trained = sum(round(5994 * share) - round(599.4 * share) for share in (0.15, 0.3, 0.5, 1.0))
    assert found.training_images == pytest.approx(30 * 10 * trained, abs=120 * 8)
    assert found.evaluations == 120 * 20
    refit = cost_of(in_epochs(find_preset("cub/refit").params(), 10), SPEED)
    everything = sum(round(5994 * share) for share in (0.15, 0.3, 0.5, 1.0))
    assert refit.training_images == pytest.approx(30 * 10 * everything, abs=120 * 8)


def test_epochs_of_own_images_are_counted_once_they_are_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = find_preset("default").params()
    monkeypatch.chdir(tmp_path)
    dataset = default.dataset.model_copy(update={"name": "image_folder", "root": "photos"})
    own = in_epochs(default, 2, dataset=dataset)
    with pytest.raises(
        UserError, match=r"what training.epochs of image_folder cost .* run: dvc repro prepare"
    ):
        cost_of(own, SPEED)
    splits = [*["train"] * 48, *["val"] * 8, *["test"] * 16]
    rows = [Row(b"", 0, f"{number}", split) for number, split in enumerate(splits)]
    settings = json.loads(json.dumps(dataset.which_images))
    write_prepared_folder(Path("data/prepared"), ["a"], rows, dataset="image_folder", settings=settings)
    assert split_of(own, "all") == Split(48, 8, 16)
    assert cost_of(own, SPEED).training_images == 5 * 96
    for key, value in (("root", "others"), ("labels", "other.csv"), ("train_fraction", 0.5), ("test", 0.3)):
        other = dataset.model_copy(update={key: value})
        assert split_of(own.model_copy(update={"dataset": other}), "all") == Split(0, 0, 0), key


def test_own_images_are_not_counted(pacs: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = pacs.dataset.model_copy(update={"name": "image_folder"})
    found = cost_of(pacs.model_copy(update={"dataset": dataset}), SPEED)
    assert found.evaluated_images is None
    assert found.training_images == 60 * 480_000
    lines = cost_lines(pacs.model_copy(update={"dataset": dataset}), SPEED)
    assert "whose number is not known yet and is left out of the time below" in lines[1]


def params(architecture: str = "vit_tiny_patch16_224", **changes: Any) -> Params:
    """The default with a tiny transformer."""
    default = find_preset("default").params()
    tiny = default.backbone.model_copy(update={"name": architecture})
    return default.model_copy(update={"backbone": tiny, "image_size": 32, **changes})


@pytest.mark.parametrize(
    ("architecture", "blocks"),
    [("vit_tiny_patch16_224", 12), ("swin_tiny_patch4_window7_224", 12), ("coatnet_0_rw_224", 9)],
)
def test_every_architecture_is_measured(
    architecture: str, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "BUDGET", 0.0)
    speed = measure(params(architecture, image_size=64))
    assert speed.blocks == blocks
    assert min(speed.forward_image, speed.train_image, speed.step) > 0


def test_a_backbone_that_does_not_fit_is_a_sentence() -> None:
    with pytest.raises(UserError, match="image_size 33 is no multiple of the patch size 16"):
        measure(params(image_size=33))


def test_calls_are_timed_within_a_budget() -> None:
    """The first call sets things up: it counts only where it is the only one."""
    durations = iter([0.2, 0.01, 0.01, 0.01, 0.01, 0.01, *[0.2] * 100])
    cpu = torch.device("cpu")
    assert _seconds(lambda: time.sleep(next(durations)), cpu, 0.3) < 0.15
    assert _seconds(lambda: time.sleep(0.05), cpu, 0.0) >= 0.05
