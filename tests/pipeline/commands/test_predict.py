import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.commands import predict
from pipeline.commands.predict import Prediction, predict_images, show
from pipeline.images.image_files import find_images
from pipeline.runtime import progress
from pipeline.training.saved_model import load_trained
from stochca._typing import TimmModule
from stochca.errors import UserError
from stochca.evaluation import predict as predict_split
from tests.pipeline.small_model import CLASSES, MEAN, SIZE, STD, picture, save_small_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "finetune-all-0"
    save_small_model(folder)
    return folder


def by_hand(model: TimmModule, image: Image.Image) -> np.ndarray:
    """Probabilities of an RGB image at least `SIZE` wide and high, without torchvision's transforms."""

    def resized(image: Image.Image, short: int) -> Image.Image:
        scale = short / min(image.size)
        width, height = image.size
        return image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)

    image = resized(image, min(37, *image.size))  # 8/7 of 32: as the training images are stored
    image = resized(image, SIZE)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    pixels = np.asarray(image.crop((left, top, left + SIZE, top + SIZE))) / 255
    normalised = ((pixels - MEAN) / STD).transpose(2, 0, 1)[None].astype(np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(normalised))[0].double().numpy()
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def test_probabilities_are_those_of_plain_timm(folder: Path, tmp_path: Path) -> None:
    model = load_trained(folder).model
    sizes = [(32, 32), (37, 37), (74, 74), (148, 74), (74, 222)]
    files = []
    for number, (width, height) in enumerate(sizes):
        files.append(tmp_path / f"{number}.png")
        picture(width, height, seed=number).save(files[-1])
    seen = set()
    for file, result in zip(files, predict_images(folder, files, top=3), strict=True):
        expected = by_hand(model, Image.open(file))
        assert result.file == file
        assert result.probabilities == sorted(result.probabilities, reverse=True)
        found = dict(zip(result.classes, result.probabilities, strict=True))
        np.testing.assert_allclose([found[name] for name in CLASSES], expected, atol=1e-5)
        seen.add(result.classes[0])
    assert len(seen) > 1  # otherwise any order of the images would have passed


def test_stored_images_are_seen_as_in_the_evaluation_of_training(folder: Path, tmp_path: Path) -> None:
    images = [(picture(37 + number, 37, number), 0) for number in range(5)]
    for number, (image, _) in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    trained = load_trained(folder)
    logits, _ = predict_split(trained.model, images, trained.preprocessing, device=torch.device("cpu"))
    for result, expected in zip(
        predict_images(folder, [tmp_path], 3), logits.softmax(dim=1).tolist(), strict=True
    ):
        assert [CLASSES[i] for i in np.argsort(expected)[::-1]] == result.classes
        np.testing.assert_allclose(result.probabilities, sorted(expected, reverse=True), atol=1e-5)


def test_grey_values_are_seen_by_the_levels_that_the_model_has_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 12 bits as the same picture of 8 bits, also where no value of the image needs so many."""
    model = tmp_path / "model"
    save_small_model(model)
    card = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**card, "levels": {"whole numbers": [0, 4095]}}))
    grey = np.asarray(picture(SIZE, SIZE).convert("L"))
    dark = (grey // 8).astype(np.uint8)
    Image.fromarray(dark).save(tmp_path / "8.png")
    Image.fromarray(np.round(dark * (4095 / 255)).astype(np.uint16)).save(tmp_path / "12.png")
    Image.fromarray(np.full((SIZE, SIZE), 65535, np.uint16)).save(tmp_path / "16.png")
    files = [tmp_path / f"{bits}.png" for bits in (8, 12, 16)]
    first, second, _ = predict_images(model, files, top=3)
    assert first.classes == second.classes
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-6)
    told = capsys.readouterr().err
    assert "16.png holds whole numbers from 65535 to 65535, of which 0 becomes black and 4095 white" in told
    assert "12.png" not in told


def test_more_images_than_a_batch_keep_their_order(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        picture(40, 40, number).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"")
    one_by_one = {
        file: predict_images(folder, [file], 3)[0].probabilities
        for number in (0, 3, 5, 8)
        for file in [tmp_path / f"{number}.png"]
    }
    monkeypatch.setattr(predict, "BATCH_SIZE", 3)
    results = predict_images(folder, [tmp_path], 3)
    assert [result.file.name for result in results] == [f"{number}.png" for number in range(9) if number != 4]
    together = {result.file: result.probabilities for result in results}
    for file, probabilities in one_by_one.items():
        np.testing.assert_allclose(together[file], probabilities, atol=1e-5)


def test_unusable_images_are_named_and_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, empty, odd = tmp_path / "good.jpg", tmp_path / "empty.png", tmp_path / "odd\x1b[31m\n.png"
    picture(60, 60).save(good)
    empty.write_bytes(b"")
    odd.write_bytes(good.read_bytes()[:200])
    results = predict_images(folder, [tmp_path], 1)
    assert [result.file for result in results] == [good]
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert first == f"skipped {empty}: the file is empty"
    assert second.startswith(f"skipped {tmp_path}/odd\\x1b[31m\\n.png: ")
    with pytest.raises(UserError, match="none of the images can be used"):
        predict_images(folder, [empty, odd], 1)


def test_a_too_large_image_is_left_out_in_words_of_this_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(60, 60).save(tmp_path / "a.png")
    picture(20, 20).save(tmp_path / "b.png")
    monkeypatch.setattr(predict, "MAX_MEGAPIXELS", 0.001)
    predict_images(folder, [tmp_path], 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("a.png: 60 x 60 pixels are more than the limit of 0.001 megapixels")


@pytest.mark.parametrize("top", [1, 2, 99])
def test_top_classes(folder: Path, tmp_path: Path, top: int) -> None:
    picture(50, 50).save(tmp_path / "a.png")
    (result,) = predict_images(folder, [tmp_path], top)
    assert len(result.classes) == len(result.probabilities) == min(top, len(CLASSES))


def test_images_are_found_in_folders(tmp_path: Path) -> None:
    for name in (
        "b.PNG",
        "a.jpg",
        "deep/er/c.webp",
        "note.txt",
        ".hidden.png",
        ".cache/d.png",
        "no_extension",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    in_folder = [tmp_path / "a.jpg", tmp_path / "b.PNG", tmp_path / "deep/er/c.webp"]
    assert find_images([tmp_path]) == in_folder
    explicit = tmp_path / "no_extension"
    assert find_images([explicit, tmp_path / "b.PNG", tmp_path]) == [
        explicit,
        in_folder[1],
        in_folder[0],
        in_folder[2],
    ]


def test_wrong_paths_are_told_before_the_model_is_read(tmp_path: Path) -> None:
    picture(40, 40).save(tmp_path / "a.png")
    no_model = tmp_path / "no model"
    with pytest.raises(UserError, match=r"gone\.png does not exist"):
        predict_images(no_model, [tmp_path / "a.png", tmp_path / "gone.png"], 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"there is no image in .*empty"):
        predict_images(no_model, [tmp_path / "empty"], 1)
    with pytest.raises(UserError, match="can't be read"):
        find_images([tmp_path / "a.png" / "inside.png"])


def test_an_unreadable_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> Any:  # as the system does, but to every user
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="closed can't be read: Permission denied"):
        find_images([tmp_path])


HOSTILE = ["[bold]x", "\x1b[31mred", "a\nb", "[/]", ":smile:", "\u202egnp.exe", "\udcff", "C1\x9b31m"]


def test_hostile_names_do_not_steer_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = Prediction(Path("[red]\x1b]0;title\x07.png"), HOSTILE, [0.125] * len(HOSTILE))
    for terminal in ("0", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", "80")
        show([result], as_json=False)
        printed = capsys.readouterr().out
        assert printed.replace("\n", "").isprintable()
        for shown in (
            "[bold]x",
            r"\x1b[31mred",
            r"a\nb",
            "[/]",
            ":smile:",
            r"\u202egnp.exe",
            r"\udcff",
            r"C1\x9b31m",
        ):
            assert shown in printed
        assert r"[red]\x1b]0;title\x07.png" in printed
        assert max(len(line) for line in printed.splitlines()) <= 80


def test_hostile_names_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    show([Prediction(Path("a\x1b.png"), HOSTILE, [0.125] * len(HOSTILE))], as_json=True)
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    (entry,) = json.loads(printed)
    assert entry["file"] == "a\x1b.png"
    assert [each["class"] for each in entry["predictions"]] == HOSTILE


def test_the_table_in_a_pipe_is_plain_and_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    long = Path("folder", "x" * 200 + ".png")
    show(
        [Prediction(long, ["cat", "dog"], [0.987654, 0.0123]), Prediction(Path("b.png"), ["dog"], [1.0])],
        False,
    )
    header, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["file", "class", "probability"]
    assert rows == [[str(long), "cat", "98.8%"], [str(long), "dog", "1.2%"], ["b.png", "dog", "100.0%"]]


def test_the_table_on_a_narrow_terminal_shows_everything(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    show([Prediction(Path("f" * 100 + ".png"), ["c" * 90, "dog"], [0.75, 0.25])], as_json=False)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) == 80
    assert printed.count("f") == 100 + "file".count("f")
    assert printed.count("c") == 90 + "class".count("c")
    assert "75.0%" in printed
    assert "25.0%" in printed


def test_progress_stays_off_stdout(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    picture(40, 40).save(tmp_path / "a.png")
    for terminal in ("0", "1"):
        monkeypatch.setenv("TTY_COMPATIBLE", terminal)
        predict_images(folder, [tmp_path], 1)
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "classifying images" in printed.err
