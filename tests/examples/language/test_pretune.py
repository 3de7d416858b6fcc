from pathlib import Path

import pytest

from examples.language import backbone, prepare, pretune, train
from examples.language.paths import DECODERS, PRETUNED
from examples.language.settings import check_taken, load_settings
from stochca.errors import UserError
from stochca.language import TOAST
from tests.examples.language.tiny import make_model, save_backbone
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
    settings = load_settings()
    with pytest.raises(UserError, match="is for a model of width 64 with 2 layers, but"):
        train.train("toast", 0, settings)
    check_taken(settings)
    TOAST(make_model(hidden_size=64, seed=1), plain_start=True).save_decoders("own.safetensors")
    with pytest.raises(
        UserError, match=r"pretune\.decoders: own\.safetensors has changed .*dvc\.yaml:pretune$"
    ):
        check_taken(settings)
    (Path("tiny") / "README.md").write_text("which no stage reads")
    check_taken(
        settings.model_copy(update={"pretune": settings.pretune.model_copy(update={"decoders": None})})
    )
    save_backbone(Path("tiny"), seed=1)
    with pytest.raises(UserError, match=r"backbone\.model: folder:tiny has changed .*dvc\.yaml:backbone$"):
        check_taken(settings)


def test_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raw = params()
    raw["pretune"].update(steps=0)
    monkeypatch.chdir(make_workspace(tmp_path, raw))
    pretune.main()
    assert "TOAST starts with decoders that emit nothing" in capsys.readouterr().out
    assert not (PRETUNED / DECODERS).exists()
