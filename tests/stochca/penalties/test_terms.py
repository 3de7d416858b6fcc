"""Each penalty against its formula, written out slowly; gradients flow where they should."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from stochca.config import (
    Bss,
    CoTuning,
    Delta,
    HeadAlone,
    L2Sp,
    Lora,
    Method,
    Miro,
    StochasticCrossAttention,
)
from stochca.config.training import Augmentation, Training
from stochca.data.examples import Examples
from stochca.errors import UserError
from stochca.penalties import cotuning
from stochca.penalties import terms as penalties
from stochca.penalties.cotuning import calibrated_temperature, learn_relationship, source_probabilities
from stochca.penalties.delta import channel_attention
from stochca.penalties.terms import Batch, check_penalties
from stochca.timm_models.recording import recorded
from stochca.training.fit import fit
from stochca.training.loss import Loss
from tests.stochca.tiny import CLASSES, PREPROCESSING, ColouredSquares, tiny_vit

EXAMPLES = Examples(ColouredSquares(40), ColouredSquares(30, seed=1), PREPROCESSING, torch.device("cpu"))
SETTINGS = Training(steps=8, batch_size=6, lr=1e-3, eval_every=4, precision="fp32", workers=0)
EVERY = (L2Sp(), Delta(), Bss(), CoTuning(), Miro())


def source_head(classes: int = 5) -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(16, classes).requires_grad_(False)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, 16, 16, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])


def moved(student: Any) -> Any:
    """The student after some training: every weight is elsewhere."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return student


def term(config: Any, batch: tuple[Tensor, Tensor]) -> tuple[Any, Any, Loss, Tensor]:
    """The student before and after, and what the penalty alone adds to its loss."""
    student = tiny_vit().eval()
    before = copy.deepcopy(student)
    loss = Loss(student, SETTINGS, 0, (config,), source_head(), EXAMPLES)
    moved(student)
    added = loss(student, *batch, 1) - functional.cross_entropy(student(batch[0]), batch[1])
    return before, student, loss, added


def outputs(model: Any, images: Tensor) -> list[Tensor]:
    """Of the patch embedding and every block."""
    embedded = model.patch_embed(images)
    tokens, found = model._pos_embed(embedded), [embedded]
    for block in model.blocks:
        tokens = block(tokens)
        found.append(tokens)
    return found


def test_l2sp(batch: tuple[Tensor, Tensor]) -> None:
    before, student, loss, added = term(L2Sp(weight=0.3, head_weight=0.2), batch)
    expected = 0.0
    for (name, now), then in zip(student.named_parameters(), before.parameters(), strict=True):
        if name.startswith("head"):
            expected += 0.2 / 2 * float((now**2).sum())
        else:
            expected += 0.3 / 2 * float(((now - then) ** 2).sum())
    assert float(added) == pytest.approx(expected, rel=1e-4)
    assert loss.replaces_weight_decay


def test_delta_without_attention(batch: tuple[Tensor, Tensor]) -> None:
    before, student, _, added = term(Delta(weight=0.5, attention=False), batch)
    expected = 0.0
    for now, then in zip(outputs(student, batch[0])[1:], outputs(before, batch[0])[1:], strict=True):
        for channel in range(16):
            expected += 0.5 / 2 * float(((now - then)[..., channel] ** 2).mean())
    assert float(added) == pytest.approx(expected, rel=1e-4)


def test_delta_attends_to_channels_that_the_loss_needs(batch: tuple[Tensor, Tensor]) -> None:
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
    _, _, _, plain = term(Delta(attention=False), batch)
    _, _, _, attentive = term(Delta(), batch)
    assert float(plain) != pytest.approx(float(attentive), rel=1e-6)


def test_bss(batch: tuple[Tensor, Tensor]) -> None:
    _, student, _, added = term(Bss(weight=0.7, k=2), batch)
    features = student.forward_head(student.forward_features(batch[0]), pre_logits=True)
    values = np.linalg.eigvalsh((features @ features.T).detach().double().numpy())  # squares, ascending
    assert float(added) == pytest.approx(0.7 * values[:2].sum(), rel=1e-3)


def test_miro(batch: tuple[Tensor, Tensor]) -> None:
    before, student, loss, added = term(Miro(weight=0.2), batch)
    layers = [0, 1, 2, 3]  # of three blocks the last of each quarter: 0, 1 and 2; and the embedding
    expected = 0.0
    for place in layers:
        now, then = (outputs(model, batch[0])[place] for model in (student, before))
        expected += 0.2 / 2 * float(((now - then) ** 2 / 0.1 + np.log(0.1)).mean())
    assert float(added) == pytest.approx(expected, rel=1e-4)
    assert sum(parameter.numel() for parameter in loss.parameters) == 4 * 16
    assert [scale for _, scale in loss.modules.values()] == [10.0]


def test_cotuning_learns_which_source_class_goes_with_which(batch: tuple[Tensor, Tensor]) -> None:
    model, head = tiny_vit().eval(), source_head()
    learned = learn_relationship(model, head, EXAMPLES)
    assert learned.table.shape == (CLASSES, 5)
    torch.testing.assert_close(learned.table.sum(dim=1), torch.ones(CLASSES))
    inputs, labels = (x.double().numpy() for x in source_probabilities(model, head, EXAMPLES, train=True))
    held, held_labels = (x.double().numpy() for x in source_probabilities(model, head, EXAMPLES, train=False))
    reference = LogisticRegression(C=learned.strength, max_iter=20000, tol=1e-12).fit(inputs, labels)
    logits = torch.from_numpy(reference.decision_function(held))
    temperature = calibrated_temperature(logits, torch.from_numpy(held_labels).long())
    grid = torch.linspace(-4.9, 4.9, 400).exp()
    losses = [float(functional.cross_entropy(logits / t, torch.from_numpy(held_labels).long())) for t in grid]
    best = float(functional.cross_entropy(logits / temperature, torch.from_numpy(held_labels).long()))
    assert best <= min(losses) + 1e-6
    given = torch.softmax(
        torch.from_numpy(reference.coef_.T + reference.intercept_) / learned.temperature, dim=1
    )
    joint = given.numpy().T * inputs.mean(axis=0)  # (target, source)
    np.testing.assert_allclose(learned.table.numpy(), joint / joint.sum(axis=1, keepdims=True), atol=2e-3)

    _, student, loss, added = term(CoTuning(weight=1.5), batch)
    features = student.forward_head(student.forward_features(batch[0]), pre_logits=True)
    log_probabilities = torch.log_softmax(functional.linear(features, head.weight, head.bias), dim=1)
    expected = -1.5 * (learned.table[batch[1]] * log_probabilities).sum(dim=1).mean()
    assert float(added) == pytest.approx(float(expected), rel=1e-3)
    assert {tuple(parameter.shape) for parameter in loss.parameters} == {(5, 16), (5,)}


def test_cotuning_goes_where_the_student_is(monkeypatch: pytest.MonkeyPatch) -> None:
    relationship = learn_relationship(tiny_vit().eval(), source_head(), EXAMPLES)
    monkeypatch.setattr(penalties, "learn_relationship", lambda *arguments: relationship)
    student = tiny_vit().to("meta")
    loss = Loss(student, SETTINGS, 0, (CoTuning(),), source_head(), EXAMPLES)
    (term,) = loss.terms
    assert isinstance(term, penalties.CoTrainedSource)
    assert {tensor.device.type for tensor in (term.table, *loss.parameters)} == {"meta"}


def test_a_class_that_no_source_class_points_to_has_a_relationship(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias = torch.zeros(CLASSES, 5), torch.zeros(CLASSES)
    bias[0] = -1e4
    monkeypatch.setattr(cotuning, "best_regression", lambda *arguments: (1.0, None, weight, bias))
    monkeypatch.setattr(cotuning, "calibrated_temperature", lambda *arguments: 0.01)
    table = learn_relationship(tiny_vit().eval(), source_head(), EXAMPLES).table
    torch.testing.assert_close(table.sum(dim=1), torch.ones(CLASSES))


@pytest.mark.parametrize("config", [Delta(attention=False), Miro()], ids=lambda config: config.name)
def test_the_pretrained_model_computes_in_the_precision_of_the_student(
    config: Any, batch: tuple[Tensor, Tensor]
) -> None:
    """Else rounding would be taken for what training changed."""
    student = tiny_vit().eval()
    loss = Loss(student, SETTINGS, 0, (config,), source_head(), EXAMPLES)
    with torch.autocast("cpu", torch.bfloat16), recorded(student) as records:
        student(batch[0])
        made = Batch(*batch, records, loss.start)  # type: ignore[arg-type]
    pairs = zip(records.blocks, made.start.blocks, strict=True)
    assert all(now.equal(then) for now, then in pairs)


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.name)
def test_gradients_pull_the_student_alone(config: Any, batch: tuple[Tensor, Tensor]) -> None:
    student = tiny_vit()
    loss = Loss(student, SETTINGS, 0, (config,), source_head(), EXAMPLES)
    moved(student)
    loss(student, *batch, 1).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is not None for parameter in loss.parameters)
    assert loss.start is not None
    assert all(parameter.grad is None for parameter in loss.start.model.parameters())


@pytest.mark.parametrize("penalty", EVERY, ids=lambda config: config.name)
def test_killed_and_resumed_equals_undisturbed(penalty: Any, tmp_path: Any) -> None:
    """With StochCA, accumulation and mixup; what the penalty trains itself is resumed too."""
    from tests.stochca.training.test_fit import Kill, Killed, assert_equal

    method = Method(attention=StochasticCrossAttention(prob=0.5), penalties=(penalty,))
    options = Training(
        steps=9, batch_size=8, accumulate=2, lr=3e-3, eval_every=3, checkpoint_every=4, precision="fp32",
        workers=0, augmentation=Augmentation(mixup=0.2),
    )  # fmt: skip

    def run(folder: Any, *callbacks: Any) -> dict[str, Tensor]:
        student = tiny_vit()
        fit(
            student,
            EXAMPLES.train,
            EXAMPLES.validation,
            method=method,
            settings=options,
            preprocessing=PREPROCESSING,
            source_head=source_head(),
            work_folder=folder,
            callbacks=callbacks,
            device=torch.device("cpu"),
        )
        return student.state_dict()

    expected = run(tmp_path / "undisturbed")
    with pytest.raises(Killed):
        run(tmp_path / "killed", Kill(9))
    assert_equal(run(tmp_path / "killed"), expected)


def test_what_penalties_need_is_checked_first() -> None:
    with pytest.raises(UserError, match="cotuning needs a backbone with the classifier of its pretraining"):
        check_penalties((CoTuning(),), None, 8)
    with pytest.raises(UserError, match=r"bss takes the 9 smallest .* only 8 images"):
        check_penalties((Bss(k=9),), None, 8)
    with pytest.raises(ValueError, match="penalties lists one twice"):
        Method(penalties=(Bss(), Bss(k=2)))
    with pytest.raises(ValueError, match="penalties with adapter 'head' make no sense"):
        Method(adapter=HeadAlone(), penalties=(Bss(),))
    with pytest.raises(ValueError, match="penalties 'l2sp' with adapter 'lora' makes no sense"):
        Method(adapter=Lora(), penalties=(Bss(), L2Sp()))
