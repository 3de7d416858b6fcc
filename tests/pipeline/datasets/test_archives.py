import gzip
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.datasets import archives
from pipeline.datasets.archives import UNPACKED, find, unpack
from stochca.errors import UserError
from tests.pipeline.datasets.miniatures import refused, tar_of

WHERE = "Birds from https://birds.example"


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def birds(archive: Path) -> Path:
    """An archive of three files in Birds/, in the format that its name says."""
    contents = {f"Birds/{name}": name.encode() * 300 for name in ("list.txt", "a/1.jpg", "a/2.jpg")}
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in contents.items():
                file.writestr(name, content)
        return archive
    return tar_of(archive, *[member(name, content) for name, content in contents.items()])


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing_is_left() -> bool:
    return not UNPACKED.exists() or not any(UNPACKED.iterdir())


@pytest.mark.parametrize("name", ["birds.tgz", "birds.tar.gz", "birds.tar", "birds.zip"])
def test_archives_are_unpacked_once_and_their_folder_is_left_alone(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = birds(tmp_path / "root" / name)
    before = everything(tmp_path / "root")
    folder = find(tmp_path / "root", WHERE, folder="Birds", archives=["other.tgz", name])
    assert everything(folder) == {
        "list.txt": b"list.txt" * 300,
        "a/1.jpg": b"a/1.jpg" * 300,
        "a/2.jpg": b"a/2.jpg" * 300,
    }
    assert folder.parent.parent == UNPACKED
    assert "once" in capsys.readouterr().out
    (folder / "list.txt").write_text("seen")
    assert find(tmp_path / "root", WHERE, folder="Birds", archives=[name]) == folder
    assert (folder / "list.txt").read_text() == "seen"  # it was not unpacked again
    assert capsys.readouterr().out == ""
    assert everything(tmp_path / "root") == before

    os.utime(archive, ns=(1, 1))
    assert (
        find(tmp_path / "root", WHERE, folder="Birds", archives=[name]) / "list.txt"
    ).read_text() != "seen"


def test_folders_are_found_wherever_they_may_be(tmp_path: Path) -> None:
    (tmp_path / "Birds" / "data").mkdir(parents=True)
    (tmp_path / "Birds" / "data" / "list.txt").touch()
    (tmp_path / "renamed").symlink_to(tmp_path / "Birds" / "data")

    def look(root: Path, marker: str | None = "list.txt") -> Path:
        return find(root, WHERE, folder="Birds/data", archives=["birds.tgz"], marker=marker).resolve()

    for root in (tmp_path, tmp_path / "Birds", tmp_path / "Birds" / "data", tmp_path / "renamed"):
        assert look(root) == tmp_path / "Birds" / "data"
    assert look(tmp_path / "Birds", marker=None) == tmp_path / "Birds" / "data"
    assert look(tmp_path / "Birds" / "data", marker=None) == tmp_path / "Birds" / "data"

    # A folder named like the dataset may hold no more than its archive.
    birds(tmp_path / "apart" / "Birds" / "birds.tgz")
    folder = find(tmp_path / "apart" / "Birds", WHERE, folder="Birds", archives=["birds.tgz"])
    assert folder.parent.parent == UNPACKED
    # An archive without the folder around what it holds is known by the marker.
    tar_of(tmp_path / "flat" / "birds.tar", member("list.txt", b"x"))
    flat = find(tmp_path / "flat", WHERE, folder="Birds", archives=["birds.tar"], marker="list.txt")
    assert (flat / "list.txt").read_bytes() == b"x"


def test_what_is_missing_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        find(tmp_path / "none", WHERE, folder="Birds", archives=["birds.tgz"])
    refused(error, "none does not exist", WHERE)
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as error:
        find(tmp_path / "file", WHERE, folder="Birds", archives=["birds.tgz"])
    refused(error, "file is a file", WHERE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as error:
        find(tmp_path / "empty", WHERE, folder="Birds", archives=["birds.tgz", "birds.zip"])
    refused(error, "empty holds neither the folder Birds nor the archive birds.tgz or birds.zip", WHERE)
    tar_of(tmp_path / "empty" / "birds.tgz", member("Fish/1.jpg", b"x"))
    with pytest.raises(UserError) as error:
        find(tmp_path / "empty", WHERE, folder="Birds", archives=["birds.tgz"])
    refused(error, "birds.tgz does not hold the folder Birds", WHERE)


LINK = tarfile.SYMTYPE
HOSTILE = {
    "absolute": ([member("/tmp/x", b"x")], "absolute path"),
    "parent": ([member("../x", b"x")], "leads out"),
    "hidden parent": ([member("Birds/../../x", b"x")], "leads out"),
    "absolute link": ([member("out", kind=LINK, link="/etc")], "link to /etc"),
    "link out": ([member("Birds/out", kind=LINK, link="../../x")], "link to ../../x"),
    "hard link out": ([member("Birds/out", kind=tarfile.LNKTYPE, link="../x")], "link to ../x"),
    "below a link": ([member("a", kind=LINK, link="Birds"), member("a/x", b"x")], "below a link"),
    # Harmless by its text until b is a link as well: then a leads out.
    "link through a link": (
        [member("b", kind=LINK, link="."), member("a", kind=LINK, link="b/../x")],
        "link to b/../x",
    ),
    "device": ([member("null", kind=tarfile.CHRTYPE)], "null"),
    "fifo": ([member("pipe", kind=tarfile.FIFOTYPE)], "pipe"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_hostile_members_are_refused(tmp_path: Path, case: str, suffix: str) -> None:
    members, words = HOSTILE[case]
    archive = tar_of(tmp_path / "root" / f"birds.{suffix}", member("Birds/list.txt", b"x"), *members)
    before = everything(tmp_path)
    with pytest.raises(UserError) as error:
        unpack(archive)
    refused(error, str(archive), "is not safe to unpack", words)
    assert nothing_is_left()
    assert everything(tmp_path) == before


def test_links_within_an_archive_are_kept(tmp_path: Path) -> None:
    archive = tar_of(
        tmp_path / "birds.tar",
        member("Birds/a/1.jpg", b"one"),
        member("Birds/b/1.jpg", kind=LINK, link="../a/1.jpg"),
        member("Birds/b/2.jpg", kind=tarfile.LNKTYPE, link="Birds/a/1.jpg"),
    )
    folder = unpack(archive)
    assert (folder / "Birds/b/1.jpg").read_bytes() == (folder / "Birds/b/2.jpg").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["/tmp/x", "../x", "Birds/../../x"])
def test_hostile_zips_are_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as file:
        file.writestr("Birds/list.txt", "x")
        file.writestr(name, "x")
    with pytest.raises(UserError) as error:
        unpack(tmp_path / "birds.zip")
    refused(error, "birds.zip is not safe to unpack", name)
    assert nothing_is_left()
    assert not (tmp_path / "x").exists()


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("Birds/out")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(UserError) as error:
        unpack(tmp_path / "birds.zip")
    refused(error, "Birds/out is a symbolic link")


def test_archives_that_grow_out_of_proportion_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = tarfile.TarInfo("zeros")
    huge.size = 4_000_000_000
    with gzip.open(tmp_path / "bomb.tgz", "wb") as file:
        file.write(huge.tobuf())
    with pytest.raises(UserError) as error:
        unpack(tmp_path / "bomb.tgz")
    refused(error, "bomb.tgz would unpack to more than 1.0 GB")

    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("zeros", bytes(1_000_000))
    assert unpack(tmp_path / "bomb.zip").is_dir()  # below a gigabyte anything goes
    monkeypatch.setattr(archives, "GIGABYTE", 1e5)
    os.utime(tmp_path / "bomb.zip", ns=(1, 1))
    with pytest.raises(UserError) as error:
        unpack(tmp_path / "bomb.zip")
    refused(error, "bomb.zip would unpack to more than")
    assert len(list(UNPACKED.iterdir())) == 1


@pytest.mark.parametrize("name", ["birds.tgz", "birds.tar", "birds.zip"])
def test_wherever_an_archive_is_cut_off_it_is_refused(tmp_path: Path, name: str) -> None:
    whole = birds(tmp_path / name).read_bytes()
    end = len(whole)
    if name == "birds.tar":  # of the zeros at its end a first block is needed, the others are padding
        end = -len(whole.rstrip(b"\0")) // 512 * -512 + 512
    for length in sorted({0, 1, *range(0, end, end // 25), *range(0, end, 512), end - 1}):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(UserError) as error:
            unpack(tmp_path / name)
        refused(error, f"{name} is damaged or cut off", "download it again")
        assert nothing_is_left()
    (tmp_path / name).write_bytes(whole[:end])
    assert (unpack(tmp_path / name) / "Birds/list.txt").is_file()


def test_a_damaged_byte_and_a_web_page_are_refused(tmp_path: Path) -> None:
    content = bytearray(birds(tmp_path / "birds.tgz").read_bytes())
    content[-6] ^= 1  # in the checksum
    (tmp_path / "birds.tgz").write_bytes(content)
    (tmp_path / "birds.zip").write_text("<html>Please log in</html>")
    plain = bytearray(birds(tmp_path / "birds.tar").read_bytes())
    plain[plain.index(b"Birds/a/2.jpg")] ^= 1  # the last header no longer has its sum
    (tmp_path / "birds.tar").write_bytes(plain)
    for name in ("birds.tgz", "birds.zip", "birds.tar"):
        with pytest.raises(UserError) as error:
            unpack(tmp_path / name)
        refused(error, f"{name} is damaged or cut off")
        assert nothing_is_left()
