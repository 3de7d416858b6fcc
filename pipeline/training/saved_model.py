"""A trained model on disk: its weights, and a card that says how to use them.

They are plain timm weights wherever timm can express the model. Otherwise they are an adapter, which is
small: what was put around the backbone, and the head. It is loaded onto the very backbone that it was
trained on.
"""

import ast
import hashlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors.torch import load_file

from pipeline.images.levels import Levels
from pipeline.runtime.code import sha256_of_code
from pipeline.runtime.files import sha256, write_json
from pipeline.runtime.paths import BACKBONE, EXTENSIONS
from pipeline.runtime.paths import MODELS as FOLDER
from stochca._typing import TimmModule
from stochca.adapters.adapted import AdaptedModel, describe, load_adapted
from stochca.backbones.card import CARD_FILE, OWN_BACKBONE, BackboneCard
from stochca.backbones.loading import pooling_options
from stochca.compute.checkpoint import save_weights
from stochca.config import CHOICES
from stochca.config.registry import code_of
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError

WEIGHTS = "model.safetensors"
ADAPTER = "adapter.safetensors"  # instead, where timm can't express the model
CARD = "model.json"


@dataclass(frozen=True)
class TrainedModel:
    """A model in evaluation mode, and its card; a plain timm model, unless the card tells of an adapter."""

    model: TimmModule
    card: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        return self.card["classes"]

    @property
    def levels(self) -> Levels | None:
        """What grey values of more than 8 bits become a picture by; None: it has learned from none."""
        return self.card.get("levels")

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(
            self.card["image_size"],
            tuple(self.card["mean"]),
            tuple(self.card["std"]),
            self.card["interpolation"],
            self.card.get("resize"),
        )


def save_trained(
    folder: Path,
    student: TimmModule,
    backbone: BackboneCard,
    *,
    name: str,
    method: str,
    classes: list[str],
    mlflow_run_id: str,
    levels: Levels | None = None,
) -> None:
    """Write weights and card into an existing folder; `levels` are those of the images it learned from."""
    plain, adapter, weights = student, None, WEIGHTS
    if isinstance(student, AdaptedModel):
        plain, adapter, weights = student.backbone, describe(student), ADAPTER
        save_weights(folder / weights, student.adapter_state())
    else:
        save_weights(folder / weights, student.state_dict())
    preprocessing = Preprocessing.of(backbone)
    card = {
        "name": name,
        "method": method,
        "architecture": backbone.architecture,
        # Together with the architecture and image_size, what timm.create_model needs to make this model.
        "options": pooling_options(plain),
        "adapter": adapter,
        "adapter_module": adapter_module(student),
        "adapter_code_sha256": sorted(_code_of_extension(adapter["name"])) if adapter else None,
        "image_size": backbone.image_size,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "interpolation": backbone.interpolation,
        "resize": backbone.resize,
        # What timm.data.create_transform needs for the same.
        "crop_pct": preprocessing.crop_pct,
        "crop_mode": preprocessing.crop_mode,
        "classes": classes,
        "levels": levels,
        "weights_sha256": sha256(folder / weights),
        "backbone": backbone.to_dict(),
        "mlflow_run_id": mlflow_run_id,
    }
    write_json(folder / CARD, card)


def load_trained(folder: Path) -> TrainedModel:
    """Read a model that a training stage wrote.

    Raises:
        UserError: the folder is missing or damaged, or holds other weights than its card says.
        NotAtHand: it holds an adapter to another backbone than there is, or one of an extension that
            params.yaml does not name, or whose code has changed.
    """
    weights = ADAPTER if (folder / ADAPTER).exists() else WEIGHTS
    try:
        content = (folder / CARD).read_bytes()
        digest = sha256(folder / weights)
    except OSError as error:
        name = error.filename or folder
        raise UserError(
            f"{folder} holds no trained model: {name} can't be read ({error.strerror}); {_available()}"
        ) from None
    try:
        card = json.loads(content)
        if digest != card["weights_sha256"]:
            raise ValueError(f"the sha256 of {weights} is {digest}, in {CARD} it is {card['weights_sha256']}")
        model = _adapted(folder, card) if weights == ADAPTER else _plain(folder, card)
        trained = TrainedModel(model.eval(), card)
        trained.preprocessing.evaluation()  # so that what is wrong with it is found here
    except NotAtHand:
        raise
    except Exception as error:  # timm fails in many ways on a card that is not what it should be
        reason = f"{CARD} has no {error}" if isinstance(error, KeyError) else shorten(str(error), 300)
        raise UserError(
            f"{folder} is damaged: {reason}; run `dvc checkout {folder}` or train it again"
        ) from None
    return trained


def _plain(folder: Path, card: dict[str, Any]) -> TimmModule:
    import timm

    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(
            card["architecture"],
            img_size=card["image_size"],
            num_classes=len(card["classes"]),
            **card["options"],
        )
    expected = pooling_options(model)
    if card["options"] != expected:
        raise ValueError(f"{CARD} has the options {card['options']}, where {expected} are needed")
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model


class NotAtHand(UserError):
    """The adapter is sound, but what it is to be loaded with is not there."""


def _adapted(folder: Path, card: dict[str, Any]) -> AdaptedModel:
    _make_known(folder, card)
    own = folder / OWN_BACKBONE
    backbone = own if own.is_dir() else BACKBONE
    needed = card["backbone"]["weights_sha256"]
    try:
        found = BackboneCard.from_file(backbone / CARD_FILE).weights_sha256
    except UserError as error:
        raise NotAtHand(f"{folder} is an adapter to a backbone: {error}") from None
    if found != needed:
        raise NotAtHand(
            f"{folder} is an adapter to the backbone with the sha256 {needed}, but that of {backbone} is "
            f"{found}; make the one that it was trained on (the stage backbone), or train the method again"
        )
    model = load_adapted(folder / ADAPTER, card["adapter"], backbone, num_classes=len(card["classes"]))
    options = pooling_options(model.backbone)
    if options != card["options"]:
        raise NotAtHand(
            f"{folder} is an adapter to a backbone that pools with {card['options']}, but {backbone} pools "
            f"with {options}; set backbone.global_pool in params.yaml as it was and make the backbone again, "
            "or train the method again"
        )
    return model


def _make_known(folder: Path, card: dict[str, Any]) -> None:
    """Import the extensions that params.yaml names, where the adapter is none of the project's own."""
    name = card["adapter"]["name"]
    if name not in CHOICES["adapter"]:
        _import_extensions(card, name)
    trained_in = card.get("adapter_code_sha256") or []
    trained_in = [trained_in] if isinstance(trained_in, str) else trained_in
    if trained_in and _code_of_extension(name).isdisjoint(trained_in):
        file = f"{card['adapter_module'].replace('.', '/')}.py"
        kept, instead = "", "train the model again"
        if (folder / EXTENSIONS).is_dir():  # of a version, which no training replaces
            kept = f", which is in {EXTENSIONS}/ among its files in MLflow,"
            instead = "begin anew with another promotion.model"
        raise NotAtHand(
            f"the model {card['name']} was trained with other code of the adapter {name!r} than is in {file} "
            f"now, where it may tell other classes; bring that code back{kept} and give what you change "
            f"another file and name, or {instead}"
        )


def _code_of_extension(adapter: str) -> set[str]:
    """The sha256 of the user's own code that makes an adapter, if it is not the project's.

    Once as it is, and once without remarks and layout, which not every version of Python writes alike.
    """
    options = CHOICES["adapter"][adapter]
    parts = [part for part in (options, code_of(options)) if part.__module__.startswith(f"{EXTENSIONS}.")]
    files = sorted({Path(inspect.getfile(part)) for part in parts})
    code = [ast.unparse(_WithoutRemarks().visit(ast.parse(file.read_bytes()))) for file in files]
    without_remarks = hashlib.sha256("\n".join(code).encode()).hexdigest()
    return {sha256_of_code(files), without_remarks} if files else set()


class _WithoutRemarks(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) else node


def _import_extensions(card: dict[str, Any], name: str) -> None:
    from pipeline.config.params import load_params  # which other models do without

    needs = f"the model {card['name']} has the adapter {name!r} of an extension"
    try:
        load_params()
    except UserError as error:
        raise NotAtHand(f"{needs}: {error}") from None
    if name not in CHOICES["adapter"]:
        raise NotAtHand(
            f"{needs} that params.yaml does not name; run from the project's folder, and add its file to the "
            "list extensions there"
        )


def adapter_module(model: TimmModule) -> str | None:
    """What is imported to make the adapter of a model known; None: it has none."""
    return CHOICES["adapter"][describe(model)["name"]].__module__ if isinstance(model, AdaptedModel) else None


def _available() -> str:
    models = sorted(str(path.parent) for path in FOLDER.glob(f"*/{CARD}"))
    if not models:
        return f"trained models are the folders in {FOLDER}/, which `dvc repro` makes"
    return f"trained models are {', '.join(models[:8])}{', ...' if len(models) > 8 else ''}"
