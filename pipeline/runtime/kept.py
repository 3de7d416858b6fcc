"""What a stage has worked with must stand there as it was when the stage ends, for DVC reads it then."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.runtime.files import sha256
from stochca.errors import UserError


@contextmanager
def files_kept(what: str, *places: Path) -> Iterator[None]:
    """See afterwards that the files of the block, `places` and all in them, are those that it began with.

    Raises:
        UserError: they are not. A stage that ends so is not recorded by DVC, and runs again the next time.
    """
    before = _state(places)
    yield
    after = _state(places)
    changed = sorted(name for name in {**before, **after} if before.get(name) != after.get(name))
    if changed:
        first = os.path.relpath(changed[0])
        more = f" (and {len(changed) - 1:,} more files)" if len(changed) > 1 else ""
        raise UserError(
            f"{first}{more} was changed while {what} was under way, which went on with what it had started "
            "with; its result is there, but not recorded by DVC: run the same command again"
        )


def _state(places: tuple[Path, ...]) -> dict[str, object]:
    """By file what an edit changes: of code the content, which may be had back; of images size and time."""
    found: dict[str, object] = {}
    for place in places:
        for path in [place] if place.is_file() else files_below(place):
            with suppress(OSError):  # a link that leads nowhere
                status = path.stat()
                is_code = path.suffix == ".py"
                found[str(path)] = sha256(path) if is_code else (status.st_size, status.st_mtime_ns)
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Files that a stage works with: those of a folder, but for hidden ones and what Python compiles."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[:1] != "." and name != "__pycache__"]
        yield from (Path(parent, name) for name in names if name[:1] != ".")
