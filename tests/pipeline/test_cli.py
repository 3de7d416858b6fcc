import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.config.params import load_params
from tests.imports import ROOT
from tests.pipeline.small_model import CLASSES, picture, save_small_model

HEAVY = ("torch", "timm", "mlflow", "datasets", "pandas", "numpy", "PIL")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "stochca-all-0"
    save_small_model(folder)
    return folder


def stochca(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of a command line; what it printed is left to capsys."""
    monkeypatch.setattr(sys, "argv", ["stochca", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize("arguments", [["--help"], ["predict", "--help"], ["export", "--help"], []])
def test_help_comes_at_once(arguments: list[str]) -> None:
    code = (
        "import sys, pipeline.cli as cli\n"
        "try: cli.main()\n"
        f"finally: print('imported:', *[name for name in {HEAVY} if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    printed = (ended.stdout + ended.stderr).splitlines()
    assert "imported:" in printed
    assert any("Usage:" in line for line in printed)
    assert ended.returncode == (0 if arguments else 2)


def test_help_names_commands_and_shows_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stochca(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    for name in (
        "check",
        "new",
        "use",
        "presets",
        "cost",
        "predict",
        "export",
        "table",
        "promote",
        "rollback",
        "sync",
    ):
        assert f"\n  {name} " in printed
    assert stochca(monkeypatch, "predict", "--help") == 0
    printed = capsys.readouterr().out
    assert "stochca predict models/stochca-all-0 photos/ --top 1 --json > classes.json\n" in printed
    assert max(len(line) for line in printed.splitlines()) <= 80


def test_predict_prints_json_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(50, 40).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    assert stochca(monkeypatch, "predict", folder, tmp_path, "--json", "--top", "2") == 0
    printed = capsys.readouterr()
    (entry,) = json.loads(printed.out)
    assert entry["file"] == str(tmp_path / "a.png")
    names = [each["class"] for each in entry["predictions"]]
    probabilities = [each["probability"] for each in entry["predictions"]]
    assert len(set(names)) == 2
    assert set(names) < set(CLASSES)
    assert 1 >= sum(probabilities) >= 2 / 3
    assert printed.err == f"skipped {tmp_path}/b.png: is no image that Pillow reads\n"


def test_predict_prints_a_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(50, 40).save(tmp_path / "a.png")
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    assert stochca(monkeypatch, "predict", folder, tmp_path / "a.png") == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1 + 3
    assert all(name in printed for name in CLASSES)


def test_export_prints_its_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stochca(monkeypatch, "export", folder, "--to", "timm", "--output", "out") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("out: ")
    assert (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "MODEL", "gone.png"], "error: gone.png does not exist"),
        (["predict", "MODEL", "broken.png"], "error: none of the images can be used"),
        (["predict", "nowhere", "broken.png"], "error: nowhere holds no trained model"),
        (["predict", "MODEL"], "Missing argument"),
        (["predict", "MODEL", "broken.png", "--top", "0"], "Invalid value for '--top'"),
        (["export", "nowhere", "--to", "onnx"], "error: nowhere holds no trained model"),
        (["export", "MODEL", "--to", "coreml"], "not one of 'timm', 'onnx'"),
        (["export", "MODEL"], "Missing option '--to'"),
        (["exprot", "MODEL"], "No such command 'exprot'"),
        (
            ["predict", "models:/stochca@champion", "broken.png"],
            "error: there is no mlflow.db here; set MLFLOW",
        ),
        (
            ["export", "models:/stochca", "--to", "timm"],
            "error: models:/stochca is no address; write models:/NAME",
        ),
        (["promote"], "error: params.yaml is missing"),
        (["cost"], "error: params.yaml is missing"),
        (["new", "photos"], "error: there is no folder presets with presets here"),
        (["new"], "Missing argument 'FOLDER'"),
        (["use", "cub"], "error: there is no folder presets with presets here"),
        (["presets"], "error: there is no folder presets with presets here"),
        (["rollback", "--to", "two"], "Invalid value for '--to'"),
        (["rollback"], "error: params.yaml is missing"),
    ],
)
def test_mistakes_end_with_code_2_and_leave_nothing(
    arguments: list[str],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("broken.png").write_bytes(b"no image")
    before = sorted(folder.parent.rglob("*"))
    assert stochca(monkeypatch, *(str(folder) if each == "MODEL" else each for each in arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert sorted(folder.parent.rglob("*")) == before
    assert sorted(Path().iterdir()) == [Path("broken.png")]


def test_nothing_to_synchronise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stochca(monkeypatch, "sync") == 0
    assert capsys.readouterr().out == "Nothing waits in work/runs: MLflow has everything\n"


def test_use_writes_params_and_says_what_to_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "presets", "presets")
    assert stochca(monkeypatch, "use", "vlcs/clip", "--no-cost") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "params.yaml is now the preset vlcs/clip: leave one domain out on VLCS, with OpenAI's CLIP ViT-B/16"
    )
    assert printed[-2].endswith("put the archives, or what they hold, into data/raw/vlcs/")
    assert load_params().dataset.name == "vlcs"
    before = Path("params.yaml").read_text()
    assert stochca(monkeypatch, "use") == 2
    assert capsys.readouterr().err.startswith("error: name a preset: cub, cub/refit, ")
    assert stochca(monkeypatch, "use", "vlsc") == 2
    assert "did you mean vlcs?" in capsys.readouterr().err
    assert Path("params.yaml").read_text() == before


@pytest.mark.slow
def test_cost_measures_the_architecture_of_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "presets" / "common" / "params.yaml").read_text()
    text = text.replace("vit_small_patch14_dinov2", "vit_tiny_patch16_224").replace(
        "image_size: 56 ", "image_size: 32 "
    )
    Path("params.yaml").write_text(text)
    assert stochca(monkeypatch, "cost") == 0
    first, runs, images, time, search = capsys.readouterr().out.splitlines()
    assert first == "What it will cost (measuring vit_tiny_patch16_224 at 32 pixels ...)"
    assert runs == "  5 runs: 5 methods x 1 target x 1 seed"
    assert images.startswith("  26,560 training images; 58 evaluations on validation images, ")
    assert re.fullmatch(r"  about \d+ minutes on .+, measured [\d.e+]+ training images/s with .*", time)
    assert search.endswith(" `make tune`, comes on top; `stochca cost --search` says how long")
    Path("params.yaml").write_text(text.replace("vit_tiny_patch16_224", "vit_tiny_patch61_224"))
    assert stochca(monkeypatch, "cost") == 2
    assert "timm has no architecture 'vit_tiny_patch61_224'; did you mean" in capsys.readouterr().err
