"""The photographs of solar cells: a small wheel laid out like ELPV's, and its way through pip and cache."""

import io
from pathlib import Path

import pytest
from PIL import Image

from pipeline.datasets import solar_cells
from pipeline.datasets.source import Source
from pipeline.prepare import prepare
from pipeline.runtime.files import sha256
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import SIDES, opened, params, refused
from tests.pipeline.local_wheels import only_local_wheels, write_wheel

PROBABILITIES = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")
LINES = [  # as the list is laid out
    f"images/cell{number:04}.png  {PROBABILITIES[number % 4]:<19} {('mono', 'poly')[number // 4 % 2]}"
    for number in range(40)
]


@pytest.fixture(autouse=True)
def _only_local_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_local_wheels(tmp_path, monkeypatch)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one that is pinned, in the only index."""
    files = {"elpv_dataset/data/labels.csv": "\n".join(LINES).encode()}
    for number in range(len(LINES)):
        content = io.BytesIO()
        Image.new("L", (96, 96), number).save(content, "PNG")
        files[f"elpv_dataset/data/images/cell{number:04}.png"] = content.getvalue()
    path = write_wheel(tmp_path / "index", "elpv_dataset-1.0.0.post1", files)
    monkeypatch.setattr(solar_cells, "SHA256", sha256(path))
    return path


def load(tmp_path: Path, source: str | None = None, domains: list[str] | None = None) -> Source:
    dataset = params("solar_cells", tmp_path / "raw", source=source, domains=domains)
    return solar_cells.load(dataset, SIDES)


def names(source: Source) -> list[str]:
    return [record.id for record in source.records()]


def test_two_classes_leave_the_doubtful_out(wheel: Path, tmp_path: Path) -> None:
    source = load(tmp_path)
    assert (source.classes, source.domains, source.count) == (
        ["functional", "defective"],
        ["mono", "poly"],
        20,
    )
    found = {record.id: record for record in source.records()}
    assert list(found) == [line.split()[0] for line in LINES if line.split()[1] in ("0.0", "1.0")]
    for number, (name, record) in zip((n for n in range(40) if n % 4 in (0, 3)), found.items(), strict=True):
        assert record.class_name == ("functional" if number % 4 == 0 else "defective")
        assert record.domain == ("mono" if number // 4 % 2 == 0 else "poly")
        assert opened(record).getpixel((0, 0)) == (number,) * 3, name
    assert "10 mono + 10 poly images" in source.summary


def test_four_classes_take_all_of_them(wheel: Path, tmp_path: Path) -> None:
    source = load(tmp_path, "four", ["poly"])
    assert source.classes == ["functional", "probably functional", "probably defective", "defective"]
    assert source.count == 20
    assert {record.domain for record in source.records()} == {"poly"}
    by_number = {int(record.id[11:15]): record.class_name for record in source.records()}
    assert all(source.classes.index(name) == number % 4 for number, name in by_number.items())


def test_the_license_is_said_before_anything_is_fetched(
    wheel: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = prepare(params("solar_cells", tmp_path / "raw"), SIDES, tmp_path / "out")
    printed = capfd.readouterr().out
    assert 0 <= printed.index("CC BY-NC-SA 4.0") < printed.index("fetching elpv-dataset==1.0.0.post1")
    assert manifest["license"].startswith("CC BY-NC-SA 4.0")
    assert "Buerhop-Lutz" in manifest["attribution"]
    assert sum(manifest["totals"].values()) == 20


def test_it_is_fetched_once_or_taken_from_the_root(wheel: Path, tmp_path: Path) -> None:
    expected = names(load(tmp_path))
    wheel.rename(tmp_path / "elsewhere.whl")
    assert names(load(tmp_path)) == expected  # from the cache
    (tmp_path / f"cache/wheels/{solar_cells.SHA256}.whl").unlink()
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, "pip can't fetch elpv-dataset==1.0.0.post1", f"put it into {tmp_path / 'raw'}")
    (tmp_path / "raw").mkdir()
    (tmp_path / "elsewhere.whl").rename(tmp_path / "raw" / solar_cells.FILE)
    assert names(load(tmp_path)) == expected


@pytest.mark.parametrize("folder", ["index", "raw"])
def test_another_wheel_is_not_opened(folder: str, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)
    pinned, other = solar_cells.SHA256, wheel.rename(tmp_path / folder / wheel.name)
    other.write_bytes(other.read_bytes() + b"x")
    with pytest.raises(UserError) as error:
        load(tmp_path)
    refused(error, f"has the sha256 {sha256(other)}, but that of the dataset solar_cells is {pinned}")
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_an_unknown_kind_of_silicon(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names thin_film; allowed here are mono, poly"):
        load(tmp_path, domains=["thin_film"])
