import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli
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
    for name in ("check", "predict", "export", "table", "promote", "rollback", "sync"):
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
    assert capsys.readouterr().out == "Nothing waits in work/unsynced: MLflow has everything\n"
