import csv
import re
import shutil
from pathlib import Path

import pytest

from pipeline.commands.advice.machine import Machine
from pipeline.commands.cost import Speed
from pipeline.commands.new import new_params
from pipeline.commands.use import use_preset
from pipeline.config.params import Params, load_params
from pipeline.config.precheck import check_inputs
from stochca.errors import UserError
from tests.imports import ROOT
from tests.pipeline.commands.advice.pictures import write_pictures


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the presets and the default params.yaml."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "presets", folder / "presets")
    shutil.copy(folder / "presets" / "common" / "params.yaml", folder)
    monkeypatch.chdir(folder)
    return folder


def speed(params: Params) -> Speed:
    image = (params.image_size / 14) ** 2 / 2000
    return Speed("a processor", "bf16", image, image / 3, 0.1, 12)


def new(folder: str | Path, **options: bool | str | float) -> list[str]:
    machine = lambda: Machine(2, "bf16")  # noqa: E731
    return list(new_params(Path(folder), machine=machine, speed=speed, **options))  # type: ignore[arg-type]


def written() -> Params:
    params = load_params()
    check_inputs(params)
    return params


def reasons() -> dict[str, str]:
    """What stands in brackets, by key without its section."""
    lines = Path("params.yaml").read_text().splitlines()
    found = (re.fullmatch(r"\s*(\w+):.*#.* \[(.*)\]", line) for line in lines if line[:1] != "#")
    return {match[1]: match[2] for match in found if match}


def test_two_unbalanced_classes_in_the_project(project: Path) -> None:
    write_pictures(Path("data/raw/cells/defective"), 8, side=60)
    write_pictures(Path("data/raw/cells/functional"), 32, side=60)
    lines = new("data/raw/cells")
    params = written()
    assert (params.dataset.name, params.dataset.root, params.dataset.domains) == (
        "image_folder",
        "data/raw/cells",
        None,
    )
    assert params.image_size == 56
    assert params.protocol.selection == "balanced_accuracy"
    assert params.training.class_weights == "balanced"
    assert (params.training.epochs, params.training.steps) == (28, None)
    assert (params.training.lr, params.training.head_lr_scale) == (1e-5, 30)
    assert reasons()["class_weights"] == "functional has 4.0 times the images of defective"
    text = Path("params.yaml").read_text()
    assert text.startswith(
        "# For the images in data/raw/cells: 40 of 2 classes.\n"
        "# Written by `stochca new` on a machine with 2 cores, no GPU, bf16.\n"
    )
    assert "12 runs: 4 methods x 1 target x 3 seeds" in "\n".join(lines)
    assert any(line.startswith("  about ") and "minutes on a processor" in line for line in lines)
    assert not [line for line in lines if "kept as" in line]
    assert sorted(path.name for path in project.iterdir()) == ["data", "params.yaml", "presets"]


def test_what_new_leaves_alone_is_as_shipped(project: Path) -> None:
    write_pictures(Path("photos/a"), 5)
    write_pictures(Path("photos/b"), 5)
    Path("photos/truth.csv").write_text("image_id,dx\n1,nv\n")
    shipped = load_params()
    assert any("truth.csv is not used" in line and "--labels truth.csv" in line for line in new("photos"))
    assert written().methods == shipped.methods
    text = Path("params.yaml").read_text()
    for line in Path("presets/common/params.yaml").read_text().splitlines():
        assert line.partition("# ")[2] in text


def test_small_grey_images_elsewhere(project: Path, tmp_path: Path) -> None:
    for digit in range(10):
        write_pictures(tmp_path / "digits" / str(digit), 4, side=28, grey=True)
    new("../digits")
    params = written()
    assert params.dataset.root == str(tmp_path / "digits")
    assert params.image_size == 56
    assert params.training.augmentation.horizontal_flip == 0
    assert reasons()["horizontal_flip"].startswith("the classes are called like characters")


def write_table(path: Path, columns: list[str]) -> None:
    with path.open("w") as file:
        rows = [[f"images/{place}.png", "ab"[place % 2], f"patient {place // 4}"] for place in range(12)]
        csv.writer(file).writerows([columns, *rows])


def test_a_table_with_groups(project: Path) -> None:
    write_pictures(Path("scans/images"), 12)
    write_table(Path("scans/labels.csv"), ["path", "label", "group"])
    Path("scans/notes.csv").write_text("day,weather\n1,rain\n")
    assert "groups: their images stay in one split" in new("scans")
    assert written().dataset.labels == "labels.csv"
    shutil.copy("scans/labels.csv", "scans/other.csv")
    with pytest.raises(
        UserError, match=r"holds the tables labels.csv, other.csv; say which .* --labels NAME"
    ):
        new("scans", force=True)
    new("scans", force=True, labels="other.csv")
    assert written().dataset.labels == "other.csv"


def test_a_table_with_columns_of_other_names(project: Path) -> None:
    write_pictures(Path("scans/images"), 12)
    write_table(Path("scans/labels.csv"), ["path", "diagnosis", "patient_id"])
    with pytest.raises(UserError, match=r"name one of them in dataset.label_column .*new: --label-column"):
        new("scans")
    with pytest.raises(UserError, match=r"the unknown column 'patient_id'.*--group-column"):
        new("scans", label_column="diagnosis")
    lines = new("scans", label_column="diagnosis", group_column="patient_id")
    assert "groups: their images stay in one split" in lines
    dataset = written().dataset
    assert (dataset.label_column, dataset.group_column) == ("diagnosis", "patient_id")
    write_table(Path("scans/labels.csv"), ["file_name", "label", "patient_id"])
    lines = new("scans", force=True)
    assert "labels.csv has columns that mean nothing here: patient_id: not used" in lines
    assert [line for line in lines if line.startswith("no groups; ") and "--group-column" in line]
    assert written().dataset.group_column is None


def test_a_table_that_is_all_there_is_says_what_is_wrong_with_it(project: Path) -> None:
    write_table(Path("presets/../labels.csv"), ["image", "label", "group"])
    Path("scans").mkdir()
    shutil.move("labels.csv", "scans")
    with pytest.raises(UserError, match=r"scans/labels.csv has no column path or file_name"):
        new("scans")


def test_settings_of_ones_own_are_replaced_by_force_and_kept(project: Path) -> None:
    write_pictures(Path("photos/a"), 5)
    write_pictures(Path("photos/b"), 5)
    use_preset("cub")  # nobody's own
    new("photos")
    path = Path("params.yaml")
    edited = path.read_text().replace("batch_size: 16", "batch_size: 8 ")
    path.write_text(edited)
    with pytest.raises(UserError, match=r"^params.yaml holds settings of your own; .* --force"):
        new("photos")
    assert path.read_text() == edited
    lines = new("photos", force=True)
    assert "  your own params.yaml is kept as params.previous.yaml" in lines
    assert Path("params.previous.yaml").read_text() == edited
    assert written().training.batch_size == 16


def test_there_may_be_no_params_yet(project: Path) -> None:
    write_pictures(Path("photos/a"), 5)
    write_pictures(Path("photos/b"), 5)
    Path("params.yaml").unlink()
    new("photos")
    assert written().protocol.name == "transfer"


def test_a_budget_that_is_too_small_is_said(project: Path) -> None:
    write_pictures(Path("photos/a"), 40)
    write_pictures(Path("photos/b"), 40)
    assert new("photos", budget=0.001)[-1] == (
        "  that is more than 1 minutes, and the least that is worth while here"
    )


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("gone", "gone does not exist; give the folder that holds your labelled images"),
        ("params.yaml", "params.yaml is a file; give the folder"),
        (".", ". holds the project itself; give a folder of images alone"),
        ("empty", "dataset.root empty holds no class folders; expected are root/CLASS/"),
        ("one", "dataset.root one holds only the class a; at least two are needed"),
        ("mixed", "dataset.root mixed is ambiguous"),
        ("loose", "dataset.root loose holds images but no class folders"),
    ],
)
def test_mistakes_are_a_sentence_and_leave_params_as_they_were(
    project: Path, folder: str, words: str
) -> None:
    Path("empty").mkdir()
    write_pictures(Path("one/a"), 3)
    write_pictures(Path("loose"), 3)
    write_pictures(Path("mixed/a"), 3)
    write_pictures(Path("mixed/b/c"), 3)
    before = Path("params.yaml").read_bytes()
    with pytest.raises(UserError) as error:
        new(folder)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("folder", "name"), [("cells", "cells"), ("Été 2024 (raw)", "t-2024-raw"), ("写真", "stochca")]
)
def test_the_registered_model_is_called_after_the_folder(project: Path, folder: str, name: str) -> None:
    for label in ("a", "b"):
        write_pictures(Path("data/raw", folder, label), 8, side=60)
    new(f"data/raw/{folder}")
    assert (written().promotion.model, written().tracking.experiment) == (name, name)
