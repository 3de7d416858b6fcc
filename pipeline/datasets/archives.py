"""Official archives, unpacked once into a folder of ours; nothing is written to where they lie."""

import hashlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from pipeline.runtime.files import replace_folder
from pipeline.runtime.paths import UNPACKED
from stochca.errors import UserError

GIGABYTE = 1e9
MOST_EXPANSION = 20  # times the archive's size, plus a gigabyte: images hardly shrink when they are packed
BLOCK = 512  # bytes of a tar archive's headers and of the zeros that end it

_DAMAGED = (
    *(tarfile.ReadError, zipfile.BadZipFile, BadGzipFile, LZMAError, zlib.error),
    EOFError,  # cut off
    KeyError,  # a hard link to a member that there is not
    *(NotImplementedError, RuntimeError),  # zip: a compression that Python does not know, a password
)


def find(
    root: Path, described: str, *, folder: str, archives: Sequence[str] = (), marker: str | None = None
) -> Path:
    """The folder `folder` of a dataset: in `root`, `root` itself, or in one of the archives in `root`.

    Args:
        described: the dataset and where to download it, "CUB-200-2011 from https://...".
        folder: as the official archive names it.
        archives: file names, of which the first that is there is unpacked.
        marker: a file or folder in `folder`, by which it is known where it bears another name.

    Raises:
        UserError: it is in none of these places, or the archive is damaged or hostile.
    """
    root = root.expanduser()
    if not root.is_dir():
        found = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"dataset.root {root} {found}; download {described} into a folder and name that")
    if (found_there := _within(root, folder, marker)) is not None:
        return found_there
    for archive in (root / name for name in archives):
        if archive.is_file():
            if (unpacked := _within(unpack(archive), folder, marker)) is not None:
                return unpacked
            raise UserError(f"{archive} does not hold the folder {folder}; download {described} again")
    parts = PurePosixPath(folder).parts
    for depth, part in enumerate(parts, start=1):
        inside = root.joinpath(*parts[depth:])
        if root.resolve().name == part and (inside / (marker or "")).exists():
            return inside
    nor = f" nor the archive {' or '.join(archives)}" if archives else ""
    neither = "neither the" if archives else "no"
    raise UserError(
        f"dataset.root {root} holds {neither} folder {folder}{nor}; download {described} and put it there"
    )


def unpack(archive: Path) -> Path:
    """The folder with what `archive` (.tar, .tar.gz, .tgz, .zip and their like) holds.

    It is unpacked again only when the archive's name, size or time of change is another one.

    Raises:
        UserError: the archive is damaged, names places outside of its folder, holds devices, or would grow
            out of all proportion; nothing is left behind.
    """
    status = archive.stat()
    version = f"{archive.name} {status.st_size} {status.st_mtime_ns}"
    target = UNPACKED / f"{archive.name}-{hashlib.sha256(os.fsencode(version)).hexdigest()[:12]}"
    if target.is_dir():
        return target
    print(f"unpacking {archive} ({status.st_size / GIGABYTE:.2f} GB) into {target}, once", flush=True)
    try:
        with replace_folder(target) as temporary:
            if archive.suffix.lower() == ".zip":
                _unpack_zip(archive, temporary)
            else:
                _unpack_tar(archive, temporary)
    except tarfile.FilterError as error:
        raise UserError(
            f"{archive} is not safe to unpack: {_shown(str(error))}; download it from the official source"
        ) from None
    except _DAMAGED as error:
        why = str(error).partition("\n")[0].rstrip(": ") or type(error).__name__
        raise UserError(
            f"{archive} is damaged or cut off ({_shown(why)}); delete it and download it again"
        ) from None
    except OSError as error:
        raise UserError(f"{archive} can't be unpacked into {target}: {error.strerror or error}") from None
    return target


def _within(base: Path, folder: str, marker: str | None) -> Path | None:
    if (base / folder).is_dir():
        return base / folder
    return base if marker is not None and (base / marker).exists() else None


def _unpack_tar(archive: Path, target: Path) -> None:
    check = _Check(archive)
    with tarfile.open(archive) as file:
        for member in file:
            target_of_link = member.linkname if member.islnk() or member.issym() else None
            start = "" if member.islnk() else str(PurePosixPath(member.name).parent)
            check.member(member.name, member.size, target_of_link, start)
            file.extract(member, target, filter="data")
        assert file.fileobj is not None
        # tarfile takes anything that is no header for the end, which really is at least a block of zeros.
        if file.fileobj.tell() < file.offset + BLOCK or any(file.fileobj.read(BLOCK)):
            raise EOFError("its end is missing")
        while file.fileobj.read(1 << 20):  # what is compressed has its checksum at its very end
            pass


def _unpack_zip(archive: Path, target: Path) -> None:
    check = _Check(archive)
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            if stat.S_ISLNK(member.external_attr >> 16):
                raise check.hostile(member.filename, "is a symbolic link")
            check.member(member.filename, member.file_size)
            file.extract(member, target)


class _Check:
    """Refuses members that would end up outside of the folder, now or through a later one.

    A link may lead up first and then down again, within the archive; nothing may lie below a link. So every
    folder that a link starts from is a real one, and where it leads can be told from its text alone.
    """

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.most = GIGABYTE + MOST_EXPANSION * archive.stat().st_size
        self.total = 0
        self.links: set[PurePosixPath] = set()

    def member(self, name: str, size: int, link: str | None = None, start: str = "") -> None:
        """`link` is where it leads if it is one, told from the folder `start`."""
        path = PurePosixPath(name)
        if path.is_absolute():
            raise self.hostile(name, "is an absolute path")
        if ".." in path.parts:
            raise self.hostile(name, "leads out of its folder")
        if not self.links.isdisjoint(path.parents):
            raise self.hostile(name, "lies below a link")
        if link is not None:
            if not _stays_inside(PurePosixPath(start), PurePosixPath(link)):
                raise self.hostile(name, f"is a link to {_shown(link)}, which leads out of it")
            self.links.add(path)
        self.total += size + BLOCK
        if self.total > self.most:
            raise UserError(
                f"{self.archive} would unpack to more than {self.most / GIGABYTE:.1f} GB ({MOST_EXPANSION} "
                "times its own size and a gigabyte), which no archive of images does; download it from the "
                "official source"
            )

    def hostile(self, name: str, problem: str) -> UserError:
        return UserError(
            f"{self.archive} is not safe to unpack: its member {_shown(name)} {problem}; "
            "download it from the official source"
        )


def _stays_inside(start: PurePosixPath, link: PurePosixPath) -> bool:
    ups = 0
    while ups < len(link.parts) and link.parts[ups] == "..":
        ups += 1
    return not link.is_absolute() and ups <= len(start.parts) and ".." not in link.parts[ups:]


def _shown(text: str) -> str:
    """Text that can be printed, whatever bytes a name holds."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\n", "\\n")
