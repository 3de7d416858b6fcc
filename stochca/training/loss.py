"""The loss of a batch: cross-entropy, and the terms that a method adds to it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.compute.randomness import Stream, derived_seed, isolated
from stochca.config import Penalty, build
from stochca.config.training import Training
from stochca.data.class_weights import cross_entropy
from stochca.data.examples import Examples
from stochca.penalties.term import Batch, Start, Term
from stochca.timm_models.recording import recorded


class Loss:
    """Cross-entropy of a model on a batch, with mixup, smoothing, weights of classes and penalties if set."""

    def __init__(
        self,
        student: TimmModule,
        settings: Training,
        seed: int,
        penalties: Sequence[Penalty] = (),
        source_head: nn.Linear | None = None,
        examples: Examples | None = None,
    ) -> None:
        self.student, self.settings, self.seed = student, settings, seed
        self.class_weights = None if examples is None else examples.class_weights
        augmentation = settings.augmentation
        self.mix: Mixup | None = None
        if augmentation.mixes:
            self.mix = Mixup(
                mixup_alpha=augmentation.mixup,
                cutmix_alpha=augmentation.cutmix,
                label_smoothing=settings.label_smoothing,
                num_classes=student.num_classes,
            )
        self.start: Start | None = None
        self.terms: list[Term] = []
        if penalties:
            assert examples is not None
            self.start = Start.of(student, source_head)
            self.terms = [build(penalty, student, self.start, examples) for penalty in penalties]

    def __call__(
        self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, step: int
    ) -> Tensor:
        """`model` is what trains the student: itself, or what wraps it."""
        targets = functional.one_hot(labels, self.student.num_classes).float() if self.terms else labels
        smoothing = self.settings.label_smoothing
        if self.mix is not None:
            with isolated(derived_seed(self.seed, Stream.MIX, step)):
                images, targets = self.mix(images, labels)
            smoothing = 0.0  # mixed in already
        if not self.terms:
            return cross_entropy(model(images).float(), targets, self.class_weights, smoothing)
        assert self.start is not None
        with recorded(self.student) as records:
            logits = model(images).float()
        batch = Batch(images, targets, records, self.start)
        loss = cross_entropy(logits, targets, self.class_weights, smoothing)
        with torch.autocast(images.device.type, enabled=False):
            return loss + torch.stack([term(batch) for term in self.terms]).sum()

    @property
    def modules(self) -> dict[str, tuple[nn.Module, float]]:
        """What the terms train themselves, with the factors of their learning rates."""
        return {
            f"{place}.{name}": value
            for place, term in enumerate(self.terms)
            for name, value in term.modules().items()
        }

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [parameter for module, _ in self.modules.values() for parameter in module.parameters()]

    @property
    def replaces_weight_decay(self) -> bool:
        return any(term.replaces_weight_decay for term in self.terms)

    def state_dict(self) -> dict[str, Any]:
        return {name: module.state_dict() for name, (module, _) in self.modules.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, (module, _) in self.modules.items():
            module.load_state_dict(state[name])
