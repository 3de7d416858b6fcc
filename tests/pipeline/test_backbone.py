"""The stage `backbone`: local checkpoints, the hub's cache, and every bad input in one sentence."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import pipeline.backbone
import stochca
from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone
from pipeline.runtime.files import sha256
from pipeline.training.saved_model import load_trained, save_trained
from stochca.backbones.loading import load_backbone
from stochca.compute.checkpoint import CHECKPOINT, save_checkpoint
from stochca.errors import UserError

IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def pretrained() -> VisionTransformer:
    torch.manual_seed(0)
    return timm.create_model("test_vit").eval()


def from_file(path: Path, name: str = "test_vit", **settings: Any) -> Backbone:
    return Backbone(name=name, weights=f"file:{path}", **settings)


ONE = torch.ones(1)


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def save_as_safetensors(weights: dict[str, Tensor], path: Path) -> None:
    save_file(weights, path)


def save_with(wrap: Callable[[dict[str, Tensor]], Any]) -> Callable[[dict[str, Tensor], Path], None]:
    return lambda weights, path: torch.save(wrap(weights), path)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("x.safetensors", save_as_safetensors),
        ("x.pth", save_with(lambda weights: weights)),
        ("x.pt", save_with(lambda weights: {"model": weights, "epoch": 3})),
        (
            "x.pth.tar",
            save_with(lambda weights: {"state_dict": {f"module.{k}": v for k, v in weights.items()}}),
        ),
        (
            "x.bin",
            save_with(
                lambda weights: {
                    "state_dict": {name: tensor * 0 for name, tensor in weights.items()},
                    "state_dict_ema": weights,
                }
            ),
        ),
    ],
)
def test_local_checkpoints_arrive_unchanged(
    tmp_path: Path, pretrained: VisionTransformer, name: str, save: Callable[[dict[str, Tensor], Path], None]
) -> None:
    path = tmp_path / name
    save(pretrained.state_dict(), path)
    card = make_backbone(from_file(path, sha256=sha256(path).upper()), 160, tmp_path / "backbone")
    written = load_file(tmp_path / "backbone/model.safetensors")
    assert written.keys() == pretrained.state_dict().keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in pretrained.state_dict().items())
    body = sum(tensor.numel() for key, tensor in written.items() if not key.startswith("head."))
    assert card.to_dict() == {
        "architecture": "test_vit",
        "source": f"file:{path}",
        "source_sha256": sha256(path),
        "weights_sha256": sha256(tmp_path / "backbone/model.safetensors"),
        "license": None,
        "parameters": body,
        "blocks": 6,
        "image_size": 160,
        "patch_size": 16,
        "global_pool": "token",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "source_classes": 1000,
        "resize": None,
    }
    assert json.loads((tmp_path / "backbone/card.json").read_text()) == card.to_dict()


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("lightning.ckpt", lambda weights: {"state_dict": prefixed("model.", weights), "loops": {"a": {}}}),
        ("stochca.pt", lambda weights: {"model": prefixed("student.", weights), "epoch": 3}),
        ("compiled.pt", lambda weights: prefixed("_orig_mod.module.", weights)),
        ("task.bin", lambda weights: {"state_dict": prefixed("model.student._orig_mod.", weights)}),
        ("nested.pth", lambda weights: {"student": weights, "optimizer": {"state": {0: {"exp_avg": ONE}}}}),
        ("with_a_loss.pth", lambda weights: {**prefixed("backbone.", weights), "loss.centre": ONE}),
    ],
)
def test_a_prefix_is_taken_off(
    tmp_path: Path,
    pretrained: VisionTransformer,
    capsys: pytest.CaptureFixture[str],
    name: str,
    wrap: Callable[[dict[str, Tensor]], Any],
) -> None:
    torch.save(wrap(pretrained.state_dict()), tmp_path / name)
    make_backbone(from_file(tmp_path / name), 160, tmp_path / "backbone")
    written = load_file(tmp_path / "backbone/model.safetensors")
    assert written.keys() == pretrained.state_dict().keys()
    assert all(torch.equal(written[key], tensor) for key, tensor in pretrained.state_dict().items())
    left_out = "1 tensors that stand beside the model were left out" in capsys.readouterr().out
    assert left_out == (name in ("nested.pth", "with_a_loss.pth"))


def test_written_folder_is_what_the_library_loads(tmp_path: Path, pretrained: VisionTransformer) -> None:
    save_file(pretrained.state_dict(), tmp_path / "x.safetensors")
    make_backbone(from_file(tmp_path / "x.safetensors", global_pool="avg"), 160, tmp_path / "backbone")
    features = load_backbone(tmp_path / "backbone", num_classes=0).eval()(IMAGES)
    torch.testing.assert_close(features, pretrained.forward_features(IMAGES)[:, 1:].mean(dim=1))


def test_twice_the_same_bytes(tmp_path: Path, pretrained: VisionTransformer) -> None:
    save_file(pretrained.state_dict(), tmp_path / "x.safetensors")
    for name in ("first", "second"):
        make_backbone(from_file(tmp_path / "x.safetensors"), 64, tmp_path / name)
    for name in ("model.safetensors", "card.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_hierarchical_backbone_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    """MaxViT: windows, several stages, a classifier of another name, and no norm to move."""
    torch.manual_seed(0)
    source = timm.create_model("test_maxvit")
    save_file(source.state_dict(), tmp_path / "x.safetensors")
    card = make_backbone(from_file(tmp_path / "x.safetensors", "test_maxvit"), 64, tmp_path / "backbone")
    assert (card.blocks, card.patch_size, card.global_pool, card.source_classes) == (4, 32, "avg", 1000)
    student = load_backbone(tmp_path / "backbone", num_classes=3)
    assert card.parameters == sum(p.numel() for p in student.parameters()) - 3 * (128 + 1)
    model = stochca.StochCA(student).train()
    images = torch.randn(2, 3, 64, 64)
    model(images, cross_blocks=[1, 3]).sum().backward()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.sub_(0.01 * parameter.grad)
    (tmp_path / "model").mkdir()
    save_trained(
        tmp_path / "model",
        student,
        card,
        name="m",
        method="stochca",
        classes=["a", "b", "c"],
        mlflow_run_id="none",
    )
    assert torch.equal(load_trained(tmp_path / "model").model(images), student.eval()(images))


# Bad input


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('this pickle ran')",))


def test_bad_files_are_refused_and_the_old_folder_stays(
    tmp_path: Path, pretrained: VisionTransformer
) -> None:
    good = tmp_path / "good.safetensors"
    save_file(pretrained.state_dict(), good)
    target = tmp_path / "backbone"
    make_backbone(from_file(good), 160, target)
    before = sha256(target / "card.json")

    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Exploit(), protocol=2))
    torch.save({"state_dict": pretrained.state_dict(), "extra": Exploit()}, tmp_path / "hidden_code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"weights": [pretrained.head.weight], "epoch": 3}, tmp_path / "unknown.pth")
    save_checkpoint(tmp_path / "run", {"student": pretrained.state_dict(), "step": 3})
    (tmp_path / "run" / CHECKPOINT).rename(tmp_path / "run.safetensors")
    (tmp_path / "run").rmdir()
    save_file({**pretrained.state_dict(), "cls_token": torch.zeros(1, 1, 63)}, tmp_path / "shape.safetensors")
    (tmp_path / "notes.txt").write_text("x")
    expected = {
        "missing.pth": "there is no such file; give the path of one of .safetensors, .pth",
        "notes.txt": "is none of .safetensors, .pth",
        "cut.safetensors": "can't be read as a checkpoint",
        "text.pth": "is no checkpoint of tensors",
        "empty.pth": "can't be read as a checkpoint",
        "code.pth": "unpickling them can run code",
        "hidden_code.pth": "unpickling them can run code",
        "list.pth": "holds no state dict",
        "unknown.pth": "its keys are: weights, epoch",
        "run.safetensors": "is what an interrupted run continues from, not a model; give the model.safe",
        "shape.safetensors": "cls_token is 1x1x63, not 1x1x64",
    }
    for name, words in expected.items():
        with pytest.raises(UserError) as error:
            make_backbone(from_file(tmp_path / name), 160, target)
        assert words in str(error.value), name
        assert name in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=rf"has the sha256 {sha256(good)}, but backbone.sha256 is 00"):
        make_backbone(from_file(good, sha256="00"), 160, target)
    assert sha256(target / "card.json") == before
    assert {path.name for path in tmp_path.iterdir()} == {*expected, "good.safetensors", "backbone"} - {
        "missing.pth"
    }


@pytest.mark.parametrize(
    ("settings", "image_size", "words"),
    [
        ({"name": "test_vitt"}, 160, "did you mean test_vit"),
        ({"name": "resnet18"}, 160, "ResNet"),
        ({"name": "test_vit"}, 70, "nearest: 64 and 80"),
        ({"name": "vit_medium_patch16_gap_256", "global_pool": "token"}, 256, "global_pool 'token'"),
    ],
)
def test_what_can_be_known_is_said_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict[str, Any], image_size: int, words: str
) -> None:
    def fetch(_: Backbone) -> None:
        raise AssertionError("fetched too early")

    monkeypatch.setattr(pipeline.backbone, "fetch_weights", fetch)
    with pytest.raises(UserError, match=words):
        make_backbone(Backbone(weights="hub", **settings), image_size, tmp_path / "backbone")
    assert not list(tmp_path.iterdir())


# The hub


def test_hub_weights_come_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretrained: VisionTransformer
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub/models--timm--test_vit.r160_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(pretrained.state_dict(), repository / "snapshots" / ("0" * 40) / "model.safetensors")
    card = make_backbone(Backbone(name="test_vit", weights="hub"), 64, tmp_path / "backbone")
    written = load_file(tmp_path / "backbone/model.safetensors")
    assert torch.equal(written["blocks.3.mlp.fc1.weight"], pretrained.state_dict()["blocks.3.mlp.fc1.weight"])
    assert written["pos_embed"].shape == (1, 17, 64)
    assert (card.source, card.source_sha256) == ("hub:timm/test_vit.r160_in1k", None)
    assert (card.license, card.source_classes) == ("apache-2.0", 1000)


def test_hub_refuses_what_it_can_not_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"backbone\.sha256 pins a wheel or a file, .* set .* to null"):
        make_backbone(Backbone(name="test_vit", weights="hub", sha256="0" * 64), 160, tmp_path / "backbone")
    with pytest.raises(UserError, match="no pretrained weights for test_vit4"):
        make_backbone(Backbone(name="test_vit4", weights="hub"), 160, tmp_path / "backbone")


@pytest.mark.slow
def test_without_network_the_stage_says_what_it_wanted(tmp_path: Path) -> None:
    """The real command, in a folder of its own."""
    root = Path(__file__).parents[2]
    text = (root / "params.yaml").read_text()
    lines = []
    for line in text.splitlines():
        for key, value in (("  name: vit_", "test_vit"), ("  weights: ", "hub"), ("  sha256: ", "null")):
            if line.startswith(key):
                line = f"{key.split(':')[0]}: {value}"
        lines.append("image_size: 160" if line.startswith("image_size:") else line)
    (tmp_path / "params.yaml").write_text("\n".join(lines))
    finished = subprocess.run(
        [sys.executable, "-m", "pipeline.backbone"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    (sentence,) = finished.stderr.splitlines()
    assert sentence.startswith(
        "error: the weights of test_vit can't be fetched from https://huggingface.co/timm/"
    )
    assert "set backbone.weights to file:PATH" in sentence
    assert not (tmp_path / "data/backbone").exists()
