"""DELTA against its formula, and its attention against differences."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from stochca.config import Delta
from stochca.data.examples import Examples
from stochca.data.images import some_of
from stochca.penalties.delta import channel_attention
from tests.stochca.penalties.terms import BATCH, EXAMPLES, outputs, term
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit


def test_delta_without_attention() -> None:
    before, student, _, added = term(Delta(weight=0.5, attention=False))
    expected = 0.0
    for now, then in zip(outputs(student, BATCH[0])[1:], outputs(before, BATCH[0])[1:], strict=True):
        for channel in range(16):
            expected += 0.5 / 2 * float(((now - then)[..., channel] ** 2).mean())
    assert float(added) == pytest.approx(expected, rel=1e-4)


def test_the_images_that_delta_looks_at_are_of_all_classes() -> None:
    """Here in the order of their classes, as data sets list them: of the first alone nothing is learned."""
    train = ColouredSquares(30)
    order = np.argsort(train.labels, kind="stable")
    train.labels, train.pixels = [train.labels[i] for i in order], train.pixels[order]
    model = tiny_vit().eval().requires_grad_(False)

    def found(rows: Sequence[int], number: int) -> Tensor:
        images = some_of(train, rows)
        examples = Examples(images, EXAMPLES.validation, PREPROCESSING, torch.device("cpu"))
        return torch.stack(channel_attention(model, examples, number))

    torch.testing.assert_close(found(range(30), 10), found(range(0, 30, 3), 10))
    assert (found(range(30), 10) - 1).abs().max() > 100 * (found(range(8), 8) - 1).abs().max()


def test_delta_attends_to_channels_that_the_loss_needs() -> None:
    """The first-order rise is the derivative of the loss by the scale of a channel, here by differences."""
    model = tiny_vit().double().eval().requires_grad_(False)
    shown = 12
    examples = Examples(ColouredSquares(shown), EXAMPLES.validation, PREPROCESSING, torch.device("cpu"))
    found = channel_attention(tiny_vit().eval().requires_grad_(False), examples, 256)
    assert [len(weights) for weights in found] == [16, 16, 16]
    assert all(float(weights.sum()) == pytest.approx(16, rel=1e-5) for weights in found)
    pixels = torch.stack([PREPROCESSING.evaluation()(examples.train[i][0]) for i in range(shown)]).double()
    labels = torch.tensor(examples.train.labels)  # type: ignore[attr-defined]
    rows = model.forward_head(model.forward_features(pixels), pre_logits=True)
    head = LogisticRegression(C=0.01, max_iter=5000, tol=1e-10).fit(rows.numpy(), labels.numpy())
    weight, bias = torch.from_numpy(head.coef_), torch.from_numpy(head.intercept_)

    def loss(block: int, channel: int, scale: float) -> float:
        def change(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[..., channel] *= scale
            return output

        hook = model.blocks[block].register_forward_hook(change)
        pooled = model.forward_head(model.forward_features(pixels), pre_logits=True)
        hook.remove()
        return float(functional.cross_entropy(functional.linear(pooled, weight, bias), labels))

    rises = torch.tensor(
        [[-(loss(1, c, 1 + 1e-4) - loss(1, c, 1 - 1e-4)) / 2e-4 for c in range(16)]], dtype=torch.float64
    )
    expected = torch.softmax(rises[0], dim=0) * 16
    torch.testing.assert_close(found[1].double(), expected, rtol=2e-3, atol=2e-3)
    _, _, _, plain = term(Delta(attention=False))
    _, _, _, attentive = term(Delta())
    assert float(plain) != pytest.approx(float(attentive), rel=1e-6)
