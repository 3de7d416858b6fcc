"""Backbones: transformers of timm at an image size, with pretrained weights and a fresh head.

What lies in a backbone folder: see `stochca.backbones.card`.
"""

import difflib
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.backbones.card import CARD_FILE, WEIGHTS_FILE, BackboneCard
from stochca.backbones.prefixes import without_prefix
from stochca.errors import UserError, one_line
from stochca.timm_models.families import family_of
from stochca.timm_models.normalisation import say_normalisation
from stochca.timm_models.support import check_supported


def create_backbone(
    architecture: str,
    *,
    image_size: int,
    num_classes: int,
    global_pool: str | None = None,
    drop_path: float = 0.0,
) -> TimmModule:
    """Create a timm model for images (B, 3, image_size, image_size), with random weights.

    Args:
        architecture: timm's name of a transformer, with or without a tag.
        image_size: pixels; a multiple of the patch size, or what the architecture's windows allow.
        num_classes: outputs of the head; 0: no head, the model gives its pooled features.
        global_pool: token, avg, avgmax or max; None: the architecture's own. The final norm stays where
            the architecture has it, so that its pretrained weights are used whatever the pooling.
        drop_path: rate of stochastic depth at the last block.

    Raises:
        UserError: timm does not know the architecture, it is not supported, or image size or pooling
            do not suit it. Under `torch.device("meta")` nothing but these checks costs anything.
    """
    arguments, _ = _checked_arguments(architecture, image_size, global_pool)
    return timm.create_model(architecture, num_classes=num_classes, drop_path_rate=drop_path, **arguments)


def adapt_weights(
    state_dict: Mapping[str, Tensor],
    architecture: str,
    *,
    image_size: int,
    global_pool: str | None = None,
    source: str = "the checkpoint",
) -> TimmModule:
    """Create a model with these weights, its positions and patches resampled to the image size by timm.

    Every tensor must find its place, but for those beside the one model that a longer state dict has under a
    prefix (`model.`, `student.`). The head is as large as the state dict's, or absent as there;
    attention pooling that `global_pool` replaces is left out.

    Args:
        state_dict: in timm's layout, or in one that timm converts (OpenAI's CLIP, DINOv2, ...).
        source: what the sentence of the error calls the state dict.

    Raises:
        UserError: as `create_backbone`; or tensors do not fit, are missing or have no place, or hold no
            weights that could be trained.
    """
    arguments, skeleton = _checked_arguments(architecture, image_size, global_pool)
    heads = head_prefixes(skeleton)
    body = {name for name in skeleton.state_dict() if not name.startswith(heads)}
    state_dict = without_prefix(state_dict, body, source)
    try:
        converted = family_of(skeleton).convert(dict(state_dict), skeleton)
    except Exception as error:
        # timm's converters fail in many ways on tensors that are not what their names promise.
        reason = one_line(error)
        raise UserError(
            f"{source} can't be converted to {architecture}: {reason}; is backbone.name right?"
        ) from error
    unused = () if getattr(skeleton, "attn_pool", None) is not None else ("attn_pool.",)
    classifier = f"{heads[0]}weight"
    num_classes = len(converted[classifier]) if classifier in converted else 0
    skeleton.reset_classifier(num_classes)
    found = {name: tensor for name, tensor in converted.items() if not name.startswith(unused)}
    if not found.keys() & body:
        some = ", ".join(sorted(state_dict)[:4])
        raise UserError(
            f"{source} holds no tensor that {architecture} has; its tensors are called {some}, ...: give the "
            "weights of this architecture, in the layout of timm or of its authors"
        )
    _check_fit(
        found, skeleton.state_dict(), f"{source} does not fit {architecture} at image size {image_size}"
    )
    _check_values(found, skeleton.state_dict(), source)
    weights = {name: tensor for name, tensor in state_dict.items() if not name.startswith(unused)}
    model = timm.create_model(
        architecture,
        pretrained=True,  # timm's own path, which knows how each architecture's positions are resampled
        pretrained_cfg_overlay={"state_dict": weights, "num_classes": num_classes, "label_offset": 0},
        num_classes=num_classes,
        **arguments,
    )
    del model.pretrained_cfg["state_dict"]
    return model


def load_backbone(
    folder: Path,
    *,
    num_classes: int,
    drop_path: float = 0.0,
    seed: int = 0,
) -> TimmModule:
    """Load the model of a backbone folder, with a fresh head.

    The head is initialised as timm does, by `seed` alone; the global random state stays as it is.

    Raises:
        UserError: the folder is incomplete or damaged, or its weights are not those of its card.
    """
    card = BackboneCard.from_file(folder / CARD_FILE)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; run the stage backbone again")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != card.weights_sha256:
        raise UserError(
            f"{path} is not what {CARD_FILE} describes: its sha256 is {sha256}, not {card.weights_sha256}; "
            "run the stage backbone again"
        )
    # What create_backbone checks was checked before the card was written.
    arguments = _arguments(card.architecture, card.image_size, card.global_pool)
    with torch.random.fork_rng(devices=[]):  # the CPU's state is put back, no other is touched
        torch.random.default_generator.manual_seed(seed)
        model = timm.create_model(
            card.architecture, num_classes=num_classes, drop_path_rate=drop_path, **arguments
        )
    state_dict = model.state_dict()
    heads = head_prefixes(model)
    head = {name: tensor for name, tensor in state_dict.items() if name.startswith(heads)}
    body = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(heads)}
    _check_fit(body | head, state_dict, f"{path} does not fit {card.architecture}")
    model.load_state_dict(body | head)
    say_normalisation(model, card.mean, card.std)
    return model


def load_source_head(folder: Path) -> nn.Linear | None:
    """The classifier of the backbone's pretraining, where its file has one."""
    card = BackboneCard.from_file(folder / CARD_FILE)
    if not card.source_classes or is_projection(card.architecture, card.source_classes):
        return None
    prefix = head_prefixes(_default_model(card.architecture))[0]
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:  # reads nothing else of the file
        tensors = {name: weights.get_tensor(prefix + name) for name in ("weight", "bias")}
    head = nn.Linear(tensors["weight"].shape[1], card.source_classes)
    head.load_state_dict(tensors)
    return head.requires_grad_(False)


def is_projection(architecture: str, outputs: int) -> bool:
    """Whether a head is a CLIP's, whose outputs are no classes but coordinates of images among texts."""
    base = architecture.partition(".")[0]
    names = timm.list_models(f"{base}.*", pretrained=True)
    matched_with_texts = [
        name for name in names if ("clip" in name or "_pe_core_" in name) and "_ft_" not in name
    ]
    return outputs in {timm.get_pretrained_cfg(name).num_classes for name in matched_with_texts}


def head_prefixes(model: TimmModule) -> tuple[str, ...]:
    """What the names of the classifier's tensors begin with; distilled models have two classifiers."""
    classifiers = model.pretrained_cfg["classifier"] or "head"  # not said of models that timm does not list
    names = (classifiers,) if isinstance(classifiers, str) else classifiers
    return tuple(f"{name}." for name in names)


def pooling_options(model: TimmModule) -> dict[str, Any]:
    """The arguments of `timm.create_model` that make another model pool, and norm, as this one does."""
    pooling = getattr(model, "global_pool", None)
    options = {"global_pool": pooling if isinstance(pooling, str) else model.head.global_pool.pool_type}
    argument = family_of(model).norm_argument
    norms_after_pooling = not isinstance(getattr(model, "fc_norm", nn.Identity()), nn.Identity)
    return options if argument is None else {**options, argument: norms_after_pooling}


def patch_size(model: TimmModule) -> int:
    """Pixels on the side of a patch, or the pixels that image sizes of the model are multiples of."""
    embedding: TimmModule = getattr(model, "patch_embed", None)
    if hasattr(embedding, "feat_ratio"):
        return embedding.feat_ratio()
    return model.feature_info[-1]["reduction"]


def _checked_arguments(
    architecture: str, image_size: int, global_pool: str | None
) -> tuple[dict[str, Any], TimmModule]:
    """Arguments of `timm.create_model` that passed every check, and what they make on the meta device."""
    model = _default_model(architecture)
    check_supported(model)
    step = patch_size(model)
    if image_size < step or image_size % step:
        below = image_size // step * step
        sizes = " and ".join(str(size) for size in (below, below + step) if size)
        raise UserError(
            f"image_size {image_size} is no multiple of the patch size {step} of {architecture}; "
            f"nearest: {sizes}"
        )
    arguments = _arguments(architecture, image_size, global_pool)
    try:
        with torch.device("meta"):
            skeleton = timm.create_model(architecture, **arguments)
    except AssertionError as error:
        raise UserError(
            f"global_pool {global_pool!r} does not suit {architecture} ({error}); "
            f"its own is {pooling_options(model)['global_pool']!r}"
        ) from None
    try:
        skeleton(torch.empty(1, 3, image_size, image_size, device="meta"))
    except (AssertionError, RuntimeError) as error:
        # Windows that don't divide the image are found by timm itself.
        raise UserError(
            f"image_size {image_size} does not suit the windows of {architecture} "
            f"({' '.join(str(error).split())[:200]}); its own is {model.pretrained_cfg['input_size'][-1]}"
        ) from None
    return arguments, skeleton


def _arguments(architecture: str, image_size: int, global_pool: str | None) -> dict[str, Any]:
    if global_pool is None:
        return {"img_size": image_size}
    # The norm stays where it is, whatever the pooling.
    options = pooling_options(_default_model(architecture))
    return {"img_size": image_size, **options, "global_pool": global_pool}


@lru_cache(1)
def _default_model(architecture: str) -> TimmModule:
    """The architecture as timm makes it by default, on the meta device: no memory for weights."""
    if not timm.is_model(architecture):
        known = timm.list_models()
        base = architecture.split(".")[0]
        nearest = difflib.get_close_matches(base, known, n=3) or timm.list_models(f"*{base}*")[:3]
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "timm.list_models('vit_*') shows some"
        raise UserError(f"timm has no architecture {architecture!r}; {hint}")
    base, _, tag = architecture.partition(".")
    tags = [name.partition(".")[2] for name in timm.list_models(f"{base}.*", pretrained=True)]
    if tag and tag not in tags:
        raise UserError(
            f"{base} has no pretrained weights tagged {tag!r} in timm; it has {', '.join(tags) or 'none'}"
        )
    with torch.device("meta"):
        return timm.create_model(architecture)


def _check_fit(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], subject: str) -> None:
    """Raise `UserError` that names the first tensors of `found` that are not as `expected`, with shapes."""

    def shape(tensor: Tensor) -> str:
        return "x".join(map(str, tensor.shape)) or "scalar"

    misfits = [
        *(
            f"{name} is {shape(found[name])}, not {shape(tensor)}"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ),
        *(f"{name} ({shape(tensor)}) is missing" for name, tensor in expected.items() if name not in found),
        *(f"{name} ({shape(tensor)}) has no place" for name, tensor in found.items() if name not in expected),
    ]
    if misfits:
        rest = f", and {len(misfits) - 3} more" if len(misfits) > 3 else ""
        raise UserError(f"{subject}: {', '.join(misfits[:3])}{rest}")


def _check_values(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> None:
    """Raise `UserError` for whole numbers in place of weights, and for what is not finite."""
    for name, tensor in found.items():
        if expected[name].is_floating_point() and not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{source} has whole numbers ({kind}) in {name}, as quantised weights are; give those that "
                "they were made of"
            )
        if not tensor.float().isfinite().all():
            raise UserError(
                f"{source} has values in {name} that are not finite: it is damaged, or diverged in training; "
                "give another checkpoint"
            )
