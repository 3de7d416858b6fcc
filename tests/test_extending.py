"""docs/extending.md: its code, copied out of the page, does what the page says."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from datasets import Dataset as Table
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pipeline.config.params import Params, load_params
from pipeline.images.sizes import Sides
from pipeline.prepare import prepare
from stochca.compute.checkpoint import CHECKPOINT
from stochca.config import Lora, Method, StochasticCrossAttention, code_of
from stochca.errors import UserError
from stochca.penalties.term import Batch, Start
from stochca.timm_models.recording import records_of
from stochca.training.fit import find_evaluated, fit
from stochca.training.inputs import Inputs
from tests.extensions import FILES, SCRIPTS, forgotten, use, write_files
from tests.imports import ROOT
from tests.pipeline.sections import dataset_section
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit
from tests.stochca.training.test_fit import settings


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    with forgotten():
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files and params."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "extensions")
    raw = yaml.safe_load((ROOT / "params.yaml").read_text())
    use(raw)
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    return tmp_path


@pytest.fixture
def params(project: Path) -> Params:
    return load_params()


def module(name: str) -> ModuleType:
    return sys.modules[f"extensions.{name}"]


def test_the_page_has_one_file_of_each_kind() -> None:
    assert list(FILES) == ["short_features.py", "bias_only.py", "latest_evaluations.py", "listed.py"]


def test_its_methods_are_read_with_their_options(params: Params) -> None:
    (penalty,) = params.methods["short"].penalties
    assert penalty == module("short_features").ShortFeatures(weight=0.01)
    assert params.methods["bitfit"].adapter == module("bias_only").BiasOnly()
    assert params.methods["stochca+latest"].average == module("latest_evaluations").LatestEvaluations(
        evaluations=5
    )
    assert params.methods["stochca+bitfit"].attention == StochasticCrossAttention(prob=0.1)


@pytest.mark.parametrize(
    ("method", "sentence"),
    [
        (
            {"penalties": [{"name": "short_features", "wight": 1}]},
            "unknown key .*wight.*mean 'weight'",
        ),
        (
            {"average": {"name": "latest_evaluations", "evaluations": 0}},
            "methods.mine.average.evaluations must be 1 or more",
        ),
        ({"average": "latest"}, "methods.mine.average must be one of .*latest_evaluations, found 'latest'"),
    ],
)
def test_its_options_are_checked(method: dict[str, Any], sentence: str, project: Path) -> None:
    raw = yaml.safe_load(Path("params.yaml").read_text())
    raw["methods"]["mine"] = method
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(UserError, match=sentence):
        load_params()


def test_the_penalty_is_the_mean_squared_norm(params: Params) -> None:
    student, images = tiny_vit().eval(), torch.rand(5, 3, 16, 16)
    records = records_of(student, images)
    start = Start.of(student, None)
    config = module("short_features").ShortFeatures(weight=0.5)
    term = code_of(type(config))(config, student, start, None)
    with torch.no_grad():
        features = student.forward_head(student.forward_features(images), pre_logits=True)
    by_hand = sum(float((row * row).sum()) for row in features) / 5 * 0.5
    batch = Batch(images, torch.zeros(5, 3), records, start)
    assert float(term(batch).detach()) == pytest.approx(by_hand, rel=1e-5)


def train(method: Method, folder: Path, **options: Any) -> Any:
    student = tiny_vit()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    fitted = fit(
        Inputs(
            student,
            ColouredSquares(40),
            ColouredSquares(30, seed=1),
            method=method,
            settings=settings(drop_path=0.0, **options),
            preprocessing=PREPROCESSING,
        ),
        work_folder=folder,
        keep_evaluated="all",
        device=torch.device("cpu"),
    )
    return before, fitted


@pytest.mark.parametrize("name", ["bitfit", "stochca+bitfit"])
def test_the_adapter_trains_biases_and_the_head(name: str, params: Params) -> None:
    before, fitted = train(replace(params.methods[name], training={}), Path("work"))
    changed = {
        name for name, value in fitted.model.state_dict().items() if not torch.equal(value, before[name])
    }
    learns = {name for name in before if name.endswith("bias") or name.startswith("head")}
    never_moves = {"head.bias"}  # it may: only what learns is in question
    assert changed - learns == set()
    assert learns - changed <= never_moves
    assert fitted.trainable_parameters == sum(before[name].numel() for name in learns)


def test_the_average_is_the_mean_of_the_evaluations_and_survives_a_restart(params: Params) -> None:
    method = replace(
        params.methods["stochca+latest"],
        average=module("latest_evaluations").LatestEvaluations(evaluations=2),
    )
    _, fitted = train(method, Path("work"))
    weights = [load_file(path) for _, path in sorted(find_evaluated(Path("work")).items())[-2:]]
    for name, value in fitted.model.state_dict().items():
        torch.testing.assert_close(value, (weights[0][name] + weights[1][name]) / 2)
    assert any("last 2 evaluations were averaged" in note for note in fitted.notes)
    assert Path("work", CHECKPOINT).exists()
    _, again = train(method, Path("work"))  # continues from the last checkpoint, which lies before the end
    for name, value in again.model.state_dict().items():
        assert torch.equal(value, fitted.model.state_dict()[name]), name


def test_the_average_goes_with_lora_and_counts_and_without_refit(params: Params) -> None:
    average = module("latest_evaluations").LatestEvaluations(evaluations=2)
    _, fitted = train(
        Method(adapter=Lora(rank=2), average=average), Path("work"), steps=2, evaluations=2, checkpoints=1
    )
    assert fitted.selected_step is None
    assert fitted.model.state_dict().keys() == tiny_vit().state_dict().keys()
    norm = nn.BatchNorm1d(2)
    latest = code_of(type(average))(average, norm, 3)
    for step in (1, 2, 3):
        norm.running_mean, norm.num_batches_tracked = torch.full((2,), float(step)), torch.tensor(step)
        latest.after_evaluation(norm, step, 0.0)
    mean = latest.finish(norm, {}, None)
    assert mean["running_mean"].tolist() == [2.5, 2.5]
    assert mean["num_batches_tracked"] == 3
    with pytest.raises(ValueError, match="needs evaluations, of which refit leaves none"):
        Method(average=average).check_training(settings(), micro_batch=8, refit=True)


def test_the_dataset_is_prepared_as_its_list_says(params: Params) -> None:
    rows = []
    for number in range(30):
        name, label = f"{number:02}.png", ("red", "green", "blue")[number % 3]
        split = ("train", "train", "train", "val", "test")[number // 3 % 5]
        colour = (number * 8, number % 7 * 30, 90)
        Path("photos").mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), colour).save(Path("photos", name))
        rows.append((name, label, split))
    lines = ["file,class,split", *(",".join(row) for row in rows)]
    Path("photos/labels.csv").write_text("\n".join(lines), encoding="utf-8-sig")  # as spreadsheets do
    dataset = dataset_section(name="listed", root="photos")
    prepare(dataset, Sides.of(16, None), Path("prepared"))
    table = Table.from_file("prepared/images.arrow")
    classes = table.features["label"].names
    found = {
        (name, classes[label], split)
        for name, label, split in zip(table["id"], table["label"], table["split"], strict=True)
    }
    assert found == set(rows)
    Path("photos/labels.csv").write_text("file,class\n00.png,\n")
    with pytest.raises(UserError, match="line 2, lacks a file or a class"):
        prepare(dataset, Sides.of(16, None), Path("prepared"))


def test_the_script_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    (script,) = SCRIPTS
    names: dict[str, Any] = {}
    exec(script, names)
    assert names["method"].adapter.name == "bias_only"


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("absent", None, "extensions names 'absent', no file is extensions/absent.py; there are: bias_only"),
        ("../x", None, r"extensions names '../x', no file is"),
        ("broken", "x = (", r"the extension extensions/broken.py, line 1: SyntaxError"),
        ("broken", "\nx = 1 / 0", r"the extension extensions/broken.py, line 2: ZeroDivisionError: division"),
    ],
)
def test_what_can_not_be_imported_is_a_sentence(
    name: str, code: str | None, sentence: str, project: Path
) -> None:
    if code:
        Path("extensions", f"{name}.py").write_text(code)
    raw = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump({**raw, "extensions": [name]}))
    with pytest.raises(UserError, match=sentence):
        load_params()
