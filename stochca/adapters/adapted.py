"""A frozen backbone with something around it that learns: what VPT and TOAST have in common.

Its file is small, and worth nothing without the backbone that it was made for.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation, unfreeze_heads
from stochca.backbones.loading import load_backbone
from stochca.compute.sampled import are_of_one_model, numbers_of
from stochca.config import CHOICES, code_of
from stochca.errors import UserError
from stochca.timm_models.families import head_modules, head_parameters, positions_of
from stochca.timm_models.threads import alone_with
from stochca.timm_models.wrapper import Wrapper

MADE_FOR = "made_for"  # the name of the backbone's sample among the tensors


class AdaptedModel(Wrapper):
    """Stands where a timm model stands. The backbone is frozen and stays in evaluation mode; its head learns.

    Raises:
        UserError: the architecture is not supported.
    """

    wrapped = "backbone"
    title: str  # what a sentence calls it
    options: dict[str, Any]  # what makes the same model around another copy of the backbone

    def __init__(self, model: TimmModule) -> None:
        super().__init__()
        self.check(model)
        self.backbone: TimmModule = model.requires_grad_(False)
        unfreeze_heads(model)

    @classmethod
    def check(cls, model: TimmModule) -> None:
        """Raise `UserError` where the architecture is not supported."""
        positions_of(model, cls.title)

    def train(self, mode: bool = True) -> "AdaptedModel":
        super().train(mode)
        self.backbone.eval()
        for head in head_modules(self):
            head.train(mode)
        return self

    def adapter_state(self) -> dict[str, Tensor]:
        """The tensors that the frozen backbone does not have: what was added, and the head.

        With a sample of the backbone, by which loading can tell another one.
        """
        head = head_parameters(self)
        frozen = {
            f"backbone.{name}": value
            for name, value in self.backbone.state_dict(keep_vars=True).items()
            if id(value) not in head
        }
        own = {name: value for name, value in self.state_dict().items() if name not in frozen}
        return own | {MADE_FOR: numbers_of(v for v in frozen.values() if isinstance(v, nn.Parameter))}

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `adapter_state` gave.

        Raises:
            UserError: it was made for another backbone.
            RuntimeError: names or shapes differ.
        """
        own = self.adapter_state()
        if not are_of_one_model(state.get(MADE_FOR, own[MADE_FOR]), own[MADE_FOR]):  # old files have none
            raise UserError(
                f"the adapter was made for another backbone than this {self.title} has; put it around the "
                "weights that it was trained with"
            )
        missing = (own.keys() ^ state.keys()) - {MADE_FOR}
        if missing:
            raise RuntimeError(f"the adapter's tensors differ: {', '.join(sorted(missing))}")
        self.load_state_dict({name: value for name, value in state.items() if name != MADE_FOR}, strict=False)

    def forward_features(self, images: Tensor) -> Tensor:
        """Tokens (B, N, D) as the backbone's own `forward_features` gives them."""
        with alone_with(self.backbone):
            return self.adapted_features(images)

    def adapted_features(self, images: Tensor) -> Tensor:
        """What `forward_features` gives; it may exchange parts of the backbone for as long as it runs."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of `images` (B, 3, height, width)."""
        return self.forward_head(self.forward_features(images))


class Around(Adaptation):
    """A choice of `adapter` that puts a module around the frozen backbone."""

    model_class: type[AdaptedModel]

    def check(self, student: TimmModule) -> None:
        self.model_class.check(student)


def trunc_normal(*shape: int) -> nn.Parameter:
    """As timm starts the tokens of its transformers."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def kinds() -> dict[str, type[AdaptedModel]]:
    """The models with an adapter, by the choice that makes them."""
    codes = {name: code_of(options) for name, options in CHOICES["adapter"].items()}
    return {name: code.model_class for name, code in codes.items() if issubclass(code, Around)}


def describe(model: AdaptedModel) -> dict[str, Any]:
    """What `load_adapted` has to know beside the tensors, as JSON knows it."""
    name = next(name for name, kind in kinds().items() if kind is type(model))
    return {"name": name, **model.options}


def load_adapted(
    path: Path, description: dict[str, Any], backbone: Path, *, num_classes: int
) -> AdaptedModel:
    """Put an adapter, the file of `AdaptedModel.adapter_state`, on the model of a backbone folder.

    Raises:
        UserError: the backbone's folder is incomplete or damaged, or of another backbone.
        RuntimeError: the adapter does not fit it.
    """
    options = {key: value for key, value in description.items() if key != "name"}
    model = kinds()[description["name"]](load_backbone(backbone, num_classes=num_classes), **options)
    model.load_adapter_state(load_file(path))
    return model.eval()
