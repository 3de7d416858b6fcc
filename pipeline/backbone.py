"""Stage `backbone`: pretrained weights, fitted to the image size, in `data/backbone/`; teachers inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.config.params import Backbone, Params, load_params, settings_kept
from pipeline.runtime.boundary import run
from pipeline.runtime.code import code_of
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, sha256, write_json
from pipeline.runtime.paths import BACKBONE as TARGET
from pipeline.weights.remarks import remarks
from pipeline.weights.sources import fetch_weights, log
from stochca.backbones.card import CARD_FILE, WEIGHTS_FILE, BackboneCard, teacher_folder
from stochca.backbones.loading import (
    adapt_weights,
    create_backbone,
    head_prefixes,
    patch_size,
    pooling_options,
)
from stochca.backbones.prefixes import without_prefix
from stochca.errors import UserError
from stochca.timm_models.families import block_names
from stochca.timm_models.support import check_same_architecture


def make_backbone(
    backbone: Backbone, image_size: int, target: Path, resize: int | None = None
) -> BackboneCard:
    """Write the backbone folder `target` from what `backbone` names; all or nothing.

    Raises:
        UserError: architecture, image size or pooling don't go together (found before anything is
            fetched), the weights can't be had, or they don't fit.
    """
    with torch.device("meta"):
        skeleton = create_backbone(
            backbone.name, image_size=image_size, num_classes=0, global_pool=backbone.global_pool
        )
    for remark in remarks(backbone):
        log(remark)
    weights = fetch_weights(backbone)
    found = without_prefix(weights.state_dict, skeleton.state_dict().keys(), weights.source)
    if len(found) < len(weights.state_dict):
        log(f"{len(weights.state_dict) - len(found)} tensors that stand beside the model were left out")
    model = adapt_weights(
        found,
        backbone.name,
        image_size=image_size,
        global_pool=backbone.global_pool,
        source=weights.source,
    )
    for name, tensor in model.state_dict().items():
        before, after = ("x".join(map(str, shape)) for shape in (found.get(name, tensor).shape, tensor.shape))
        if before != after:
            log(f"{name} was resampled from {before} to {after}")
    with replace_folder(target) as folder:
        state_dict = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(state_dict, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        config = model.pretrained_cfg
        card = BackboneCard(
            architecture=backbone.name,
            source=weights.source,
            source_sha256=weights.sha256,
            weights_sha256=sha256(folder / WEIGHTS_FILE),
            license=weights.license,
            parameters=sum(
                parameter.numel()
                for name, parameter in model.named_parameters()
                if not name.startswith(head_prefixes(model))
            ),
            blocks=len(block_names(model)),
            image_size=image_size,
            patch_size=patch_size(model),
            global_pool=pooling_options(model)["global_pool"],
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            interpolation=config["interpolation"],
            source_classes=model.num_classes,
            resize=resize,
        )
        write_json(folder / CARD_FILE, card.to_dict())
    return card


def make_backbones(params: Params, target: Path) -> BackboneCard:
    """Write the backbone folder `target` with all teachers in it; returns the backbone's card.

    Raises:
        UserError: as `make_backbone`, or a teacher's architecture is another than the backbone's, which is
            found before anything is fetched.
    """
    for name, teacher in params.teachers.items():
        with naming(f"teachers.{name}"), torch.device("meta"):
            models = [
                create_backbone(
                    one.name, image_size=params.image_size, num_classes=0, global_pool=one.global_pool
                )
                for one in (params.backbone, teacher)
            ]
            check_same_architecture(*models)
    with replace_folder(target) as folder:
        card = make_backbone(params.backbone, params.image_size, folder, params.resize)
        for name, teacher in params.teachers.items():
            with naming(f"teachers.{name}"):
                make_backbone(teacher, params.image_size, teacher_folder(folder, name), params.resize)
    return card


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Say in what is raised which key of params.yaml it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def main() -> None:
    params = load_params()

    def view(settings: Params) -> Any:
        return settings.backbone, settings.teachers, settings.image_size, settings.resize

    with exclusive("backbone"), settings_kept(params, view, "the stage backbone", *code_of("backbone")):
        card = make_backbones(params, TARGET)
    grid = card.image_size // card.patch_size
    log(
        f"{card.architecture} in {TARGET}: {card.parameters:,} parameters in {card.blocks} blocks, "
        f"{grid}x{grid} patches of {card.patch_size} pixels, license {card.license or 'unknown'}"
    )


if __name__ == "__main__":
    run(main)
