"""What can be checked before any stage runs: the files and folders that params.yaml points at."""

import os
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from pathlib import Path

import yaml

from pipeline.config.params import Backbone, Params
from pipeline.runtime.files import sha256
from pipeline.runtime.paths import BACKBONE, OUTPUTS, PREPARED, WORK, database_uri
from stochca.backbones.card import CARD_FILE, BackboneCard, teacher_folder
from stochca.errors import UserError, one_line

LOCK = Path("dvc.lock")
DVC = Path(".dvc")  # its settings


def check_project(params: Params) -> None:
    """Raise `UserError` for whatever would end a run of `params` in this folder and can be seen before it."""
    check_inputs(params)
    check_weights(params)
    check_tracking()
    check_git()
    check_lock()
    check_work()


def check_inputs(params: Params) -> None:
    """Raise `UserError` when what params.yaml names is not there, or is what the pipeline itself writes."""
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
    _refuse_outputs("dataset.root", params.dataset.root)
    if Path(params.pretune.images).resolve() != PREPARED.resolve():
        _refuse_outputs("pretune.images", params.pretune.images)


def _refuse_outputs(key: str, folder: str) -> None:
    """What a stage reads would change with what it, or a later one, writes."""
    path = Path(folder).resolve()
    for output in OUTPUTS:
        written = output.resolve()
        if path.is_relative_to(written) or written.is_relative_to(path):
            where = "lies in" if path.is_relative_to(written) else "holds"
            raise UserError(
                f"{key}: the folder {folder} {where} {output}, which the pipeline itself writes; give a "
                "folder of images alone, such as data/raw/NAME"
            )


def check_weights(params: Params) -> None:
    """Raise `UserError` where a checkpoint without checksum is no longer what the backbone was made of."""
    _refuse_changed("backbone", params.backbone, BACKBONE)
    for name, teacher in params.teachers.items():
        _refuse_changed(f"teachers.{name}", teacher, teacher_folder(BACKBONE, name))


def _refuse_changed(key: str, backbone: Backbone, folder: Path) -> None:
    """DVC would call everything up to date: to it the settings are the same."""
    kind, _, path = backbone.weights.partition(":")
    if kind != "file" or backbone.sha256 is not None:
        return
    card_file = folder / CARD_FILE
    if not card_file.exists():
        return
    card, found = BackboneCard.from_file(card_file), sha256(Path(path).expanduser())
    if card.source == backbone.weights and card.source_sha256 != found:
        raise UserError(
            f"{key}.weights: {path} has changed since {folder} was made of it, which DVC does not see; give "
            f"{key}.sha256 its checksum {found}"
        )


def check_tracking() -> None:
    """Raise `UserError` where MLflow's database can't lie in this folder."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        database_uri()


def check_work() -> None:
    """Raise `UserError` where an earlier version has left a training that it could have gone on with."""
    for checkpoint in sorted(WORK.glob("*/checkpoint.safetensors")):
        raise UserError(
            f"{checkpoint.parent} holds a training that an earlier version of stochca has begun, and which "
            "it alone can go on with; finish it there, or forget it: make clean"
        )


def check_git() -> None:
    """Raise `UserError` where there is no git, as in a download, and DVC does not know so."""
    if Path(".git").exists() or not DVC.exists():
        return
    settings = ConfigParser(strict=False)
    try:
        settings.read([DVC / "config", DVC / "config.local"])
        known = settings.getboolean("core", "no_scm", fallback=False)
    except (ConfigParserError, UnicodeDecodeError, ValueError):
        return  # DVC says what is wrong with it
    if not known:
        raise UserError(
            "this folder is no git repository, and DVC has to be told that it works without: "
            "dvc config --local core.no_scm true"
        )


def check_lock() -> None:
    """Raise `UserError` when what DVC has written down of the stages that ran is not even a mapping."""
    if not LOCK.exists():
        return
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the lock of a hundred stages is long
        content = yaml.load(LOCK.read_text(), loader)
        problem = None if isinstance(content, dict) and "schema" in content else "it is no lock file of DVC's"
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = one_line(error)
    if problem:
        raise UserError(
            f"{LOCK} can't be read: {problem}; bring back the last one that was committed (git checkout "
            f"{LOCK}), or delete it, and all stages run again"
        )
