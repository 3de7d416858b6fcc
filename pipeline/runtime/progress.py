"""How far a long loop is: a bar on a terminal, a plain line now and then elsewhere; on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as bar

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield `items` unchanged while showing how many of `total` are done."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from bar(items, description, total, console=console, transient=True)
        return
    shown = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - shown > SECONDS_BETWEEN_LINES:
            shown = time.monotonic()
            print(f"{description}: {done:,} of {total:,}", file=sys.stderr, flush=True)
