"""The weights at each evaluation, kept for those who want to know what other choices had given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor

from stochca.compute.checkpoint import save_weights

FOLDER = "evaluated"
Keep = Literal["none", "last", "all"]


def save_evaluated(work_folder: Path, step: int, weights: Mapping[str, Tensor], keep: Keep) -> None:
    """Write the weights after `step` steps to work_folder/evaluated; `last` drops the earlier ones."""
    if keep == "none":
        return
    folder = work_folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / f"{step:08}.safetensors", dict(weights))
    if keep == "last":
        for earlier in list(find_evaluated(work_folder).values())[:-1]:
            earlier.unlink()


def find_evaluated(work_folder: Path) -> dict[int, Path]:
    """The files of `save_evaluated` by step, in order."""
    paths = sorted((work_folder / FOLDER).glob("[0-9]*.safetensors"))
    return {int(path.stem): path for path in paths}
