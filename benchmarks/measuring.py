"""What the benchmarks share: seconds and memory of a piece of work, in a process that does nothing else."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

MEGABYTE = 1e6


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Seconds that `work` takes, and the memory that it adds to this process, at most, in megabytes."""
    before = own_memory()
    most, done = before, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        kept = work()  # what it gives back counts as well
    finally:
        done.set()
        watcher.join()
    seconds = time.perf_counter() - started
    most = max(most, own_memory())
    del kept
    return {"seconds": seconds, "memory": most - before}


def own_memory() -> float:
    """Anonymous memory of this process, in megabytes; the system may take mapped files' pages back."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / MEGABYTE
    raise RuntimeError("this system does not say how much memory a process has for itself")


def in_process(module: str, *arguments: object) -> dict[str, float]:
    """The JSON that `python -m module arguments` prints as its last line."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result
