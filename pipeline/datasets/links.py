"""Which links among images are followed: those within the root, and DVC's own to files in its cache.

With cache.type symlink every file that DVC keeps is such a link.
"""

from functools import lru_cache
from pathlib import Path


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path leads out of `root`, which is resolved, to anything but a file in DVC's cache."""
    target = path.resolve()
    if target.is_relative_to(root):
        return False
    cache = _dvc_cache(root)
    return cache is None or not target.is_relative_to(cache) or not target.is_file()


@lru_cache(maxsize=8)
def _dvc_cache(root: Path) -> Path | None:
    """That of the project in which the root lies."""
    folder = next((parent / ".dvc" for parent in (root, *root.parents) if (parent / ".dvc").is_dir()), None)
    if folder is None:
        return None
    from dvc.config import Config, ConfigError  # slow to load, and rarely needed

    try:
        configured = Config(dvc_dir=str(folder))["cache"].get("dir")
    except ConfigError:
        configured = None
    return Path(configured or folder / "cache").resolve()
