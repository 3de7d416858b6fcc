"""Terms added to the loss, so that fine-tuning does not lose what pretraining has learned.

Adding one: its settings in `methods.py`, one class here, one line in `PENALTIES`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.adapters.adaptation import head_modules
from stochca.config import Bss, CoTuning, Delta, L2Sp, Miro, Penalty
from stochca.data.examples import Examples
from stochca.errors import UserError
from stochca.penalties.cotuning import learn_relationship
from stochca.penalties.delta import channel_attention
from stochca.timm_models.families import blocks_of
from stochca.timm_models.recording import Records, records_of

MIRO_FLOOR = 1e-5  # added to the variances
MIRO_START = 0.1  # of the variances


@dataclass(frozen=True)
class Start:
    """Where fine-tuning begins: a frozen copy of the student, and the classifier of its pretraining."""

    model: TimmModule
    source_head: nn.Linear | None

    @classmethod
    def of(cls, student: TimmModule, source_head: nn.Linear | None) -> "Start":
        return cls(copy.deepcopy(student).requires_grad_(False).eval(), source_head)


class Batch:
    """A batch after the student's forward pass; made in the autocast of that pass."""

    def __init__(self, images: Tensor, targets: Tensor, student: Records, start: Start) -> None:
        self.images = images  # (B, 3, height, width)
        self.targets = targets  # probabilities of the classes, (B, classes)
        self.student = student
        self._start = start
        device = images.device.type
        self._autocast = torch.autocast(
            device, torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device)
        )

    @cached_property
    def start(self) -> Records:
        """What the pretrained model computes on the same images; it runs when this is asked for.

        In the student's precision, so that their difference is what training changed.
        """
        with self._autocast:
            return records_of(self._start.model, self.images)


class Term:
    """One term of the loss. `student` is what is trained; it must not be changed."""

    replaces_weight_decay = False

    def __init__(self, config: Any, student: TimmModule, start: Start, examples: Examples) -> None:
        self.config = config

    def __call__(self, batch: Batch) -> Tensor:
        raise NotImplementedError

    def modules(self) -> dict[str, tuple[nn.Module, float]]:
        """What the term trains itself, each with the factor of its learning rate."""
        return {}


class StartingPoint(Term):
    """L2-SP: β/2 ‖w − w₀‖² over the backbone + β_head/2 ‖w_head‖² (equation 3)."""

    replaces_weight_decay = True

    def __init__(self, config: L2Sp, student: TimmModule, start: Start, examples: Examples) -> None:
        super().__init__(config, student, start, examples)
        head = {id(parameter) for module in head_modules(student) for parameter in module.parameters()}
        before = dict(start.model.named_parameters())
        self.head = [parameter for parameter in student.parameters() if id(parameter) in head]
        self.backbone = [
            (parameter, before[name])
            for name, parameter in student.named_parameters()
            if id(parameter) not in head
        ]

    def __call__(self, batch: Batch) -> Tensor:
        distance = torch.stack([(now - then).square().sum() for now, then in self.backbone]).sum()
        norm = torch.stack([parameter.square().sum() for parameter in self.head]).sum()
        return (self.config.weight * distance + self.config.head_weight * norm) / 2


class KeptOutputs(Term):
    """DELTA: β/2 Σ_blocks Σ_channels W ‖F − F₀‖², the mean over images and tokens; a block's W sum to D."""

    def __init__(self, config: Delta, student: TimmModule, start: Start, examples: Examples) -> None:
        super().__init__(config, student, start, examples)
        self.attention: list[Tensor | None] = [None] * len(blocks_of(student))
        if config.attention:
            self.attention = [*channel_attention(start.model, examples, config.images)]

    def __call__(self, batch: Batch) -> Tensor:
        terms = []
        for now, then, attention in zip(
            batch.student.blocks, batch.start.blocks, self.attention, strict=True
        ):
            squares = (now - then).square()
            weighted = squares if attention is None else squares * attention.to(squares.device)
            terms.append(weighted.sum(dim=-1).mean())
        return self.config.weight * torch.stack(terms).sum() / 2


class SmallSingularValues(Term):
    """BSS: η Σ σ² over the k smallest singular values of the features of a batch (B, D) (equation 4)."""

    def __call__(self, batch: Batch) -> Tensor:
        assert batch.student.pooled is not None
        values = torch.linalg.svdvals(batch.student.pooled)
        return self.config.weight * values[-self.config.k :].square().sum()


class CoTrainedSource(Term):
    """Co-Tuning: λ · cross-entropy of the source classifier against p(source class | target class)."""

    def __init__(self, config: CoTuning, student: TimmModule, start: Start, examples: Examples) -> None:
        super().__init__(config, student, start, examples)
        assert start.source_head is not None  # check_penalties has seen to it
        device = next(student.parameters()).device
        self.table = learn_relationship(start.model, start.source_head, examples).table.to(device)
        self.head = copy.deepcopy(start.source_head).to(device).requires_grad_(True)

    def __call__(self, batch: Batch) -> Tensor:
        assert batch.student.pooled is not None
        targets = batch.targets @ self.table.to(batch.targets.dtype)
        with torch.autocast(batch.images.device.type, enabled=False):
            logits = self.head(batch.student.pooled)
        return self.config.weight * functional.cross_entropy(logits, targets)

    def modules(self) -> dict[str, tuple[nn.Module, float]]:
        return {"source_head": (self.head, 1.0)}


class SharedInformation(Term):
    """MIRO: λ/2 Σ_layers mean[(f − f₀)²/σ² + log σ²]; the encoder of the mean is the identity (equation 4).

    The layers are the patch embedding and the last block of each quarter; σ² is one value per channel.
    """

    def __init__(self, config: Miro, student: TimmModule, start: Start, examples: Examples) -> None:
        super().__init__(config, student, start, examples)
        depth = len(blocks_of(student))
        self.layers = sorted({max(0, round(depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4)})
        raw = torch.tensor(MIRO_START - MIRO_FLOOR).expm1().log()  # softplus of it is the start
        image, _ = examples.train[0]
        pixels = examples.preprocessing.evaluation()(image).to(next(student.parameters()).device)
        layers = self._layers(records_of(start.model, pixels.unsqueeze(0)))  # their widths may differ
        self.raw = nn.ParameterList(
            nn.Parameter(raw.to(pixels).expand(layer.shape[-1]).clone()) for layer in layers
        )

    def __call__(self, batch: Batch) -> Tensor:
        terms = []
        layers = zip(self._layers(batch.student), self._layers(batch.start), self.raw, strict=True)
        for now, then, raw in layers:
            variance = functional.softplus(raw) + MIRO_FLOOR
            terms.append(((now - then).square() / variance + variance.log()).mean())
        return self.config.weight * torch.stack(terms).sum() / 2

    def _layers(self, records: Records) -> list[Tensor]:
        assert records.embedding is not None
        return [records.embedding, *(records.blocks[i] for i in self.layers)]

    def modules(self) -> dict[str, tuple[nn.Module, float]]:
        return {"variances": (self.raw, self.config.lr_scale)}


PENALTIES: dict[type, type[Term]] = {
    L2Sp: StartingPoint,
    Delta: KeptOutputs,
    Bss: SmallSingularValues,
    CoTuning: CoTrainedSource,
    Miro: SharedInformation,
}


def start_terms(
    configs: Sequence[Penalty], student: TimmModule, start: Start, examples: Examples
) -> list[Term]:
    """The terms of a method, at the start of training; some look at training images for it."""
    return [PENALTIES[type(config)](config, student, start, examples) for config in configs]


def check_penalties(configs: Sequence[Penalty], source_head: nn.Linear | None, micro_batch: int) -> None:
    """Raise `UserError` where a penalty lacks what it needs."""
    for config in configs:
        if isinstance(config, CoTuning) and source_head is None:
            raise UserError(
                "penalties cotuning needs a backbone with the classifier of its pretraining, and this one "
                "has none; choose weights with a head, such as vit_base_patch16_224.augreg_in1k from the hub"
            )
        if isinstance(config, Bss) and micro_batch < config.k:
            raise UserError(
                f"penalties bss takes the {config.k} smallest singular values (k) of a batch, but there are "
                f"only {micro_batch} images in one; raise training.batch_size or lower k"
            )
