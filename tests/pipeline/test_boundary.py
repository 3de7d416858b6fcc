import subprocess
import sys

import pytest

from pipeline.boundary import run
from stochca.errors import UserError


def raising(error: Exception) -> None:
    raise error


def test_a_users_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        run(lambda: raising(UserError("a is missing")))
    assert exit.value.code == 2
    assert capsys.readouterr() == ("", "error: a is missing\n")


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: raising(ZeroDivisionError()))


def test_ctrl_c_shows_no_traceback() -> None:
    program = """
import os, signal
from pipeline.boundary import run
run(lambda: os.kill(os.getpid(), signal.SIGINT) or signal.pause())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
