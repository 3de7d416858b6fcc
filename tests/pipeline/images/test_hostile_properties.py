"""Whatever classes are called and images hold: it is text and pixels, or is refused by name."""

import io
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.commands.predict import Prediction, show
from pipeline.images.decoding import Decoded, UnusableImage, decode
from pipeline.images.image_files import printable
from pipeline.images.prepared import load_prepared
from pipeline.images.sizes import Sides
from pipeline.prepare import prepare
from tests.pipeline.sections import dataset_section

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
HOSTILE = (
    "<script>x</script>",
    "\x1b[31m",
    "a\nb",
    "x..",
    "-rf",
    "{{7*7}}",
    "$(id)",
    "\u202e",
    "C:\\x",
    "' or 1--",
)
NAMES = (
    (
        st.sampled_from(HOSTILE)
        | st.text(min_size=1, max_size=20)
        | st.binary(min_size=1, max_size=12).map(os.fsdecode)
    )
    .filter(lambda name: not set(name) & {"/", "\0"} and not name.startswith("."))
    .filter(lambda name: len(os.fsencode(name)) < 200)
)

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def saved(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format)
    return buffer.getvalue()


def write_class(folder: Path, images: int) -> None:
    folder.mkdir(parents=True)
    for i in range(images):
        Image.new("RGB", (8, 8), (i, len(folder.name), 7)).save(folder / f"{i}.png")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    names=st.sets(NAMES, min_size=2, max_size=3).filter(
        lambda names: len(set(map(printable, names))) == len(names)
    )
)
def test_any_class_names_come_through_as_text(names: set[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        root, target = Path(place, "photos"), Path(place, "prepared")
        try:
            for name in names:
                write_class(root / name, images=6)
        except (OSError, UnicodeEncodeError):  # the file system has no such names
            return
        dataset = dataset_section(name="image_folder", root=str(root))
        prepare(dataset, Sides.of(32, None), target)
        prepared = load_prepared(target)
        assert sorted(prepared.classes) == sorted(map(printable, names))
        for name in prepared.classes:
            name.encode()  # text that can be stored
        inside = {path.resolve() for path in Path(place).rglob("*")}
        assert all(path.is_relative_to(Path(place).resolve()) for path in inside)
        assert {path.name for path in Path(place).iterdir()} == {"photos", "prepared"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=1, max_size=4))
def test_no_name_steers_a_terminal(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    show([Prediction(Path("a.png"), names, [0.25] * len(names))], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(names)
    assert all(character.isprintable() for line in lines for character in line)


def read(content: bytes) -> Decoded | None:
    try:
        decoded = decode(content, short_side=32, max_megapixels=1)
    except UnusableImage as error:
        reason = str(error)
    else:
        assert decoded.image.mode == "RGB"
        assert min(decoded.image.size) <= 32
        return decoded
    assert reason.strip()
    assert "\n" not in reason
    return None


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=400))
def test_any_bytes(content: bytes) -> None:
    read(content)


@settings(max_examples=150, deadline=None)
@given(
    whole=st.sampled_from([saved(format) for format in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")]),
    start=st.integers(0, 600),
    length=st.integers(0, 60),
    instead=st.binary(max_size=60),
)
def test_an_image_with_any_part_exchanged(whole: bytes, start: int, length: int, instead: bytes) -> None:
    assert read(whole) is not None
    read(whole[:start] + instead + whole[start + length :])
