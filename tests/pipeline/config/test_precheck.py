import hashlib
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipeline.backbone import make_backbone, make_backbones
from pipeline.config.params import Params, load_params
from pipeline.config.precheck import check_git, check_inputs, check_tracking, check_weights, check_work
from pipeline.runtime.paths import BACKBONE
from stochca.errors import UserError
from tests.e2e.workspace import make_weights
from tests.imports import ROOT


def test_a_training_that_an_earlier_version_left_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_work()
    today = tmp_path / "work" / "runs" / "stochca-all-0-0123"
    today.mkdir(parents=True)
    (today / "checkpoint.safetensors").touch()
    check_work()
    earlier = tmp_path / "work" / "stochca-all-0-4567"
    earlier.mkdir()
    (earlier / "checkpoint.safetensors").touch()
    with pytest.raises(UserError, match=r"work/stochca-all-0-4567 holds a training .*: make clean"):
        check_work()


@pytest.mark.parametrize(
    ("files", "fine"),
    [
        ({}, True),  # DVC is not used here
        ({".dvc/config": "[core]\n    analytics = false\n"}, False),
        ({".dvc/config": "[core]\n", ".dvc/config.local": "[core]\n    no_scm = true\n"}, True),
        (
            {".dvc/config": "[core]\n\n['remote \"r\"']\n    url = s3://r\n", ".git": "gitdir: a worktree"},
            True,
        ),
        ({".dvc/config": "[core]\n\n['remote \"r\"']\n    url = s3://r%20\n"}, False),
        ({".dvc/config": "no settings"}, True),  # which DVC says itself
    ],
)
def test_without_git_dvc_has_to_know(
    files: dict[str, str], fine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    if fine:
        check_git()
    else:
        with pytest.raises(UserError, match=r"is no git repository, .*: dvc config --local core.no_scm true"):
            check_git()


def pointing_at(root: str, images: str = "data/prepared") -> Params:
    params = load_params(ROOT / "params.yaml")
    dataset = params.dataset.model_copy(update={"root": root})
    pretune = params.pretune.model_copy(update={"images": images})
    return params.model_copy(update={"dataset": dataset, "pretune": pretune})


def test_images_lie_apart_from_what_the_pipeline_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data/raw/flowers", "data/prepared/old", "models", "database"):
        Path(name).mkdir(parents=True)
    Path("linked").symlink_to("data")
    for root, words in {
        "data": "holds data/backbone",
        ".": "holds data/backbone",
        str(tmp_path.parent): "holds data/backbone",
        "data/raw/..": "holds data/backbone",
        "linked": "holds data/backbone",
        "data/prepared": "lies in data/prepared",
        "data/prepared/old": "lies in data/prepared",
        "models": "lies in models",
    }.items():
        with pytest.raises(UserError, match=f"dataset.root: the folder .* {words}, which the pipeline"):
            check_inputs(pointing_at(root))
    for root in ("data/raw", "data/raw/flowers", "database", str(tmp_path / "data/raw")):
        check_inputs(pointing_at(root))
        check_inputs(pointing_at(root, images=root))
    with pytest.raises(UserError, match=r"pretune\.images: the folder data holds data/backbone"):
        check_inputs(pointing_at("data/raw", images="data"))


def with_weights(path: str, sha256: str | None = None) -> Params:
    params = load_params(ROOT / "params.yaml")
    fields = {"name": "test_vit", "weights": f"file:{path}", "sha256": sha256}
    backbone = params.backbone.model_copy(update=fields)
    return params.model_copy(update={"image_size": 32, "backbone": backbone, "teachers": {"other": backbone}})


def test_a_checkpoint_that_was_replaced_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_weights(Path("a.safetensors"), "test_vit")
    shutil.copy("a.safetensors", "b.safetensors")
    params = with_weights("a.safetensors")
    check_weights(params)  # no backbone was made yet
    make_backbones(params, BACKBONE)
    check_weights(params)
    checkpoint = load_file("a.safetensors")
    save_file({name: tensor + 1 for name, tensor in checkpoint.items()}, "a.safetensors")
    checksum = hashlib.sha256(Path("a.safetensors").read_bytes()).hexdigest()
    told = f"^backbone.weights: a.safetensors has changed .*; give backbone.sha256 its checksum {checksum}$"
    with pytest.raises(UserError, match=told):
        check_weights(params)
    # What DVC sees, it sees.
    check_weights(with_weights("b.safetensors"))
    check_weights(with_weights("a.safetensors", checksum))
    make_backbones(params, BACKBONE)
    check_weights(params)
    make_backbone(with_weights("b.safetensors").backbone, 32, BACKBONE / "teachers" / "other")
    (BACKBONE / "teachers" / "other" / "card.json").write_text(
        (BACKBONE / "teachers" / "other" / "card.json").read_text().replace("file:b", "file:a")
    )
    with pytest.raises(UserError, match=r"^teachers\.other\.weights: .* give teachers\.other\.sha256"):
        check_weights(params)


def test_a_folder_that_can_have_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "what?").mkdir()
    monkeypatch.chdir(tmp_path / "what?")
    with pytest.raises(UserError, match="question mark"):
        check_tracking()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    check_tracking()
