"""Trained models that are adapters: saved small, loaded onto their backbone alone, exported, served."""

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import stochca
from pipeline.analysis.analysis import analyse_model
from pipeline.backbone import make_backbone
from pipeline.commands.export import export_model
from pipeline.commands.predict import predict_images
from pipeline.config.params import Backbone, load_params
from pipeline.images.image_files import ImageFiles
from pipeline.runtime.files import sha256, write_json
from pipeline.tracking.run_folder import RunFolder
from pipeline.training.inputs import decoders_sha256
from pipeline.training.outcome import beside
from pipeline.training.saved_model import NotAtHand, load_trained, save_trained
from stochca.adapters.adapted import AdaptedModel
from stochca.backbones.card import BackboneCard
from stochca.backbones.loading import load_backbone
from stochca.config import Method, Toast, Vpt
from stochca.errors import UserError
from tests.extensions import forgotten
from tests.imports import ROOT
from tests.pipeline.small_model import CLASSES, SIZE, picture

ADAPTERS: dict[str, Callable[[Any], AdaptedModel]] = {
    "vpt": lambda backbone: stochca.VPT(backbone, tokens=2, deep=False),
    "toast": stochca.TOAST,
}
DECODERS = "data/pretuned/decoders.safetensors"


def write_backbone(seed: int = 0, pool: Literal["avg"] | None = None) -> BackboneCard:
    torch.manual_seed(seed)
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), "weights.safetensors")
    source = Backbone(name="test_vit", weights="file:weights.safetensors", global_pool=pool)
    return make_backbone(source, SIZE, Path("data/backbone"))


def write_model(name: str, card: BackboneCard) -> tuple[Path, AdaptedModel]:
    model = ADAPTERS[name](load_backbone(Path("data/backbone"), num_classes=len(CLASSES)))
    with torch.no_grad():
        torch.nn.init.normal_(model.backbone.head.weight, std=0.5)
    folder = Path("models", name)
    folder.mkdir(parents=True)
    save_trained(folder, model, card, name=name, method=name, classes=CLASSES, mlflow_run_id="none")
    return folder, model.eval()


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BackboneCard:
    monkeypatch.chdir(tmp_path)
    return write_backbone()


@pytest.mark.parametrize("name", ADAPTERS)
def test_saved_small_and_loaded_again(name: str, card: BackboneCard) -> None:
    folder, model = write_model(name, card)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter.safetensors", "model.json"]
    saved = load_file(folder / "adapter.safetensors")
    assert {key for key in saved if key.startswith("backbone.")} == {
        "backbone.head.weight",
        "backbone.head.bias",
    }
    loaded = load_trained(folder)
    images = torch.stack([loaded.preprocessing.evaluation()(picture(40, 40, seed)) for seed in range(2)])
    with torch.inference_mode():
        assert torch.equal(loaded.model(images), model(images))
    picture(50, 40).save("photo.png")
    (prediction,) = predict_images(folder, [Path("photo.png")], top=1)
    assert prediction.classes[0] in CLASSES
    with pytest.raises(UserError, match=f"{name} is a backbone with {name.upper()} around it, whose blocks"):
        list(analyse_model(load_trained(folder), Path("reports/analysis")))


def test_another_backbone_is_refused(card: BackboneCard) -> None:
    folder, _ = write_model("vpt", card)
    other = write_backbone(seed=1)
    with pytest.raises(UserError) as refused:
        load_trained(folder)
    assert card.weights_sha256 in str(refused.value)
    assert other.weights_sha256 in str(refused.value)
    Path("data/backbone/card.json").unlink()
    with pytest.raises(UserError, match=r"is an adapter to a backbone: .*run the stage backbone"):
        load_trained(folder)


def test_the_same_weights_pooled_otherwise_are_another_backbone(card: BackboneCard) -> None:
    folder, _ = write_model("vpt", card)
    assert write_backbone(pool="avg").weights_sha256 == card.weights_sha256
    with pytest.raises(UserError, match=r"pools with .*'token'.*, but data/backbone pools with .*'avg'"):
        load_trained(folder)


def test_a_damaged_adapter_is_refused(card: BackboneCard) -> None:
    folder, _ = write_model("vpt", card)
    (folder / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"is damaged: the sha256 of adapter.safetensors is"):
        load_trained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vpt", "toast"])
def test_exports_to_onnx_and_says_why_not_to_timm(name: str, card: BackboneCard) -> None:
    folder, model = write_model(name, card)
    with pytest.raises(
        UserError, match=f"{name} is a backbone with {model.title} around it, which timm can't"
    ):
        export_model(folder, "timm", None)
    sentence = export_model(folder, "onnx", None)  # which compares the logits
    assert "logits differ from the original by at most" in sentence
    assert Path("models", f"{name}.onnx").exists()


def write_decoders(backbone_sha256: str) -> Path:
    path = Path(DECODERS)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"decoders")
    write_json(
        path.parent / "card.json", {"decoders_sha256": sha256(path), "backbone_sha256": backbone_sha256}
    )
    return path


def test_decoders_are_for_one_backbone(card: BackboneCard) -> None:
    method = Method(adapter=Toast(decoders=DECODERS))
    for other in (Method(), Method(adapter=Vpt()), Method(adapter=Toast())):
        assert decoders_sha256(other, card) is None
    with pytest.raises(UserError, match=r"card.json is missing; pre-tune decoders first: dvc repro pretune"):
        decoders_sha256(method, card)
    path = write_decoders(card.weights_sha256)
    assert decoders_sha256(method, card) == sha256(path)
    with pytest.raises(
        UserError, match=f"sha256 {card.weights_sha256}, but that of data/backbone is {'0' * 64}"
    ):
        decoders_sha256(method, dataclasses.replace(card, weights_sha256="0" * 64))
    path.write_bytes(b"others")
    with pytest.raises(UserError, match=r"is not what card.json describes"):
        decoders_sha256(method, card)


def test_images_of_any_folder(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    picture(64, 48).save(tmp_path / "deeper" / "a.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "b.png")
    images = ImageFiles(tmp_path, short_side=24, max_megapixels=1)
    assert [image.size for image, _ in (images[0], images[1])] == [(8, 8), (32, 24)]
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"b.png: is no image that Pillow reads; mend"):
        images[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there is no image in"):
        ImageFiles(tmp_path / "empty", short_side=24, max_megapixels=1)


def edited_params(tmp_path: Path, edit: Callable[[dict[str, Any]], Any]) -> Any:
    import yaml

    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    edit(raw)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(raw))
    return load_params(tmp_path / "params.yaml")


def test_methods_with_tuned_decoders_wait_for_them(tmp_path: Path) -> None:
    def run_toast(raw: dict[str, Any], **protocol: Any) -> None:
        raw["protocol"]["baseline"].append("toast")
        raw["protocol"].update(protocol)

    with pytest.raises(
        UserError, match=f"must wait for the stage pretune; set protocol.toast_after: {DECODERS}"
    ):
        edited_params(tmp_path, run_toast)
    params = edited_params(tmp_path, lambda raw: run_toast(raw, toast_after=DECODERS))
    assert params.methods["toast"].adapter == Toast(decoders=DECODERS)

    def elsewhere(raw: dict[str, Any]) -> None:
        run_toast(raw)
        raw["methods"]["toast"]["adapter"]["decoders"] = "mine"

    with pytest.raises(
        UserError, match=r"methods.toast.adapter.decoders must be data/pretuned.* found 'mine'"
    ):
        edited_params(tmp_path, elsewhere)

    def random_start(raw: dict[str, Any]) -> None:
        run_toast(raw)
        raw["methods"]["toast"]["adapter"] = "toast"

    assert edited_params(tmp_path, random_start).methods["toast"].adapter == Toast()


def set_train(raw: dict[str, Any], train: Any) -> None:
    raw["methods"]["lora"]["adapter"] = train


def test_options_are_checked_by_their_path(tmp_path: Path) -> None:
    for train, sentence in (
        ({"name": "lora", "rank": 0}, "methods.lora.adapter.rank must be 1 or more, found 0"),
        ({"name": "lora", "ranks": 4}, "unknown key 'methods.lora.adapter.ranks'; did you mean 'rank'"),
        ({"name": "vpt", "tokens": 0}, "methods.lora.adapter.tokens must be 1 or more, found 0"),
        (
            "lorra",
            "methods.lora.adapter must be one of all, head, lora, toast, toast_lite, vpt, found 'lorra'",
        ),
    ):
        with pytest.raises(UserError, match=sentence):
            edited_params(tmp_path, partial(set_train, train=train))


def test_what_is_served_brings_its_backbone(card: BackboneCard, tmp_path: Path) -> None:
    """The served code itself, on what the outbox would upload."""
    from pipeline.tracking.served_model import ImageClassifier

    folder, model = write_model("vpt", card)
    copied = tmp_path / "elsewhere" / "vpt"
    shutil.copytree(folder, copied)
    shutil.copytree("data/backbone", copied / "backbone")
    shutil.rmtree("data")
    classifier = ImageClassifier()
    classifier.load_context(SimpleNamespace(artifacts={"model": str(copied)}))
    images = np.stack([np.asarray(picture(40, 40, seed)) for seed in range(2)])
    probabilities = classifier.predict(None, images)
    loaded = load_trained(copied)  # as from the registry
    inputs = torch.stack([loaded.preprocessing.evaluation()(Image.fromarray(pixels)) for pixels in images])
    with torch.inference_mode():
        np.testing.assert_allclose(probabilities, loaded.model(inputs).softmax(dim=1).numpy(), atol=1e-6)
        assert torch.equal(loaded.model(inputs), model(inputs))
    assert json.loads((copied / "model.json").read_text())["adapter"] == {
        "name": "vpt",
        "tokens": 2,
        "deep": False,
    }


OWN_PROMPTS = """
from dataclasses import dataclass
from stochca import VPT
from stochca.extending import Adapter, Around, register

class OwnVPT(VPT):
    title = "own prompts"

@dataclass(frozen=True)
class OwnPrompts(Adapter):
    name: str = "own_prompts"

class OwnAround(Around):
    model_class = OwnVPT

register(OwnPrompts, OwnAround)
"""


def test_an_adapter_of_an_extension_is_loaded_and_served(
    card: BackboneCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In what is another process to the registry each time."""
    from pipeline.tracking.served_model import ImageClassifier

    Path("extensions").mkdir()
    Path("extensions/own_prompts.py").write_text(OWN_PROMPTS)
    with forgotten():
        edited_params(tmp_path, lambda raw: raw.update(extensions=["own_prompts"]))
        monkeypatch.setitem(ADAPTERS, "own", sys.modules["extensions.own_prompts"].OwnVPT)
        folder, model = write_model("own", card)
        shown = np.asarray(picture(40, 40, 0))[None]
        shipped = beside(model)
    with forgotten():
        loaded = load_trained(folder)
        images = loaded.preprocessing.evaluation()(Image.fromarray(shown[0]))[None]
        with torch.inference_mode():
            expected = model(images)
            assert torch.equal(loaded.model(images), expected)
    run = RunFolder(tmp_path / "run")
    run.add_model(folder, shown, shipped)
    monkeypatch.chdir(tmp_path / "run")  # where nothing else is
    with forgotten():
        classifier = ImageClassifier()
        classifier.load_context(SimpleNamespace(artifacts={"model": str(tmp_path / "run/model/own")}))
        probabilities = classifier.predict(None, shown)
    np.testing.assert_allclose(probabilities, expected.softmax(dim=1).numpy(), atol=1e-6)
    with pytest.raises(NotAtHand, match=r"'own_prompts' of an extension: params.yaml is missing"):
        load_trained(Path("model/own"))
    monkeypatch.chdir(tmp_path)
    remarks = OWN_PROMPTS.replace('"own prompts"', "'own prompts'  # a remark")
    Path("extensions/own_prompts.py").write_text(f'"""What it is."""{remarks}')
    with forgotten():
        load_trained(folder)
    digests = json.loads((folder / "model.json").read_text())["adapter_code_sha256"]
    assert hashlib.sha256(OWN_PROMPTS.encode()).hexdigest() in digests  # whatever Python writes the other
    changed = OWN_PROMPTS.replace("own prompts", "prompts of my own")
    Path("extensions/own_prompts.py").write_text(changed)
    for place, words in ((folder, "or train the"), (Path("run/model/own"), r"back, which is in extensions/")):
        told = rf"'own_prompts' than is in extensions/own_prompts\.py now, where .*{words}"
        with forgotten(), pytest.raises(NotAtHand, match=told):
            load_trained(place)
    edited_params(tmp_path, lambda raw: None)
    with pytest.raises(NotAtHand, match=r"the model own has the adapter 'own_prompts' .* does not name; run"):
        load_trained(folder)
