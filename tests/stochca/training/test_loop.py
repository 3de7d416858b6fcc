"""Steps whose gradients are not finite, made so on purpose; and what a checkpoint may be continued by."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from stochca.compute.checkpoint import load_checkpoint, save_checkpoint
from stochca.config import Ema, Method, StochasticCrossAttention
from stochca.config.training import Augmentation
from stochca.errors import UserError
from stochca.training.callbacks import JsonLines, read_events
from stochca.training.fit import Fitted, fit
from stochca.training.inputs import Inputs
from tests.stochca.tiny import PREPROCESSING, ColouredSquares, tiny_vit
from tests.stochca.training.test_fit import settings


class Named(ColouredSquares):
    """Images with names."""

    def __init__(self, number: int, shift: int = 0) -> None:
        super().__init__(number)
        self.labels = [(label + shift) % 3 for label in self.labels]
        self.ids = [f"square {i}" for i in range(number)]


class Poisoned:
    """A student whose outputs are not numbers in these training steps, and what it saw in each step."""

    def __init__(self, steps: Collection[int]) -> None:
        self.student = tiny_vit(drop_path_rate=0.1)
        self.steps = steps
        self.step = 0
        self.weights: dict[int, Tensor] = {}  # of the head, before each step
        self.student.register_forward_hook(self.hook)

    def hook(self, student: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not student.training:
            return output
        self.step += 1
        self.weights[self.step] = self.student.head.weight.detach().clone()
        return output * float("nan") if self.step in self.steps else output

    def fit(
        self,
        folder: Path | None = None,
        method: Method | None = None,
        seed: int = 0,
        images: int = 40,
        shift: int = 0,
        **options: Any,
    ) -> Fitted:
        listeners = [JsonLines(folder / "log.jsonl")] if folder else []
        return fit(
            Inputs(
                self.student,
                Named(images, shift),
                ColouredSquares(30, seed=1),
                method=method or Method(),
                settings=settings(**{"clip_grad": None, **options}),
                preprocessing=PREPROCESSING,
                seed=seed,
            ),
            work_folder=folder,
            callbacks=listeners,
            device=torch.device("cpu"),
        )


@pytest.mark.parametrize("clip_grad", [None, 1.0])
def test_such_a_step_changes_nothing_and_is_counted(clip_grad: float | None, tmp_path: Path) -> None:
    poisoned = Poisoned({5, 7})
    fitted = poisoned.fit(tmp_path, clip_grad=clip_grad)
    same = [step for step in range(1, 12) if poisoned.weights[step].equal(poisoned.weights[step + 1])]
    assert same == [5, 7]
    assert fitted.notes[-1] == "2 steps were skipped, because gradients were not finite."
    steps = [event["step"] for event in read_events(tmp_path / "log.jsonl") if event["event"] == "step"]
    assert steps == [1, 2, 3, 4, 6, 8, 9, 10, 11, 12]
    assert all(value.isfinite().all() for value in fitted.model.state_dict().values())


@pytest.mark.parametrize("first", [2, 7])
def test_too_many_in_a_row_end_with_the_images_and_the_last_good_checkpoint(
    first: int, tmp_path: Path
) -> None:
    poisoned = Poisoned(range(first, 100))
    with pytest.raises(UserError) as ended:
        poisoned.fit(tmp_path)
    assert f"5 steps in a row, {first} to {first + 4}, were not finite" in str(ended.value)
    checkpoint = load_checkpoint(tmp_path)
    if first == 2:
        assert checkpoint is None
    else:
        assert checkpoint is not None
        assert checkpoint["progress"]["step"] == 4


class Plain:
    """Images of one colour each, so that what a model is given tells which they were."""

    ids = tuple(f"grey {i}" for i in range(32))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (16, 16), (8 * index,) * 3), index % 3


@pytest.mark.parametrize("domains", [None, [f"{i % 2}" for i in range(32)]])
def test_the_images_that_are_named_are_those_that_were_seen(domains: list[str] | None) -> None:
    student, seen = tiny_vit(drop_path_rate=0.1), []

    def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if not module.training:
            return output
        values = (inputs[0][:, 0, 0, 0] * 0.5 + 0.5) * 255 / 8
        seen.append({f"grey {round(value)}" for value in values.tolist()})
        return output * float("nan")

    student.register_forward_hook(hook)
    with pytest.raises(UserError) as ended:
        fit(
            Inputs(
                student,
                Plain(),
                Plain(),
                method=Method(),
                settings=settings(augmentation=Augmentation(color_jitter=0.0)),
                preprocessing=PREPROCESSING,
                domains=domains,
            ),
            device=torch.device("cpu"),
        )
    assert set(str(ended.value).split("The last step saw ")[1].split(", ")) == seen[-1]
    assert len(seen) == 5


def test_a_checkpoint_is_continued_beside_its_own_teacher(tmp_path: Path) -> None:
    method = Method(attention=StochasticCrossAttention(prob=0.5))
    poisoned = Poisoned(range(7, 100))
    with pytest.raises(UserError, match="training diverged"):
        poisoned.fit(tmp_path, method)
    other = Poisoned(())
    other.student.load_state_dict(tiny_vit(seed=1).state_dict())
    with pytest.raises(
        UserError, match="holds a checkpoint of training beside another teacher; give the student"
    ):
        other.fit(tmp_path, method)
    again = Poisoned(())
    again.fit(tmp_path, method)
    assert again.step == 12 - 4  # it went on from the checkpoint


def test_a_checkpoint_is_continued_by_the_same_training_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="training diverged"):
        Poisoned(range(7, 100)).fit(tmp_path)
    untouched = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def refused(found: str, seed: int = 0, images: int = 40, student: int = 0, **options: Any) -> None:
        other = Poisoned(())
        other.student.load_state_dict(tiny_vit(seed=student).state_dict())
        with pytest.raises(UserError, match=f"holds a checkpoint of another training, where {found}"):
            other.fit(tmp_path, **{"seed": seed, "images": images, **options})
        assert other.step == 0

    refused(r"training.lr was 0\.003, and now it is 1e-05; go on as that training began", lr=1e-5)
    refused("training.steps was 12, and now it is 24", steps=24)
    refused("the seed was 0", seed=7)
    refused("the number of images was 40, and now it is 39", images=39)
    refused("the sha256 of labels, classes and domains", shift=1)
    refused("the sha256 of the weights before training", student=5)
    refused("method.average was NoAverage", method=Method(average=Ema()))
    assert untouched == {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    again = Poisoned(())
    with torch.no_grad():
        again.student.head.weight.add_(1)  # a head may be a random one, and differ in every session
    again.fit(tmp_path, checkpoints=1)
    assert again.step == 12 - 4


def test_a_checkpoint_is_continued_in_its_own_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun where there is no bf16, as on a T4, and gone on with where there is, as on an A100."""
    attention = StochasticCrossAttention(prob=0.5)  # whose teacher_precision is auto
    method = Method(attention=attention)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": False})
    with pytest.raises(UserError, match="training diverged"):
        Poisoned(range(7, 100)).fit(tmp_path / "new", method, precision="auto")
    state = load_checkpoint(tmp_path / "new")
    assert state is not None
    # As checkpoints of before have it, which don't say what auto became.
    state["decides"] |= {"training.precision": "auto", "method.attention": str(attention)}
    (tmp_path / "old").mkdir()
    save_checkpoint(tmp_path / "old", state)

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    for precision, found in (
        ("auto", "training.precision was fp32, and now it is bf16; go on"),
        ("fp32", "method.attention was .*teacher_precision='same'.* now .*teacher_precision='bf16'"),
    ):
        with pytest.raises(UserError, match=f"another training, where {found}"):
            Poisoned(()).fit(tmp_path / "new", method, precision=precision)
    as_begun = Method(attention=replace(attention, teacher_precision="same"))
    for folder, continued, precision in (("new", as_begun, "fp32"), ("old", method, "auto")):
        again = Poisoned(())
        again.fit(tmp_path / folder, continued, precision=precision)
        assert again.step == 12 - 4


def test_a_checkpoint_that_does_not_say_its_teacher_is_continued(tmp_path: Path) -> None:
    method = Method(attention=StochasticCrossAttention(prob=0.5))
    with pytest.raises(UserError, match="training diverged"):
        Poisoned(range(7, 100)).fit(tmp_path, method)
    state = load_checkpoint(tmp_path)
    assert state is not None
    del state["teacher"], state["decides"]
    save_checkpoint(tmp_path, state)
    again = Poisoned(())
    again.fit(tmp_path, method)
    assert again.step == 12 - 4
