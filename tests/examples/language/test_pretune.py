from pathlib import Path

import pytest

from examples.language import backbone, prepare, pretune, train
from examples.language.paths import DECODERS, PRETUNED
from examples.language.settings import load_settings
from stochca.errors import UserError
from stochca.language import TOAST
from tests.examples.language.tiny import make_model
from tests.examples.language.workspace import make_workspace, params


def test_decoders_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = params()
    raw["pretune"].update(decoders="own.safetensors", steps=0)
    monkeypatch.chdir(make_workspace(tmp_path, raw))
    with pytest.raises(UserError, match=r"pretune.decoders is own.safetensors, but there is no such file"):
        pretune.main()
    TOAST(make_model(hidden_size=64), plain_start=True).save_decoders("own.safetensors")
    for stage in (backbone, prepare, pretune):
        stage.main()
    assert (PRETUNED / DECODERS).read_bytes() == Path("own.safetensors").read_bytes()
    with pytest.raises(UserError, match="is for a model of width 64 with 2 layers, but"):
        train.train("toast", 0, load_settings())


def test_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raw = params()
    raw["pretune"].update(steps=0)
    monkeypatch.chdir(make_workspace(tmp_path, raw))
    pretune.main()
    assert "TOAST starts with decoders that emit nothing" in capsys.readouterr().out
    assert not (PRETUNED / DECODERS).exists()
