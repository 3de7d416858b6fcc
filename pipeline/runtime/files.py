"""Files that are either whole or not there: written under a temporary name beside the target, then renamed.

The temporary name is always the same, so what a killed run left behind is overwritten by the next one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, all or nothing; missing parent folders are made."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Likewise a text."""
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # or a power cut may leave the new name with nothing in it


@contextmanager
def replace_file(target: Path) -> Iterator[Path]:
    """Give a path to write to; it becomes `target` when the block ends, and vanishes if the block raises."""
    temporary = _beside(target)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        _remove(temporary)


@contextmanager
def replace_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of `target` when the block ends without raising."""
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        _remove(target)
        temporary.replace(target)
    finally:
        _remove(temporary)


def _beside(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.partial")
    _remove(temporary)
    return temporary


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
