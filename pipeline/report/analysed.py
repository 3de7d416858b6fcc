"""What the stage `analyse` left behind, for the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.paths import BLOCKS as FOLDER


@dataclass(frozen=True)
class Analysed:
    """The pictures of one method, as the page holds them."""

    method: str
    blocks: str  # data URL
    attention: str | None  # likewise; None where the model has no attention maps


def read_analysed(methods: Sequence[str]) -> list[Analysed]:
    """Those of `methods` that have been analysed, in this order."""
    return [
        Analysed(method, blocks, _picture(FOLDER / method / "attention.png"))
        for method in methods
        if (blocks := _picture(FOLDER / method / "blocks.png")) is not None
    ]


def _picture(path: Path) -> str | None:
    if not path.exists():
        return None
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
