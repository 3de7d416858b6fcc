"""Small wheels, and an index that holds no others."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest


def write_wheel(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """A wheel that pip accepts; `name` is as its file's begins, NAME-VERSION."""
    folder.mkdir(exist_ok=True)
    package, version = name.split("-")
    metadata = f"Metadata-Version: 2.4\nName: {package}\nVersion: {version}\nLicense: MIT\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
        archive.writestr(f"{name}.dist-info/METADATA", metadata)
        archive.writestr(f"{name}.dist-info/WHEEL", tags)
        archive.writestr(f"{name}.dist-info/RECORD", "")
    return path


def only_local_wheels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip itself runs, but sees no index but folder/index; the cache is a fresh one, folder/cache."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder / "index"))
    monkeypatch.setenv("STOCHCA_CACHE", str(folder / "cache"))
