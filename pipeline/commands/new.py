"""`stochca new FOLDER`: params.yaml for one's own images and this machine, with a reason for each value."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from pipeline.commands.advice.machine import Machine, this_machine
from pipeline.commands.advice.settings import Plan, Setting, advise
from pipeline.commands.advice.survey import Survey, survey
from pipeline.commands.cost import Speed, cost_lines, hours, measure
from pipeline.commands.use import edited, keep_edited
from pipeline.config.params import PARAMS_FILE, Params, parse_params
from pipeline.config.precheck import check_inputs
from pipeline.config.presets import DEFAULT, find_preset, merged, read_yaml, write_yaml
from pipeline.config.sections import Dataset
from pipeline.datasets.label_files import METADATA
from pipeline.datasets.label_tables import FILE_NAME, PATH
from pipeline.datasets.source import shown
from pipeline.datasets.table_files import FORMATS, read_table
from pipeline.runtime.files import replace_file
from stochca.errors import UserError

HOURS = 1.0  # that all training may take


def new_params(
    folder: Path,
    *,
    force: bool = False,
    labels: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    budget: float = HOURS,
    machine: Callable[[], Machine] = this_machine,
    speed: Callable[[Params], Speed] = measure,
) -> Iterator[str]:
    """Write params.yaml for the images in `folder`; yields what there is to say, a line each.

    Args:
        force: replace a params.yaml that was edited; it is kept under another name.
        labels: a table in the folder that says the classes; None: the only one there, if there is one.
        label_column: its column with the class; None: `label`.
        group_column: its column with the subject; None: `group`, if there is one.
        budget: how long all training may take, in hours.

    Raises:
        UserError: params.yaml was edited and `force` is not set, or the images can't be trained on.
            params.yaml is as before.
    """
    if edited() is not None and not force:
        raise UserError(
            f"{PARAMS_FILE} holds settings of your own; to write a new one say --force (FORCE=1 with make), "
            "which keeps it as params.previous.yaml"
        )
    base = find_preset(DEFAULT).params()
    columns = {"label_column": label_column, "group_column": group_column}
    dataset = _dataset(folder, labels, columns)
    chosen = {setting.key: setting.value for setting in dataset}
    sections = {**base.dataset.model_dump(), **chosen, "domains": None}
    images, here = survey(Dataset.model_validate(sections)), machine()
    yield from images.lines
    if images.layout != "table":
        for path in _tables(folder):
            yield (
                f"  {path.name} is not used, the folders say the classes; if it says them, call its column "
                f"of images {PATH} and give --labels {path.name}"
            )
    yield f"machine: {here}"
    if here.busy:
        yield (
            f"  it is busy with other work (load {here.load:.1f}) and measures slower than it is; do this "
            "again when it is idle"
        )
    yield f"measuring {base.backbone.name} ..."

    @cache
    def speed_at(image_size: int) -> Speed:
        return speed(base.model_copy(update={"image_size": image_size}))

    plan, settings = advise(images, here, base, speed_at, budget * 3600)
    own = [Setting(f"dataset.{setting.key}", setting.value, setting.why) for setting in dataset]
    name, why = _name_in_mlflow(folder), "its own, as a server may be shared"
    named = [Setting("promotion.model", name, why), Setting("tracking.experiment", name, why)]
    text = _written([*own, *settings, *named], dataset[1].value, images, here)
    params = parse_params(text, f"the {PARAMS_FILE} for {folder}")
    check_inputs(params)
    kept = keep_edited()
    with replace_file(PARAMS_FILE) as temporary:
        temporary.write_text(text)
    yield f"{PARAMS_FILE} is now for these images; it says why behind each value that it sets"
    if kept:
        yield f"  your own {PARAMS_FILE} is kept as {kept}"
    yield f"  {_summary(plan)}"
    split = images.split(params.dataset.validation, params.dataset.test)
    yield "What it will cost:"
    for line in cost_lines(params, speed_at(plan.image_size), split):
        yield f"  {line}"
    if not plan.fits:
        yield f"  that is more than {hours(budget * 3600)}, and the least that is worth while here"


def _dataset(folder: Path, labels: str | None, columns: Mapping[str, str | None]) -> list[Setting]:
    """What of the section dataset says where the images are, without its name in the keys."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {what}; give the folder that holds your labelled images")
    root = _root(folder)
    if Path.cwd().is_relative_to(Path(root).absolute()):
        raise UserError(
            f"{folder} holds the project itself; give a folder of images alone, such as data/raw/NAME"
        )
    table = labels or _table(folder)
    return [
        Setting("name", "image_folder", "your own images"),
        Setting("root", root, "as it was given"),
        Setting(
            "labels", table, "the table in it" if table else "the folders say the classes, or metadata.csv"
        ),
        *(Setting(key, column, "as it was given") for key, column in columns.items() if column),
    ]


def _root(folder: Path) -> str:
    """From the project's folder where it lies in it, else the whole path; DVC knows no ``~``."""
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100  links stay as they were given
    here = Path.cwd()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else absolute).as_posix()


def _name_in_mlflow(folder: Path) -> str:
    """After the folder, of the characters that MLflow allows."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(os.path.abspath(folder)).name).strip("-")  # noqa: PTH100
    return name or "stochca"


def _tables(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in shown(folder) if Path(entry.name).suffix.lower() in FORMATS]


def _table(folder: Path) -> str | None:
    """The only table of images in a folder, but for Hugging Face's, which is found without its name."""
    tables = _tables(folder)
    if any(path.stem == METADATA for path in tables):
        return None
    suited = [path for path in tables if {PATH, FILE_NAME} & set(read_table(path, str(path))[0])]
    if len(suited) > 1:
        names = ", ".join(path.name for path in suited)
        raise UserError(f"{folder} holds the tables {names}; say which one has the labels: --labels NAME")
    if not suited and not any(entry.is_dir() for entry in shown(folder)):
        suited = tables[:1]  # nothing else may say the classes, and what is wrong with it will be said
    return suited[0].name if suited else None


def _written(settings: Sequence[Setting], root: str, images: Survey, machine: Machine) -> str:
    """The shipped params.yaml under the settings, each with its reason."""
    overlay = CommentedMap()
    for key, value, why in settings:
        *sections, name = key.split(".")
        section = overlay
        for each in sections:
            section = section.setdefault(each, CommentedMap())
        section[name] = _as_yaml(value)
        section.yaml_add_eol_comment(why, name)
    heading = (
        f"# For the images in {root}: {images.count:,} of {len(images.classes)} classes.\n"
        f"# Written by `stochca new` on a machine with {machine}.\n"
        "# What stands in [brackets] says why a value is as it is.\n\n"
    )
    return heading + write_yaml(merged(find_preset(DEFAULT).text, [overlay]))


def _as_yaml(value: Any) -> Any:
    if isinstance(value, list):
        return CommentedSeq(value)
    if isinstance(value, Mapping):
        return CommentedMap(value)
    if isinstance(value, float) and value < 0.001:  # 3e-05 is no number to every reader of YAML
        return read_yaml(f"{value:.1e}") if value else value
    return value


def _summary(plan: Plan) -> str:
    methods = ", ".join([*plan.baseline, "stochca", *plan.combined])
    seeds = f"{len(plan.seeds)} seeds" if len(plan.seeds) > 1 else "one seed"
    return f"{plan.image_size} pixels, {plan.epochs:g} epochs, {methods}, {seeds}"
