from pathlib import Path

import pytest

from pipeline.config.params import Params, load_params
from pipeline.config.precheck import check_git, check_inputs, check_work
from stochca.errors import UserError
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
