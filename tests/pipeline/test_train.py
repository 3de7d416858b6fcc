import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
from safetensors.torch import save_file

from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone, load_params
from pipeline.config.sections import Resources, Workers
from pipeline.runtime.exclusive import exclusive
from pipeline.train import train
from pipeline.training.inputs import Loaded
from pipeline.training.job import Job, all_that_decides, plan, settings_to_compare, work_folder
from pipeline.training.outcome import Outcome
from stochca.errors import UserError
from tests.pipeline.backbone_card import backbone_card
from tests.pipeline.synthetic_runs import write_prepared

PARAMS = load_params()
JOB = plan(PARAMS, "finetune", "all", 0)
TIMETABLE = JOB.training.timetable(images=64)
CARD = backbone_card()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("fintune", "all", 0), "params.yaml defines no method 'fintune'; defined are linear_probe"),
        (("finetune", "color", 0), "protocol.targets in params.yaml has no target 'color'; it has all"),
        (("finetune", "all", -1), "the seed must be at least 0 and below .*, found -1"),
        (("finetune", "all", 2**63), "the seed must be at least 0 and below .*, found 9223372036854775808"),
    ],
)
def test_what_is_asked_for_must_make_sense(arguments: tuple[str, str, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        plan(PARAMS, *arguments)


def work_of(job: Job, *arguments: Any, **options: Any) -> Path:
    return work_folder(job, all_that_decides(job, *arguments, **{"classes": ["a", "b"], **options}))


def test_checkpoints_are_found_again_by_all_that_decides_the_weights() -> None:
    def folder(
        job: Any = JOB, fingerprint: str = "f", precision: str = "fp32", device: str = "cpu", **card: Any
    ) -> Path:
        backbone = dataclasses.replace(CARD, **card).to_dict()
        return work_of(job, job.training.timetable(64), backbone, fingerprint, precision, device)

    assert folder() == folder()
    others = [
        folder(dataclasses.replace(JOB, training=dataclasses.replace(JOB.training, lr=0.5))),
        folder(fingerprint="g"),
        folder(precision="bf16"),
        folder(device="cuda"),
        work_of(JOB, TIMETABLE, CARD.to_dict(), "f", "fp32", "cpu", teacher=CARD.to_dict()),
        work_of(JOB, TIMETABLE, CARD.to_dict(), "f", "fp32", "cpu", teacher_precision="bf16"),
        work_of(JOB, TIMETABLE, CARD.to_dict(), "f", "fp32", "cpu", classes=["ant", "bee"]),
        folder(architecture="test_vit2"),
        folder(weights_sha256="1" * 64),
        folder(global_pool="avg"),
        folder(mean=(0.0, 0.0, 0.0)),
        folder(std=(1.0, 1.0, 1.0)),
        folder(interpolation="bilinear"),
    ]
    assert len({folder(), *others}) == 1 + len(others)


def test_what_changes_no_result_leaves_the_checkpoints_to_be_found() -> None:
    """However the budget is written, and how often a checkpoint is."""
    images = 100 * JOB.training.batch_size

    def folder(**settings: Any) -> Path:
        training = dataclasses.replace(JOB.training, **{"epochs": None, **settings})
        method = dataclasses.replace(JOB.method, training=settings)  # as params.yaml may have it
        job = dataclasses.replace(JOB, method=method, training=training)
        return work_of(job, training.timetable(images), CARD.to_dict(), "f", "fp32", "cpu")

    by_steps = folder(steps=100, warmup=0.1, evaluations=10)
    assert by_steps == folder(epochs=1, steps=None, warmup=0.1, evaluations=10)
    assert by_steps == folder(steps=100, warmup=0.1, evaluations=10, checkpoints=99, workers=3)
    others = [
        folder(steps=101, warmup=0.1, evaluations=10),
        folder(steps=100, warmup=0.2, evaluations=10),
        folder(steps=100, warmup=0.1, evaluations=11),
        folder(steps=100, warmup=0.1, evaluations=10, patience=2),
    ]
    assert len({by_steps, *others}) == 1 + len(others)


def test_a_changed_extension_continues_no_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that reads another table beside its code."""
    monkeypatch.chdir(tmp_path)
    Path("extensions").mkdir()
    folders = []
    for name, text in (
        ("own.py", "one = 1\n"),
        ("own.py", "one = 2\n"),
        ("own.json", "1"),
        ("own.json", "2"),
    ):
        Path("extensions", name).write_text(text)
        folders.append(work_of(JOB, TIMETABLE, CARD.to_dict(), "f", "fp32", "cpu"))
    assert len(set(folders)) == 4


def test_the_images_are_logged_as_they_were_prepared() -> None:
    manifest = {"dataset": "image_folder", "domains": ["line", "photo"], "train_fraction": 0.5}
    settings = settings_to_compare(JOB, TIMETABLE, CARD, manifest)
    assert (settings["dataset"], settings["domains"], settings["train_fraction"]) == (
        "image_folder",
        "line,photo",
        0.5,
    )
    assert (settings["method"], settings["seed"], settings["attention"]) == ("finetune", 0, "self")
    assert settings["training.augmentation.mixup"] == JOB.training.augmentation.mixup


def test_steps_are_logged_and_described_also_where_epochs_are_asked_for() -> None:
    training = dataclasses.replace(JOB.training, epochs=2, steps=None, batch_size=32)
    job = dataclasses.replace(JOB, training=training)
    manifest = {"dataset": "image_folder", "domains": ["photo"], "train_fraction": 1.0}
    settings = settings_to_compare(job, training.timetable(64), CARD, manifest)
    assert (settings["training.epochs"], settings["training.steps"]) == (2, 4)


def test_a_run_describes_its_whole_backbone() -> None:
    manifest = {"dataset": "shapes", "domains": ["all"]}
    prepared = SimpleNamespace(manifest=manifest, classes=["a"], fingerprint="f")
    fitted = SimpleNamespace(
        selected_step=1, notes=[], device="cpu", precision="fp32", cross_attended=[0.5, 0.0]
    )
    tags = {"git_commit": "none", "stage": "none"}
    inputs: Any = SimpleNamespace(timetable=TIMETABLE)
    images: Any = SimpleNamespace(train=[], validation=[], test=[])
    loaded = Loaded(CARD, None, prepared, images, inputs)  # type: ignore[arg-type]
    job = dataclasses.replace(JOB, protocol=JOB.protocol.model_copy(update={"refit": True}))
    versions = {"timm": "0.0.1"}  # when it began; that on the disk may be another by now
    outcome = Outcome(job, loaded, fitted, {}, "none", tags, versions)  # type: ignore[arg-type]
    assert outcome.description["backbone"] == CARD.to_dict()
    assert outcome.description["teacher"] is None
    assert outcome.description["versions"] == versions
    assert outcome.description["cross_attended"] == [0.5, 0.0]
    assert outcome.description["refit"] is True


@pytest.mark.parametrize(
    ("settings", "address", "sentence"),
    [
        ({"optimizer": "adamm"}, None, "adamm"),
        ({"precision": "fp16"}, None, "fp16"),
        ({"lr": 0.5}, None, "another process is at work on finetune-all-0"),  # other settings, but one model
        ({"precision": "fp16"}, "elsewhere:6379", "another process is at work"),  # which has GPUs
    ],
)
def test_what_needs_the_model_is_found_before_the_run_is_tracked(
    settings: dict[str, Any],
    address: str | None,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), "weights.safetensors")
    make_backbone(Backbone(name="test_vit", weights="file:weights.safetensors"), 32, Path("data/backbone"))
    write_prepared(Path("data/prepared"), ["a", "b"], ["1", "2"], np.array([0, 1]))
    job = dataclasses.replace(JOB, training=dataclasses.replace(JOB.training, **settings))
    params = PARAMS
    if address is not None:
        each = Resources(cpu=1, gpu=1)
        workers = Workers(num_workers=2, address=address, resources_per_worker=each, max_failures=0)
        params = PARAMS.model_copy(update={"workers": workers})
    before = sorted(Path().rglob("*"))
    with exclusive(JOB.name), pytest.raises(UserError, match=sentence):
        train(job, params)
    Path("work").rmdir()
    assert sorted(Path().rglob("*")) == before
