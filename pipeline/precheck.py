"""What can be checked before any stage runs: the files and folders that params.yaml points at."""

from pathlib import Path

from pipeline.params import Params
from stochca.errors import UserError


def check_inputs(params: Params) -> None:
    """Raise `UserError` when a file or folder that params.yaml names is not there."""
    teachers = {f"teachers.{name}": teacher for name, teacher in params.teachers.items()}
    for key, backbone in {"backbone": params.backbone, **teachers}.items():
        kind, _, path = backbone.weights.partition(":")
        if kind == "file" and not Path(path).expanduser().is_file():
            raise UserError(f"{key}.weights: there is no file {path}; give the path of a local checkpoint")
    if not Path(params.dataset.root).expanduser().is_dir():
        raise UserError(
            f"dataset.root: there is no folder {params.dataset.root}; give the folder that holds the images, "
            f"or the archives, of {params.dataset.name}"
        )
