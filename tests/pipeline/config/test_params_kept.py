from pathlib import Path

import pytest
import yaml

from pipeline.config.params import Params, load_params, settings_kept
from stochca.errors import UserError
from tests.imports import ROOT


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    return load_params()


def edit(section: str, key: str, value: object) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text())
    raw[section][key] = value
    Path("params.yaml").write_text(yaml.safe_dump(raw))


def test_settings_that_a_stage_works_with_must_stand_when_it_ends(params: Params) -> None:
    with (
        pytest.raises(UserError, match=r"changed while the stage prepare was under way.*run dvc repro again"),
        settings_kept(params, lambda p: p.dataset, "the stage prepare"),
    ):
        edit("dataset", "split_seed", 5)


def test_a_file_that_cannot_be_read_any_more_is_a_change(params: Params) -> None:
    with pytest.raises(UserError, match="was changed"), settings_kept(params, lambda p: p.dataset, "it"):
        Path("params.yaml").write_text("{")


def test_other_settings_may_change_meanwhile(params: Params) -> None:
    with settings_kept(params, lambda p: p.dataset, "the stage prepare"):
        edit("training", "epochs", 7)


def test_files_that_it_works_with_must_stand_too(params: Params) -> None:
    with (
        pytest.raises(UserError, match=r"^photo.png was changed while the stage prepare was under way"),
        settings_kept(params, lambda p: p.dataset, "the stage prepare", Path("photo.png")),
    ):
        Path("photo.png").touch()


def test_what_the_stage_raises_comes_first(params: Params) -> None:
    def fails() -> None:
        with settings_kept(params, lambda p: p.dataset, "it"):
            edit("dataset", "split_seed", 5)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
