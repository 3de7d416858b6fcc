"""DELTA (Li et al., ICLR 2019): block outputs stay as pretrained, the most where it matters."""

import dataclasses
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.config.penalties.delta import Delta
from stochca.data.batches import evaluation_batches
from stochca.data.examples import Examples
from stochca.penalties.term import Batch, Start, Term
from stochca.phases.linear_head import features, fit_logistic_regression
from stochca.timm_models.families import blocks_of, family_of
from stochca.timm_models.recording import channels_last

STRENGTH = 0.01  # C of the head that is fitted first
BATCH = 32


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


def channel_attention(model: TimmModule, examples: Examples, number: int) -> list[Tensor]:
    """One weight per channel of each block's output, (D,), whose sum is D.

    A head is fitted to the frozen features first. How much the loss would rise without a channel, that is
    with its activations at zero, is taken to first order: minus the sum of gradient times activation, the
    mean over images. The weights are the softmax of these rises over the block's channels, times D. (The
    paper switches every channel off in turn, which takes as many passes as there are channels.)

    Args:
        model: frozen.
        number: how many of the training images are looked at, evenly from the first to the last: they may be
            in the order of their classes.
    """
    count = min(number, len(examples.train))
    shown = [examples.train[len(examples.train) * i // count] for i in range(count)]
    rows, labels = features(model, shown, dataclasses.replace(examples, precision="fp32", workers=0))
    weight, bias = fit_logistic_regression(rows, labels, model.num_classes, STRENGTH)
    head = weight.to(examples.device), bias.to(examples.device)
    batches = [
        _rises(model, images.to(examples.device), batch_labels.to(examples.device), head)
        for images, batch_labels in evaluation_batches(shown, examples.preprocessing, batch_size=BATCH)
    ]
    totals = [torch.stack(rises).sum(dim=0) for rises in zip(*batches, strict=True)]
    return [torch.softmax(total / len(shown), dim=0) * len(total) for total in totals]


def _rises(model: TimmModule, images: Tensor, labels: Tensor, head: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Per block how much the summed loss would rise without each channel, to first order: (D,)."""
    outputs: list[Tensor] = []
    with ExitStack() as hooks, torch.enable_grad():
        for block in blocks_of(model):
            hooks.enter_context(block.register_forward_hook(lambda _, __, output: outputs.append(output)))
        pooled = model.forward_head(model.forward_features(images.requires_grad_()), pre_logits=True)
        loss = functional.cross_entropy(functional.linear(pooled, *head), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, outputs)
    first = family_of(model).channels_first
    return [
        -channels_last(gradient * output.detach(), first).flatten(0, -2).sum(dim=0)
        for gradient, output in zip(gradients, outputs, strict=True)
    ]
