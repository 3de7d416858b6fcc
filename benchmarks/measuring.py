"""What the benchmarks share: options, seconds and memory of a piece of work, tables in Markdown."""

import argparse
import io
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

MEGABYTE = 1e6
T = TypeVar("T")


def options(description: str | None) -> argparse.ArgumentParser:
    """Of a benchmark, whose docstring is its help."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def print_head(first: str, *others: str) -> None:
    """The head of a table; the columns behind the first hold numbers."""
    print_row(first, *others)
    print("| --- |" + " --: |" * len(others), flush=True)


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Seconds that `work` takes, and the memory that it adds to this process, at most, in megabytes."""
    before = own_memory()
    most, done = before, threading.Event()
    kept: list[object] = []  # what it gives back counts as well

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        seconds = seconds_of(lambda: kept.append(work()))
    finally:
        done.set()
        watcher.join()
    return {"seconds": seconds, "memory": max(most, own_memory()) - before}


def own_memory() -> float:
    """Anonymous memory of this process, in megabytes; the system may take mapped files' pages back."""
    import psutil  # which a machine that is lent for its GPU may lack

    found = psutil.Process().memory_info()
    return (found.rss - found.shared) / MEGABYTE


def alone(work: Callable[..., T], *arguments: object) -> T:
    """What `work` gives back in a process that does nothing else; what it prints is not shown."""
    # Not spawn: the system counts the memory of who spawns as a peak of the new process.
    with ProcessPoolExecutor(1, get_context("forkserver"), initializer=_silence) as process:
        return process.submit(work, *arguments).result()


def _silence() -> None:
    sys.stdout = io.StringIO()
