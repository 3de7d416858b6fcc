"""Top-down attention (TOAST: Shi et al., arXiv 2305.15542): a frozen transformer looks twice.

What the first pass saw is weighted by its likeness to a learned task vector, and travels down through one
decoder per block, from the last to the first. What each decoder emits is added, as further input, to the
values of its block in the second pass, which gives the answer.

Shapes: B images, N tokens, D channels.
"""

import copy
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.adapters.adapted import AdaptedModel, Around, trunc_normal
from stochca.adapters.low_rank import check_installed, inject, merge
from stochca.config.adapters.toast import ToastLite
from stochca.errors import UserError, one_line
from stochca.timm_models.key_value import swapped
from stochca.timm_models.projections import attention_layers, changed, projections_of
from stochca.timm_models.support import check_supported

NOT_PRETUNED = (
    "TOAST's decoders started at random, not pre-tuned for this backbone, which the method needs to reach "
    "what its paper reports"
)


class TOAST(AdaptedModel):
    """Wrap a pretrained transformer so that its top-down attention and its head learn, and nothing else.

    Args:
        model: a timm transformer with its new head; it is frozen, its head excepted.
        lite: the decoders learn low-rank updates alone (through `peft`), and the task vector's transform,
            which otherwise stays the identity, learns too.
        rank: of these updates, which count alpha / rank.
        decoders: a file of decoders that were pre-tuned for this backbone; None: they start at random, and
            training warns of it.

    Raises:
        UserError: the architecture is not supported, or the decoders don't fit it.

    >>> model = TOAST(timm.create_model("vit_base_patch16_224", pretrained=True, num_classes=200))
    >>> loss = criterion(model(images), labels)
    """

    title = "TOAST"

    def __init__(
        self,
        model: TimmModule,
        lite: bool = False,
        *,
        rank: int = 4,
        alpha: float = 4.0,
        decoders: Path | None = None,
    ) -> None:
        super().__init__(model)
        self.options = {}  # merged, TOAST-Lite is a TOAST like others
        self.decoders = make_decoders(model)
        self.task = trunc_normal(model.embed_dim)  # ξ
        self.transform = nn.Parameter(torch.eye(model.embed_dim), requires_grad=lite)  # P
        self.pretuned = decoders is not None
        if decoders is not None:
            load_decoders(self.decoders, decoders)
        if lite:
            names = [name for name, module in self.decoders.named_modules() if isinstance(module, nn.Linear)]
            inject(self.decoders, names, rank=rank, alpha=alpha)

    @classmethod
    def check(cls, model: TimmModule) -> None:
        super().check(model)
        check_supported(model)

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        super().load_adapter_state(state)
        self.pretuned = True

    def adapted_features(self, images: Tensor) -> Tensor:
        """Tokens (B, N, D) of the second pass."""
        if self.training and not self.pretuned:
            self.pretuned = True  # said once
            warnings.warn(
                f"{NOT_PRETUNED}; pre-tune them (stochca.training.pretuning, or dvc repro pretune), and pass "
                "their file as decoders",
                stacklevel=2,
            )
        with torch.no_grad():
            seen_BND = self.backbone.forward_features(images)
        likeness_BN = functional.cosine_similarity(seen_BND, self.task, dim=-1).clamp(0, 1)
        signal_BND = (seen_BND * likeness_BN[..., None]) @ self.transform
        blocks = [
            changed(
                block,
                [partial(projections_of(layer).informed, emitted_BND) for layer in attention_layers(block)],
            )
            for block, emitted_BND in zip(self.backbone.blocks, self._descend(signal_BND), strict=True)
        ]
        with swapped(self.backbone, blocks=nn.Sequential(*blocks)):
            return self.backbone.forward_features(images)

    def _descend(self, signal_BND: Tensor) -> Sequence[Tensor]:
        """What each decoder emits, by block."""
        emitted = []
        for decoder in reversed(self.decoders):
            signal_BND, emitted_BND = decoder(signal_BND)
            emitted.append(emitted_BND)
        return emitted[::-1]


class Decoder(nn.Module):
    """Passes the signal on to the block below, and emits what the block is told."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pass_on = nn.Linear(dim, dim, bias=False)
        self.emit = nn.Linear(dim, dim, bias=False)
        for linear in (self.pass_on, self.emit):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def forward(self, signal_BND: Tensor) -> tuple[Tensor, Tensor]:
        signal_BND = self.pass_on(signal_BND)
        return signal_BND, self.emit(signal_BND)


def make_decoders(model: TimmModule) -> nn.ModuleList:
    """One random decoder per block."""
    return nn.ModuleList(Decoder(model.embed_dim) for _ in model.blocks)


def load_decoders(decoders: nn.ModuleList, path: Path) -> None:
    """Fill in pre-tuned weights.

    Raises:
        UserError: the file can't be read, or its decoders are for another architecture.
    """
    try:
        decoders.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; pre-tune decoders first: dvc repro pretune") from None
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = one_line(error)
        raise UserError(
            f"{path} holds no decoders for this backbone ({reason}); pre-tune them again"
        ) from None


class TopDown(Around):
    """The choices `adapter: toast` and `adapter: toast_lite`."""

    model_class = TOAST

    def check(self, student: TimmModule) -> None:
        super().check(student)
        if isinstance(self.config, ToastLite):
            check_installed()

    def adapt(self, student: TimmModule) -> TOAST:
        config = self.config
        decoders = None if config.decoders is None else Path(config.decoders)
        if isinstance(config, ToastLite):
            toast = TOAST(student, True, rank=config.rank, alpha=config.alpha, decoders=decoders)
        else:
            toast = TOAST(student, decoders=decoders)
        toast.pretuned = True  # or `notes` says it
        return toast

    def plain(self, adapted: TOAST) -> TOAST:
        return self.finish(copy.deepcopy(adapted)) if isinstance(self.config, ToastLite) else adapted

    def finish(self, adapted: TOAST) -> TOAST:
        if isinstance(self.config, ToastLite):
            merge(adapted.decoders)
        return adapted

    @property
    def notes(self) -> list[str]:
        if self.config.decoders is not None:
            return []
        return [
            f"WARNING: {NOT_PRETUNED}. Pre-tune them (dvc repro pretune), and name their file in the method: "
            "adapter.decoders."
        ]
