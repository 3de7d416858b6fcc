"""The backbone and the images on whichever machine a trial runs.

A machine that has the project's folder, with the same contents, reads it in place. Any other gets the
files through Ray's object store and unpacks them once into a temporary folder.
"""

import json
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.images import prepared
from pipeline.runtime.exclusive import in_turn
from pipeline.runtime.files import replace_folder
from pipeline.runtime.paths import BACKBONE
from pipeline.runtime.user import user_name
from pipeline.training.digests import digest_of
from stochca.backbones.card import CARD_FILE, BackboneCard
from stochca.errors import UserError

LARGEST_SHIPPED = 2 << 30  # bytes
Files = Mapping[str, bytes]  # by their path inside the project


@dataclass(frozen=True)
class TrialData:
    """What trials read, and how to tell whether a folder holds it."""

    project: Path  # absolute
    backbone: str  # the digest of its card, which names the weights and how they are used
    fingerprint: str  # of the prepared images

    @classmethod
    def of(cls, project: Path, card: BackboneCard, fingerprint: str) -> "TrialData":
        return cls(project, digest_of(card.to_dict()), fingerprint)

    def are_in(self, root: Path) -> bool:
        """Whether `root` has the same backbone and the same images."""
        try:
            card = BackboneCard.from_file(root / BACKBONE / CARD_FILE)
            manifest = json.loads((root / prepared.FOLDER / prepared.MANIFEST).read_text(encoding="utf-8"))
        except (UserError, OSError, ValueError):
            return False
        return TrialData.of(self.project, card, manifest.get("fingerprint")) == self

    def packed(self) -> Files:
        """Every file's content."""
        return {str(path.relative_to(self.project)): path.read_bytes() for path in self._paths()}

    def size(self) -> int:
        """In bytes."""
        return sum(path.stat().st_size for path in self._paths())

    def _paths(self) -> list[Path]:
        folders = (self.project / BACKBONE, self.project / prepared.FOLDER)
        return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]

    def root(self, fetch: Callable[[], Files] | None) -> Path:
        """The folder on this machine that holds data/backbone and data/prepared.

        Args:
            fetch: gets the files, where the project's folder is not there; None: nothing was sent.

        Raises:
            UserError: the project's folder is not there, or has other contents, and nothing was sent.
        """
        if self.are_in(self.project):
            return self.project
        if fetch is None:
            raise UserError(
                f"{self.project} is not on this machine, or holds other data; mount the same folder on all "
                "machines"
            )
        target = scratch() / f"inputs-{self.backbone[:12]}-{self.fingerprint[:12]}"
        with in_turn(target.parent):
            if not target.exists():
                with replace_folder(target) as folder:
                    for name, content in fetch().items():
                        (folder / name).parent.mkdir(parents=True, exist_ok=True)
                        (folder / name).write_bytes(content)
        return target


def scratch() -> Path:
    """A folder of this machine and this user, for what other machines don't need.

    Behind ``ray://`` a search's state is in it, whose pickles Ray loads.

    Raises:
        UserError: it is not this user's alone.
    """
    folder = Path(tempfile.gettempdir()) / f"stochca-{user_name()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UserError(
            f"{folder} on {socket.gethostname()} is not a folder of yours, closed to others (mode 0700); "
            "Ray loads pickles from it, so remove it, or set TMPDIR to a folder of your own"
        )
    return folder
