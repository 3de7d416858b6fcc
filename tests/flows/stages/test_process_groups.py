import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from flows.stages import process_groups
from flows.stages.process_groups import Ended, ProcessGroups
from tests.flows.project import wait_until

# A command with a child of its own, in the manner of dvc; both note which signal ends them.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
print("child", child.pid, flush=True)
try:
    child.wait()
except KeyboardInterrupt:
    child.wait()
"""
CHILD = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[1]).write_text("interrupted")
"""
STUBBORN = """
import signal
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_a_thread_started_is_ended_from_outside(tmp_path: Path) -> None:
    groups = ProcessGroups()
    note = tmp_path / "note"
    lines: list[str] = []

    def task() -> None:
        with groups.start([sys.executable, "-c", PARENT, CHILD, str(note)], os.environ) as process:
            assert process.stdout is not None
            lines.extend(process.stdout)
            process.wait()

    thread = threading.Thread(target=task)
    thread.start()
    wait_until(note.exists, "the child runs")
    groups.end_all()
    thread.join(10)
    assert not thread.is_alive()
    assert note.read_text() == "interrupted"  # it had the time to end by itself
    assert gone(int(lines[0].split()[1]))
    with pytest.raises(Ended), groups.start(["true"], os.environ):
        pass


def test_a_command_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_groups, "SECONDS_TO_END_GENTLY", 0.3)
    monkeypatch.setattr(process_groups, "SECONDS_TO_END", 0.3)
    groups = ProcessGroups()
    note = tmp_path / "note"
    program = STUBBORN + CHILD
    with groups.start([sys.executable, "-c", program, str(note)], os.environ) as process:
        wait_until(note.exists, "the command runs")
        groups.end_all()
        assert process.wait() == -signal.SIGKILL


def test_an_error_while_reading_ends_the_command() -> None:
    groups = ProcessGroups()
    with pytest.raises(ZeroDivisionError), groups.start(["sleep", "60"], os.environ) as process:
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGINT


def test_children_of_a_background_job_hear_ctrl_c() -> None:
    program = """
import os, signal, subprocess, time
from flows.stages.process_groups import ProcessGroups, listen_to_ctrl_c
listen_to_ctrl_c()
with ProcessGroups().start(["sleep", "60"], os.environ) as process:
    os.kill(process.pid, signal.SIGINT)
    print(process.wait(20))
"""
    shell = f"{sys.executable} -c '{program}' & wait"  # a shell ignores Ctrl-C for its background jobs
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(-signal.SIGINT), done.stderr


def test_groups_end_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_groups, "SECONDS_TO_END_GENTLY", 1.0)
    commands = [
        subprocess.Popen(["sh", "-c", "trap '' INT; sleep 60"], text=True, start_new_session=True)
        for _ in range(8)
    ]
    time.sleep(0.3)
    started = time.monotonic()
    process_groups.end_groups(commands)
    assert time.monotonic() - started < 6  # one after the other they would take 8 seconds
    assert [command.wait() for command in commands] == [-signal.SIGTERM] * 8
