"""Two at once, for real: two processes in one folder."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.exclusive import exclusive
from stochca.errors import UserError
from tests.imports import ROOT

HOLDER = """
import signal
from pipeline.runtime.exclusive import exclusive
with exclusive("prepare"):
    print("held", flush=True)
    signal.pause()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError) as error, exclusive("prepare"):
        pass
    assert "another process is at work on prepare" in str(error.value)
    assert "work/prepare.lock" in str(error.value)
    with pytest.raises(UserError, match=r"^in its own words$"), exclusive("prepare", "in its own words"):
        pass
    with exclusive("compare"):  # another thing
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with exclusive("prepare"):  # what a killed process held is free
        pass
    assert list(Path("work").iterdir()) == []


def test_a_file_system_without_locks_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fcntl, "lockf", refuse)
    sentence = r"a.lock can't be locked \(No locks available\).*make work a link"
    with pytest.raises(UserError, match=sentence), exclusive("a"):
        pass


def test_a_process_does_not_get_in_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with exclusive("flow"), pytest.raises(UserError, match="at work on flow"), exclusive("flow"):
        pass
    with exclusive("flow"):
        pass


def test_processes_that_load_images_do_not_keep_what_a_killed_one_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = HOLDER.replace("    print(", "    if os.fork() == 0:\n        signal.pause()\n    print(")
    holder = subprocess.Popen(
        [sys.executable, "-c", "import os" + program],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    try:
        with exclusive("prepare"):
            pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
