import subprocess
import sys

import pytest
from torch.utils.data import DataLoader

from pipeline.runtime.boundary import run
from stochca.errors import UserError


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
