"""A training that was interrupted ends with the weights of one that was not."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from examples.language.settings import KINDS, Training
from examples.language.text.encoding import Example
from examples.language.training.fitting import WHOLE, Fitted, _Arguments, fit, last_checkpoint
from examples.language.training.methods import build
from stochca.errors import UserError
from tests.examples.language.tiny import make_model

SETTINGS = Training(
    steps=8, batch_size=4, accumulate=1, weight_decay=0.1, warmup=0.2, clip_grad=1.0, checkpoints=3,
    gradient_checkpointing=False, precision="fp32",
)  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"rank": 2, "alpha": 4, "layers": ["q_proj"]},
    "toast": {"rank": 2, "alpha": 2},
    "stochca": {"prob": 0.5},
}
EXAMPLES = [
    Example(str(number), "train", "g", "q", "a", [3, 9 + number, 2, 4], [9 + number % 5, 2])
    for number in range(14)
]  # an epoch is 3 1/2 batches


class Interrupted(Exception):
    pass


def train(
    adapt: str,
    folder: Path,
    stop_at: int = 0,
    settings: Training = SETTINGS,
    dropout: float = 0.1,
    lr: float = 1e-2,
    told: list[float] | None = None,
) -> tuple[Any, Fitted]:
    def log(numbers: dict[str, float], step: int) -> None:
        if told is not None:
            told.append(numbers["train_loss"])
        if step == stop_at:
            raise Interrupted

    transformers.set_seed(5)
    method = KINDS[adapt].model_validate({"adapt": adapt, "lr": 1e-2, **METHODS[adapt]})
    module = build(method, make_model(attention_dropout=dropout), None)
    fitted = fit(
        module, EXAMPLES, settings, lr=lr, steps=8, seed=5, precision="fp32", device=torch.device("cpu"),
        pad=0, folder=folder, log=log,
    )  # fmt: skip
    return module, fitted


@pytest.mark.parametrize(
    "adapt",
    [*("lora", "toast"), *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "stochca"))],
)
def test_what_was_interrupted_goes_on_exactly(adapt: str, tmp_path: Path) -> None:
    module, fitted = train(adapt, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(adapt, tmp_path / "cut", stop_at=7)
    assert last_checkpoint(tmp_path / "cut") == str(tmp_path / "cut" / "checkpoint-6")
    continued, told = train(adapt, tmp_path / "cut")
    wanted, found = module.state_dict(), continued.state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert told.losses == fitted.losses
    assert len(told.losses) == 8
    assert told.seconds > 0


@pytest.mark.parametrize("adapt", ["full", "toast"])
def test_it_learns_and_what_it_tells_is_the_loss_of_the_answers(adapt: str, tmp_path: Path) -> None:
    _, fitted = train(adapt, tmp_path, settings=SETTINGS.model_copy(update={"batch_size": 14}), dropout=0)
    assert fitted.losses[-1] < fitted.losses[0]
    model = make_model().eval()
    wanted = []
    for example in EXAMPLES:  # one at a time, without padding
        tokens = torch.tensor([example.prompt_tokens + example.answer_tokens])
        answers = torch.tensor(example.answer_tokens)
        logits = model(tokens).logits[0, len(example.prompt_tokens) - 1 : -1]
        wanted += cross_entropy(logits, answers, reduction="none").tolist()
    assert fitted.losses[0] == pytest.approx(sum(wanted) / len(wanted), abs=1e-4)  # the Trainer rounds
    assert len(fitted.reconstruction) == (8 if adapt == "toast" else 0)


def test_a_training_that_diverges_ends_at_once(tmp_path: Path) -> None:
    told: list[float] = []
    with pytest.raises(
        UserError, match=r"diverged: in step \d of 8 the loss was nan and .*; lower lr, which is 1e\+25$"
    ):
        train("lora", tmp_path, lr=1e25, told=told)
    assert 0 < len(told) < 8
    assert all(loss > 1 for loss in told)  # and none is said to be 0


def test_a_checkpoint_by_half_is_passed_by(tmp_path: Path) -> None:
    for step in (2, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step < 12:
            (tmp_path / f"checkpoint-{step}" / WHOLE).touch()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


def test_of_several_gpus_one_takes_the_whole_batch(tmp_path: Path) -> None:
    arguments = _Arguments(str(tmp_path), per_device_train_batch_size=4, use_cpu=True, report_to="none")
    assert arguments.n_gpu == 0
    arguments._n_gpu = 2  # as transformers counts them
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 4)
    assert arguments.parallel_mode.value == "not_parallel"


def test_micro_batches_are_one_step(tmp_path: Path) -> None:
    whole, _ = train("full", tmp_path / "one", dropout=0)
    settings = SETTINGS.model_copy(update={"accumulate": 2})
    split, _ = train("full", tmp_path / "two", settings=settings, dropout=0)
    for one, two in zip(whole.parameters(), split.parameters(), strict=True):
        assert torch.allclose(one, two, atol=2e-3)
