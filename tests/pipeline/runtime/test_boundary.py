"""Mistakes, and faults of the machine, produced for real: a full disk, a closed folder, no memory."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from pipeline.runtime.boundary import run, sentence_of
from stochca.errors import UserError

FULL = Path("/dev/full")  # where every write finds no space

needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def raising(error: Exception) -> None:
    raise error


def test_a_users_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        run(lambda: raising(UserError("a is missing")))
    assert exit.value.code == 2
    assert capsys.readouterr() == ("", "error: a is missing\n")


class Damaged:
    """Images, none of which can be read."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> None:
        raise UserError("the prepared images are damaged: a can't be decoded; run: dvc repro prepare --force")


@pytest.mark.parametrize("workers", [0, 1])
def test_the_sentence_comes_through_processes_that_load_images(
    workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    loader: DataLoader[None] = DataLoader(Damaged(), num_workers=workers)  # type: ignore[arg-type]

    def load() -> None:
        list(loader)

    with pytest.raises(SystemExit) as exit:
        run(load)
    assert exit.value.code == 2
    expected = "error: the prepared images are damaged: a can't be decoded; run: dvc repro prepare --force\n"
    assert capsys.readouterr().err == expected


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: raising(ZeroDivisionError()))


def test_ctrl_c_shows_no_traceback() -> None:
    program = """
import os, signal
from pipeline.runtime.boundary import run
run(lambda: os.kill(os.getpid(), signal.SIGINT) or signal.pause())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def error_of(action: object) -> BaseException:
    assert callable(action)
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


@needs_full
def test_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    def arrow() -> None:
        with pa.OSFile(str(FULL), "wb") as file:
            file.write(b"x" * 10_000)

    def text() -> None:
        with FULL.open("w") as file:
            file.write("x")

    for action in (arrow, text):
        sentence = sentence_of(error_of(action))
        assert sentence is not None, action
        assert "no space is left on the disk; free some" in sentence
    with pytest.raises(SystemExit) as exit:
        run(text)
    assert exit.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: no space is left")
    assert printed.err.count("\n") == 1


def test_libraries_that_tell_it_in_words(tmp_path: Path) -> None:
    """safetensors is written in Rust: the number of the error is a part of its message."""
    program = f"""
import resource, signal, torch
from safetensors.torch import save_file
from pipeline.runtime.boundary import _number_of
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_file({{"x": torch.zeros(10_000)}}, {str(tmp_path / "x.safetensors")!r})
except Exception as error:
    print(type(error).__name__, _number_of(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["SafetensorError", str(27)], done.stderr  # EFBIG


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_is_not_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    sentence = sentence_of(error_of((tmp_path / "x").touch))
    assert (
        sentence
        == f"{tmp_path / 'x'}: permission denied; make the file or folder yours, or work in another folder"
    )


def test_no_memory() -> None:
    program = """
import resource, torch
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from pipeline.runtime.boundary import run
run(lambda: torch.zeros(1 << 33))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: memory ran out; lower training.batch_size")
    assert sentence_of(MemoryError()) is not None
    assert sentence_of(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")) is not None


def test_other_errors_are_no_lack_of_the_machine(tmp_path: Path) -> None:
    for error in (ValueError("x"), FileNotFoundError(2, "x"), ConnectionRefusedError(111, "x")):
        assert sentence_of(error) is None


def test_a_terminal_that_lacks_a_letter() -> None:
    code = (
        "from pipeline.runtime import boundary; from stochca.errors import UserError\n"
        "def main(): print('写真'); raise UserError('the class café')\n"
        "boundary.run(main)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (2, "\\u5199\\u771f\n")
    assert ended.stderr == "error: the class caf\\xe9\n"
