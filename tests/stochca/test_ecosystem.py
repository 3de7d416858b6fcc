"""The wrapped model in the loops of others, each against one that is written by hand.

What runs is what docs/library.md shows. Elsewhere: timm's optimisers in timm_models/test_wrapper.py,
`torch.compile` of the whole in attention/test_stochca.py, of the blocks in compute/test_compilation.py.
"""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

import stochca
from stochca._typing import TimmModule
from tests.imports import ROOT
from tests.stochca.tiny import CLASSES, tiny_vit

IMAGES, STEPS = 12, 12
Batches = list[tuple[Tensor, Tensor]]
Optimizer = Callable[[nn.Module], torch.optim.Optimizer]


def run(heading: str, **names: Any) -> dict[str, Any]:
    """What the code below a heading of the docs leaves; it is given what it does not make."""
    section = (ROOT / "docs" / "library.md").read_text().split(f"\n### {heading}\n")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code
    names |= {"stochca": stochca, "torch": torch, "functional": functional}
    torch.manual_seed(0)  # decides what is drawn
    exec(code[1], names)
    return names


def batches(size: int = 16) -> Batches:
    """The same images at every step, so that their order is none."""
    images = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    return [(images, torch.arange(IMAGES) % CLASSES)] * STEPS


def loader_of(data: Batches) -> DataLoader[Any]:
    """Some of the loops want no list."""
    return DataLoader(cast("Dataset[Any]", data), batch_size=None)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4)


def train(model: nn.Module, data: Batches, optimizer: Optimizer = sgd, autocast: bool = False) -> None:
    """The loop by hand."""
    learning = optimizer(model)
    for images, labels in data:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(images)
        functional.cross_entropy(logits.float(), labels).backward()
        learning.step()
        learning.zero_grad()


def by_hand(vit: TimmModule, data: Batches, *options: Any) -> TimmModule:
    """What `vit`, which stays as it is, becomes with StochCA."""
    torch.manual_seed(0)
    model = stochca.StochCA(copy.deepcopy(vit), prob=0.1)
    train(model, data, *options)
    return model.student


def differences(model: nn.Module, other: nn.Module) -> list[float]:
    """The largest of each tensor that both have."""
    states = model.state_dict(), other.state_dict()
    assert len(states[0]) > 10
    return [(states[0][name] - states[1][name]).abs().max().item() for name in states[0]]


def test_the_loop_by_hand_draws_blocks_that_matter() -> None:
    """So what equals it draws the same; and learns."""
    pretrained, data = tiny_vit(), batches()
    images, labels = data[0]
    for optimizer in (sgd, adamw):
        plain = copy.deepcopy(pretrained)
        train(plain, data, optimizer)
        expected = by_hand(pretrained, data, optimizer)
        assert max(differences(expected, plain)) > 1e-4
        losses = [functional.cross_entropy(model(images), labels) for model in (pretrained, expected)]
        assert losses[1] < losses[0]


def check(model: stochca.StochCA, pretrained: TimmModule, expected: TimmModule, within: float = 1e-5) -> None:
    """The student is as expected, and is what evaluates; the teacher has not moved."""
    assert max(differences(model.student, expected)) < within
    assert max(differences(model.teacher, pretrained)) == 0
    images, _ = batches(pretrained.patch_embed.img_size[0])[0]
    assert torch.equal(model.eval()(images), model.student.eval()(images))


def test_hugging_face_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    config = transformers.TimmWrapperConfig(
        architecture="test_vit", num_labels=CLASSES, model_args={"img_size": 32}
    )
    model = transformers.TimmWrapperForImageClassification(config)
    pretrained, data = copy.deepcopy(model.timm_model), batches(32)
    examples = [{"pixel_values": image, "labels": label} for image, label in zip(*data[0], strict=True)]
    arguments = transformers.TrainingArguments(
        "work",
        max_steps=STEPS,
        per_device_train_batch_size=IMAGES,
        optim="sgd",
        learning_rate=0.01,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        save_steps=STEPS // 2,
        logging_steps=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    found = run(
        "Hugging Face Trainer",
        transformers=transformers,
        model=model,
        arguments=arguments,
        examples=examples,
    )
    expected = by_hand(pretrained, data)
    assert max(differences(model.timm_model, expected)) < 1e-5

    # What was saved is a model of Hugging Face without us, and evaluates as the Trainer does.
    saved = transformers.TimmWrapperForImageClassification.from_pretrained("flowers").eval()
    images, labels = data[0]
    assert torch.equal(saved(images).logits, model.eval()(images).logits)
    loss = functional.cross_entropy(saved(images).logits, labels).item()
    assert found["trainer"].evaluate(examples)["eval_loss"] == pytest.approx(loss, rel=1e-4)

    # It goes on from a checkpoint, with the draws that come next.
    torch.manual_seed(0)
    before, wrapped = (stochca.StochCA(copy.deepcopy(pretrained), prob=0.1) for _ in range(2))
    for _ in range(STEPS // 2):
        before.draw(IMAGES)
    wrapped.generator.set_state(before.generator.get_state())
    model.timm_model = wrapped
    again = transformers.Trainer(model, arguments, train_dataset=examples, eval_dataset=examples)
    again.train(resume_from_checkpoint=f"work/checkpoint-{STEPS // 2}")
    assert wrapped.tally.forwards == STEPS // 2
    check(wrapped, pretrained, expected)
    assert again.evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow
def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lightning = pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, **dict.fromkeys(quiet, False))
    pretrained, data = tiny_vit(), batches()
    loader = loader_of(data)
    found = run(
        "Lightning",
        lightning=lightning,
        trainer=trainer,
        vit=copy.deepcopy(pretrained),
        loader=loader,
        validation_loader=loader,
    )
    check(found["task"].model, pretrained, by_hand(pretrained, data, adamw))
    images, labels = data[0]
    accuracy = (found["task"].model.student(images).argmax(1) == labels).float().mean().item()
    assert trainer.validate(found["task"], loader, verbose=False) == [{"accuracy": pytest.approx(accuracy)}]
    saved = found["Task"].load_from_checkpoint("task.ckpt", vit=copy.deepcopy(pretrained))
    check(saved.model, pretrained, found["task"].model.student, within=1e-9)
    with pytest.raises(stochca.UserError, match="saved beside another teacher"):
        found["Task"].load_from_checkpoint("task.ckpt", vit=tiny_vit(seed=1))


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate(precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerate = pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)  # of who was there before
    accelerator = accelerate.Accelerator(cpu=True, mixed_precision=precision)
    pretrained, data = tiny_vit(), batches()
    found = run(
        "accelerate",
        accelerator=accelerator,
        vit=copy.deepcopy(pretrained),
        loader=loader_of(data),
    )
    expected = by_hand(pretrained, data, adamw, precision == "bf16")
    wrapped = accelerator.unwrap_model(found["model"], keep_fp32_wrapper=False)
    assert wrapped.student is found["student"]
    check(wrapped, pretrained, expected)
    # Another process goes on.
    other = accelerate.Accelerator(cpu=True, mixed_precision=precision)
    model = stochca.StochCA(copy.deepcopy(pretrained), prob=0.1)
    other.prepare(model, adamw(model))
    other.load_state("state")
    check(other.unwrap_model(model, keep_fp32_wrapper=False), pretrained, expected)


def test_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peft = pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    pretrained, data = tiny_vit(), batches()
    losses = []

    def trained(model: Any) -> None:
        wrapped = model.get_base_model()
        train(model, data, lambda model: torch.optim.SGD(model.parameters(), lr=0.5))
        images, labels = data[0]
        losses.append(functional.cross_entropy(model.eval()(images), labels).item())
        assert any(wrapped.tally.shares)
        assert max(differences(wrapped.teacher, pretrained)) == 0
        assert not any("lora" in name for name, _ in wrapped.teacher.named_modules())

    student = run("PEFT", peft=peft, vit=copy.deepcopy(pretrained), train=trained)["student"]
    images, labels = data[0]
    assert functional.cross_entropy(student.eval()(images), labels).item() == pytest.approx(
        losses[0], rel=1e-4
    )
    assert losses[0] < functional.cross_entropy(pretrained(images), labels).item()
    state, before = student.state_dict(), pretrained.state_dict()
    assert state.keys() == before.keys()  # a plain timm model
    moved = {name for name in state if not torch.equal(state[name], before[name])}
    assert moved == {
        "head.weight", "head.bias", *(f"blocks.{i}.attn.qkv.weight" for i in range(len(pretrained.blocks)))
    }  # fmt: skip
    loaded = peft.PeftModel.from_pretrained(stochca.StochCA(copy.deepcopy(pretrained)), "lora").eval()
    torch.testing.assert_close(loaded(images), student(images), rtol=1e-4, atol=1e-5)


def test_an_average_of_timm() -> None:
    pretrained, data = tiny_vit(), batches()
    found = run("Averages of the weights", vit=copy.deepcopy(pretrained), loader=data)
    check(found["model"], pretrained, by_hand(pretrained, data))
    mean = copy.deepcopy(pretrained)
    for step in range(STEPS):
        after = by_hand(pretrained, data[: step + 1])
        with torch.no_grad():
            for average, value in zip(mean.parameters(), after.parameters(), strict=True):
                average.mul_(0.99).add_(value, alpha=0.01)
    assert max(differences(found["average"].module, mean)) < 1e-5
    images, _ = data[0]
    torch.testing.assert_close(found["average"].module(images), mean.eval()(images), rtol=1e-4, atol=1e-5)
    assert max(differences(mean, found["model"].student)) > 1e-3


def one_of_two(rank: int, folder: Path) -> None:
    """A process whose share are every other images."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    share = [(images[rank::2], labels[rank::2]) for images, labels in batches()]
    found = run(
        "Several processes",
        vit=tiny_vit(),
        train=lambda model: train(model, share),
    )
    torch.save(found["student"].state_dict(), folder / f"{rank}.pt")
    del found  # first: a process group that dies with its last model may wait for ever
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    expected = by_hand(tiny_vit(), batches())
    for rank in range(2):
        student = tiny_vit(seed=1)
        student.load_state_dict(torch.load(tmp_path / f"{rank}.pt", weights_only=True))
        assert max(differences(student, expected)) < 1e-5
