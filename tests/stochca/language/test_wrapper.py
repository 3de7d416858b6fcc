"""The wrapped models in the Trainer of transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from stochca.errors import UserError
from stochca.language import TOAST, StochCA
from tests.stochca.language.tiny import tiny_model, tokens, transformers

pytest.importorskip("accelerate")

DATA = [{"input_ids": row, "labels": row, "attention_mask": torch.ones_like(row)} for row in tokens(16, 8)]


def train(model: nn.Module, folder: Path, steps: int = 6, resume: bool = False, **options: Any) -> Any:
    """The trainer, after its steps."""
    settings: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.01,
        "save_steps": 3,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
    }
    arguments = transformers.TrainingArguments(str(folder), **{**settings, **options})
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=DATA, eval_dataset=DATA)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def wrapped(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "StochCA":
        return StochCA(tiny_model(), 0.5)
    toast = TOAST(tiny_model(), rank=2 if kind == "Lite" else None)
    toast.pretuned = True
    if kind == "decoders":
        toast.learn("decoders")
    return toast


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["TOAST", "StochCA", "Lite", "decoders"])
def test_the_trainer_trains_saves_and_goes_on(kind: str, tmp_path: Path) -> None:
    trainer = train(wrapped(kind), tmp_path / "whole")
    learned = trainer.evaluate()["eval_loss"]
    assert (
        learned < transformers.Trainer(wrapped(kind), trainer.args, eval_dataset=DATA).evaluate()["eval_loss"]
    )
    train(wrapped(kind), tmp_path / "parts", steps=3)
    resumed = train(wrapped(kind), tmp_path / "parts", resume=True)
    state, expected = resumed.model.state_dict(), trainer.model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, msg=name)
    pretrained = tiny_model().state_dict()
    if kind == "StochCA":
        assert not resumed.model.student.lm_head.weight.equal(pretrained["lm_head.weight"])
    else:
        for name, value in resumed.model.backbone.state_dict().items():
            assert value.equal(pretrained[name])
        assert not any(name.startswith("backbone") for name in state)


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    """The reconstruction term too."""
    options: dict[str, Any] = {"steps": 1, "optim": "sgd", "max_grad_norm": 0.0}
    whole = wrapped("decoders")
    train(whole, tmp_path / "whole", per_device_train_batch_size=8, **options)
    parts = wrapped("decoders")
    train(parts, tmp_path / "parts", per_device_train_batch_size=2, gradient_accumulation_steps=4, **options)
    before = wrapped("decoders").state_dict()
    for name, value in whole.state_dict().items():
        moved, expected = parts.state_dict()[name] - before[name], value - before[name]
        assert expected.abs().max() > 0
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["TOAST", "StochCA"])
def test_with_gradient_checkpointing_the_trainer_learns_the_same(kind: str, tmp_path: Path) -> None:
    plain = train(wrapped(kind), tmp_path / "plain", steps=3).model.state_dict()
    checkpointed = train(wrapped(kind), tmp_path / "again", steps=3, gradient_checkpointing=True)
    assert checkpointed.model.wrapped.is_gradient_checkpointing
    for name, value in checkpointed.model.state_dict().items():
        torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-4, msg=name)


def test_smoothed_labels_are_those_of_next_tokens(tmp_path: Path) -> None:
    """By hand: 0.9 of the target is the next token, the rest is spread over all."""
    options: dict[str, Any] = {"label_smoothing_factor": 0.1, "use_cpu": True, "report_to": "none"}
    arguments = transformers.TrainingArguments(str(tmp_path), **options)
    batch = {"input_ids": tokens(), "labels": tokens()}
    for kind in ("TOAST", "StochCA"):
        model = wrapped(kind).eval()
        logits = model(tokens()).logits
        expected = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten(), label_smoothing=0.1
        )
        torch.testing.assert_close(
            transformers.Trainer(model, arguments).compute_loss(model, dict(batch)), expected
        )
        assert repr(model).startswith(f"{kind} of LlamaForCausalLM(\n  (")


def test_it_answers_what_is_asked_of_its_model() -> None:
    for model in (wrapped("TOAST"), wrapped("StochCA")):
        assert model.config is model.wrapped.config
        assert model.device == torch.device("cpu")
        model.generation_config = transformers.GenerationConfig(max_new_tokens=3, eos_token_id=None)
        assert model.wrapped.generation_config is model.generation_config
        assert model.generate(tokens()).shape == (2, 9 + 3)
        with pytest.raises(AttributeError, match="no attribute 'lm_head'"):
            model.lm_head  # noqa: B018
        with pytest.raises(UserError, match="DataParallel"):
            model._replicate_for_data_parallel()


def test_it_is_in_the_mode_of_its_model() -> None:
    """from_pretrained gives models in evaluation mode."""
    assert not TOAST(tiny_model()).training
    assert not StochCA(tiny_model()).training
    assert StochCA(tiny_model().train()).training
