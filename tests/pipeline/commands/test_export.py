import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx.reference import ReferenceEvaluator
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config

from pipeline.commands import export
from pipeline.commands.export import export_model
from pipeline.runtime.files import write_json
from pipeline.training.saved_model import load_trained
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from tests.pipeline.small_model import CLASSES, MEAN, SIZE, STD, picture, save_small_model
from tests.stochca.timm_models.families.cases import CASES, IMAGE_SIZE, images


class TestImages:
    """Stands for the test split of data/prepared."""

    __test__ = False

    def __init__(self, number: int) -> None:
        self.number = number
        self.taken: list[int] = []

    def images(self, split: str) -> "TestImages":
        assert split == "test"
        return self

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.taken.append(index)
        return picture(SIZE, SIZE, index), 0


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> TestImages:
    images = TestImages(40)
    monkeypatch.setattr(export, "load_prepared", lambda: images)
    return images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "stochca+lp_ft-all-0"
    save_small_model(folder)
    return folder


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def logits_of(folder: Path, images: torch.Tensor) -> np.ndarray:
    """From a model that is made here, by hand."""
    model = timm.create_model("test_vit", img_size=SIZE, num_classes=len(CLASSES))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        return model.eval()(images).numpy()


def with_levels(folder: Path) -> dict[str, list[int]]:
    """The model has learned from images of 12 bits."""
    levels = {"whole numbers": [0, 4095]}
    card = json.loads((folder / "model.json").read_text())
    write_json(folder / "model.json", {**card, "levels": levels})
    return levels


@pytest.mark.slow
def test_onnx(folder: Path, tmp_path: Path) -> None:
    levels = with_levels(folder)
    before = everything(folder)
    sentence = export_model(folder, "onnx", None)
    path = folder.with_name("stochca+lp_ft-all-0.onnx")
    assert sentence.startswith(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB; logits differ from the original "
    )
    assert " on 16 test images, computed by " in sentence
    assert everything(folder) == before  # DVC watches the model's folder
    assert names(folder.parent) == [folder.name, path.name]

    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    properties = {each.key: json.loads(each.value) for each in graph.metadata_props}
    assert properties == {
        "class_names": CLASSES,
        "image_size": SIZE,
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "levels": levels,
    }
    assert b"site-packages" not in path.read_bytes()  # nothing of the machine it was made on
    (images,), (logits,) = graph.graph.input, graph.graph.output
    assert (images.name, logits.name) == ("images", "logits")
    sizes = [(each.dim_param, each.dim_value) for each in images.type.tensor_type.shape.dim]
    assert sizes == [("batch", 0), ("", 3), ("", SIZE), ("", SIZE)]
    run = ReferenceEvaluator(graph)
    for size in (1, 2, 5):
        inputs = torch.randn(size, 3, SIZE, SIZE)
        (output,) = run.run(None, {"images": inputs.numpy()})
        np.testing.assert_allclose(output, logits_of(folder, inputs), atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "global_pool"),
    [("test_vit", None), ("test_vit", "avg"), ("test_vit2", "max"), ("test_vit3", None)],
)
def test_timm(tmp_path: Path, architecture: str, global_pool: str | None) -> None:
    folder = tmp_path / "models" / "a"
    original = save_small_model(folder, architecture, global_pool=global_pool, interpolation="bilinear")
    before = everything(folder)
    sentence = export_model(folder, "timm", None)
    written = tmp_path / "models" / "a-timm"
    assert everything(folder) == before
    assert sentence.startswith(f"{written}: ")
    assert " on 16 test images; load it with " in sentence
    assert f'timm.create_model("local-dir:{written}", pretrained=True)' in sentence
    assert sentence.endswith(f"share it with: hf upload USER/NAME {written}")
    assert names(written) == ["README.md", "config.json", "model.safetensors"]
    assert names(folder.parent) == ["a", "a-timm"]

    loaded = timm.create_model(f"local-dir:{written}", pretrained=True).eval()
    images = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), original(images))
    assert loaded.pretrained_cfg["label_names"] == CLASSES
    config = resolve_data_config({}, model=loaded)
    assert {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()} == {
        "input_size": (3, SIZE, SIZE),
        "interpolation": "bilinear",
        "mean": MEAN,
        "std": STD,
        "crop_pct": 1.0,
        "crop_mode": "center",
    }
    image = picture(61, 40)
    expected = load_trained(folder).preprocessing.evaluation()(image)
    torch.testing.assert_close(create_transform(**config)(image), expected)
    # And it can be fine-tuned further, for other classes.
    assert timm.create_model(f"local-dir:{written}", pretrained=True, num_classes=7)(images).shape == (3, 7)


@pytest.mark.parametrize("to", ["timm", pytest.param("onnx", marks=pytest.mark.slow)])
def test_what_differs_is_not_kept(
    folder: Path, tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(folder, to, None)
    before = everything(tmp_path)

    def changed(write: Callable[..., None]) -> Callable[..., None]:
        def wrapper(trained: Any, *rest: object, **options: object) -> None:
            model = getattr(trained, "model", trained)
            with torch.no_grad():
                model.head.bias[1] += 0.01
            write(trained, *rest, **options)
            with torch.no_grad():
                model.head.bias[1] -= 0.01

        return wrapper

    monkeypatch.setattr(export, "_write_graph", changed(export._write_graph))
    monkeypatch.setattr(timm.models, "save_for_hf", changed(timm.models.save_for_hf))
    with pytest.raises(UserError, match=r"differ from the original's by 1\.0e-02, more than 1e-03"):
        export_model(folder, to, None)
    assert everything(tmp_path) == before  # the earlier export stays


@pytest.mark.parametrize("logits", [torch.nan, torch.inf])
def test_logits_that_are_no_numbers_are_not_kept(folder: Path, logits: float) -> None:
    images = [picture(SIZE, SIZE)] * 4
    with pytest.raises(UserError, match=r"differ from the original's by (nan|inf)"):
        export.compare(
            load_trained(folder), lambda batch: torch.full((len(batch), len(CLASSES)), logits), images
        )


def test_compare_looks_at_batches_of_one_and_three_and_all(folder: Path) -> None:
    trained = load_trained(folder)
    transform = trained.preprocessing.evaluation()
    images = [picture(SIZE, SIZE, seed) for seed in range(5)]
    sizes = []

    def exported(batch: Sequence[Image.Image]) -> torch.Tensor:
        sizes.append(len(batch))
        with torch.no_grad():
            exact = trained.model(torch.stack([transform(image) for image in batch]))
        return exact + (5e-4 if len(batch) == 3 else 0)

    assert export.compare(trained, exported, images) == pytest.approx(5e-4, rel=0.01)
    assert sizes == [1, 3, 16]


def test_images_come_from_all_over_the_test_split(prepared: TestImages) -> None:
    images, described = export.sample_images(SIZE)
    assert (len(images), described) == (16, "16 test images")
    assert (min(prepared.taken), max(prepared.taken), len(set(prepared.taken))) == (0, 39, 16)
    prepared.number = 2
    images, described = export.sample_images(SIZE)
    assert (len(images), described) == (2, "2 test images")


def test_noise_is_used_and_told_where_there_are_no_images(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert "on 16 images of noise (data/prepared/manifest.json is missing; " in export_model(
        folder, "timm", None
    )


def test_outputs_that_would_harm_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    before = everything(tmp_path)
    refused: list[tuple[str, Path, str]] = [
        ("timm", mine, "mine exists and is no earlier export"),
        ("timm", mine / "thesis.txt", r"thesis\.txt exists and is no earlier export"),
        ("timm", folder, "lies in the model's own folder"),
        ("timm", folder / "deeper" / "export", "lies in the model's own folder"),
        ("onnx", folder / "model.onnx", "lies in the model's own folder"),
        ("onnx", mine, "ends with .onnx"),
        ("onnx", mine / "thesis.txt", "ends with .onnx"),
        ("onnx", mine / "thesis.txt" / "a.onnx", r"a\.onnx can't be written: "),
    ]
    monkeypatch.setattr(export, "_write_graph", lambda *_: pytest.fail("work was done before the refusal"))
    for to, output, message in refused:
        with pytest.raises(UserError, match=message):
            export_model(folder, to, output)
    assert everything(tmp_path) == before


def test_a_model_as_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    export_model(Path(), "timm", None)
    assert (folder.parent / f"{folder.name}-timm" / "config.json").exists()


def test_a_model_too_large_for_onnx(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "ONNX_BYTES", 1_000_000)
    with pytest.raises(UserError, match="larger than the 2 GB"):
        export_model(folder, "onnx", tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_models_that_cannot_be_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *words: str) -> None:
        with pytest.raises(UserError) as error:
            export_model(path, "timm", None)
        message = str(error.value)
        assert "\n" not in message
        for word in (str(path), *words):
            assert word in message

    card, weights = folder / "model.json", folder / "model.safetensors"
    content, tensors, values = weights.read_bytes(), load_file(weights), json.loads(card.read_text())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    refused(tmp_path / "gone", "holds no trained model", "model.json", "dvc repro")
    refused(weights, "holds no trained model")
    monkeypatch.chdir(tmp_path)
    refused(tmp_path / "gone", "trained models are models/stochca+lp_ft-all-0")

    weights.write_bytes(content[:-100] + bytes(100))
    refused(folder, "is damaged", "sha256", "dvc checkout")
    weights.write_bytes(content)
    for damaged in ("", "{", "[]", "null", '{"architecture": "test_vit"}'):
        card.write_text(damaged)
        refused(folder, "is damaged")
    card.write_bytes(b"\xff\xfe\x00")
    refused(folder, "is damaged")
    for key, value, word in [
        ("architecture", "no_vit", "no_vit"),
        ("classes", CLASSES[:2], "head.weight"),
        ("image_size", "large", "damaged"),
        ("options", {}, "model.json has the options {}, where {'global_pool'"),
        ("interpolation", "magic", "magic"),
        ("mean", None, "damaged"),
    ]:
        write_json(card, {**values, key: value})
        refused(folder, "is damaged", word)

    del tensors["head.bias"]
    save_file(tensors, weights)
    write_json(card, {**values, "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()})
    refused(folder, "is damaged", "head.bias")
    weights.unlink()
    refused(folder, "holds no trained model", "model.safetensors")


# The others are graphs as well; all together take minutes.
QUICK = {"coatnet"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in CASES]
)
def test_families_become_graphs_for_any_batch_size(name: str, tmp_path: Path) -> None:
    model = CASES[name].model()
    preprocessing = Preprocessing(IMAGE_SIZE, MEAN, STD)
    trained: Any = SimpleNamespace(model=model, preprocessing=preprocessing, classes=CLASSES, levels=None)
    export._write_graph(trained, tmp_path / "model.onnx")
    graph = ReferenceEvaluator(str(tmp_path / "model.onnx"))
    for size in (1, 3, 16):
        batch = images(size)
        (logits,) = graph.run(["logits"], {"images": batch.numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(torch.from_numpy(logits), model(batch), atol=1e-4, rtol=1e-4)


def test_levels_of_grey_go_with_the_model(folder: Path) -> None:
    levels, plain = with_levels(folder), folder.parent / "it"
    export_model(folder, "timm", plain)
    assert json.loads((plain / "config.json").read_text())["levels"] == levels
