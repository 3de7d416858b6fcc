"""With a real MLflow database and real models, logged and downloaded; nothing is mocked."""

import json
from hashlib import sha256 as hashed
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.commands.export import export_model
from pipeline.commands.predict import predict_images
from pipeline.config.params import Params
from pipeline.registry.model_address import open_model
from pipeline.registry.promote import Contender, note_weights, promote
from pipeline.registry.versions import (
    ROLLED_BACK,
    WEIGHTS,
    find_version,
    load_version,
    registry,
    rollback,
    same_weights,
)
from pipeline.runtime.files import sha256
from stochca.errors import UserError
from tests.pipeline.colour_models import picture, with_promotion
from tests.pipeline.registry.conftest import aliases


def test_rolling_back(params: Params) -> None:
    with pytest.raises(UserError, match=r"'stochca' has no alias 'previous'.*it has no version"):
        rollback("stochca")
    promote(with_promotion(params, "finetune"))
    with pytest.raises(UserError, match=r"has no alias 'previous'; .* --to: its versions are 1"):
        rollback("stochca")
    promote(params)
    assert rollback("stochca").startswith(
        "version 1 of stochca is the champion again, in place of version 2, which is not promoted again"
    )
    assert aliases() == {"champion": "1", "previous": "2"}
    decision = promote(params)  # the nightly run must not undo what a person did
    assert not decision.promoted
    assert "was rolled back; version 1 (finetune, seed 0) stays the champion" in decision.reason
    assert aliases() == {"champion": "1", "previous": "2", "challenger": "2"}
    with pytest.raises(UserError, match="has no version 7; its versions are 1, 2"):
        rollback("stochca", "7")
    with pytest.raises(UserError, match="version 1 of stochca is the champion already"):
        rollback("stochca", "1")
    client = MlflowClient()
    weights = {WEIGHTS: sha256(Path("models/stochca-all-0/model.safetensors"))}
    client.create_model_version("stochca", "file:///nowhere", tags=weights)  # of another run
    client.create_model_version("stochca", "file:///nowhere", tags={WEIGHTS: "others"})
    assert sorted(str(each.version) for each in same_weights(client, "stochca", "3")) == ["2", "3"]
    client.create_model_version("stochca", "file:///nowhere", tags={ROLLED_BACK: "whose files are gone"})
    client.delete_model_version_tag("stochca", "2", WEIGHTS)  # as versions of stochca that knew no such mark
    champion = find_version("models:/stochca@champion")
    assert note_weights(client, Contender(champion, load_version(champion), np.array([])), None) is None
    assert weights.items() <= client.get_model_version("stochca", "2").tags.items()
    assert WEIGHTS not in client.get_model_version("stochca", "5").tags
    rollback("stochca", "3")  # which says as much of version 2
    assert aliases() == {"champion": "3", "previous": "1", "challenger": "2"}
    assert "rolled_back" not in client.get_model_version("stochca", "2").tags
    rollback("stochca", "2")
    assert aliases() == {"champion": "2", "previous": "3"}
    assert "rolled_back" in client.get_model_version("stochca", "3").tags


def test_addresses_of_the_registry(params: Params, tmp_path: Path) -> None:
    promote(with_promotion(params, "finetune"))
    promote(params)
    (tmp_path / "photo.png").write_bytes(picture("blue", "new"))
    for address, colour in (("models:/stochca@champion", "blue"), ("models:/stochca/2", "blue")):
        (prediction,) = predict_images(Path(address), [tmp_path / "photo.png"], 1)
        assert prediction.classes == [colour]
    (prediction,) = predict_images(Path("models:/stochca@previous"), [tmp_path / "photo.png"], 1)
    assert prediction.classes != ["blue"]  # which version 1 forgot
    assert export_model(Path("models:/stochca@champion"), "timm", None).startswith("stochca-2-timm: ")
    assert Path("stochca-2-timm", "config.json").exists()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("models:/nobody/1", "MLflow has no registered model 'nobody' with a version; it has stochca$"),
        ("models:/stochca@king", "no alias 'king'; it has the versions 1 and @champion .version 1.$"),
        ("models:/stochca/9", "no version 9; it has the versions 1 and @champion .version 1.$"),
        ("models:/stochca", "is no address; write models:/NAME@ALIAS or models:/NAME/VERSION"),
        ("models:/o'brien/1", "o'brien"),
    ],
)
def test_an_address_of_nothing_is_one_sentence(address: str, sentence: str, params: Params) -> None:
    promote(params)
    with pytest.raises(UserError, match=sentence) as error:
        open_model(Path(address))
    assert "\n" not in str(error.value)


def test_files_that_are_gone(params: Params) -> None:
    """MLflow downloads nothing then, and does not complain."""
    promote(params)
    artifacts = Path("mlruns").resolve()
    away = artifacts.rename(artifacts.with_name("away"))
    try:
        with pytest.raises(UserError, match=f"^the files of models:/stochca/1 are gone from .*{artifacts}.*"):
            open_model(Path("models:/stochca@champion"))
    finally:
        away.rename(artifacts)
    open_model(Path("models:/stochca@champion"))


def test_what_a_version_needs_is_not_had_by_training_again(params: Params, tmp_path: Path) -> None:
    backbone = {"weights_sha256": "of another"}
    card = {"adapter": {"name": "vpt"}, "backbone": backbone, "weights_sha256": hashed().hexdigest()}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text(json.dumps(card))
    (tmp_path / "model" / "adapter.safetensors").touch()
    client = registry()
    client.create_registered_model("stochca")
    client.create_model_version("stochca", f"file://{tmp_path / 'model'}")
    with pytest.raises(
        UserError, match=r"^models:/stochca/1 is an adapter .* of another, but .* on \(the stage backbone\)$"
    ):
        load_version(find_version("models:/stochca/1"))


def test_asking_for_an_address_makes_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"there is no mlflow\.db here; set MLFLOW_TRACKING_URI"):
        open_model(Path("models:/stochca@champion"))
    assert list(tmp_path.iterdir()) == []
