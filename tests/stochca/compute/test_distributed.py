"""Real processes over gloo: workers against one process, and against themselves after an interruption."""

import dataclasses
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, distributed, multiprocessing

from stochca.attention.stochca import StochCA
from stochca.compute import distributed as ranks
from stochca.compute.checkpoint import load_checkpoint, save_weights
from stochca.compute.compilation import compiled_blocks
from stochca.config import (
    Ema,
    HeadAlone,
    LpFt,
    Method,
    Schedule,
    StochasticCrossAttention,
    Swa,
    Swad,
)
from stochca.config.training import Augmentation, Training
from stochca.data.batches import batch_share, training_batches
from stochca.errors import UserError
from stochca.training import fit as training
from stochca.training.callbacks import Callback, JsonLines, read_events
from stochca.training.fit import fit
from stochca.training.inputs import Inputs
from tests.stochca.tiny import DEVICE, EAGER, PREPROCESSING, ColouredSquares, tiny_vit

STOCHCA = StochasticCrossAttention(prob=0.5, teacher_precision="same")
BASE = Training(
    steps=12,
    batch_size=8,
    lr=1e-3,
    warmup=2 / 12,
    clip_grad=1.0,
    precision="fp32",
    evaluations=4,
    checkpoints=3,
    workers=0,
    augmentation=Augmentation(color_jitter=0.1),
)
MIXED = dataclasses.replace(BASE, augmentation=Augmentation(mixup=0.3, cutmix=0.5))
RUNS: dict[str, tuple[Method, Training]] = {
    "finetune": (Method(), BASE),
    "linear_probe": (Method(adapter=HeadAlone()), BASE),
    "lp_ft": (Method(phases=LpFt(C=(0.1, 1.0))), BASE),
    "stochca": (Method(attention=STOCHCA), BASE),
    "ema": (Method(average=Ema(decay=0.9)), BASE),
    "swa": (Method(average=Swa(start=0.5)), BASE),
    "swad": (Method(attention=STOCHCA, average=Swad(n_converge=2, n_tolerance=2)), BASE),
    "per_image": (
        Method(attention=dataclasses.replace(STOCHCA, granularity="sample", schedule=Schedule("linear"))),
        dataclasses.replace(BASE, accumulate=2),
    ),
    "accumulate": (Method(attention=STOCHCA), dataclasses.replace(BASE, accumulate=2)),
    "checkpointing": (Method(attention=STOCHCA), dataclasses.replace(BASE, gradient_checkpointing=True)),
    "mixup": (Method(), MIXED),
    "patience": (Method(), dataclasses.replace(BASE, lr=1e-2, evaluations=12, patience=2)),
    "class_weights": (
        Method(phases=LpFt(C=(1.0,))),
        dataclasses.replace(MIXED, class_weights=(1.0, 2.0, 4.0), label_smoothing=0.1, accumulate=2),
    ),
    "balanced": (Method(), dataclasses.replace(BASE, sampler="balanced")),
    "compiled": (Method(attention=STOCHCA), dataclasses.replace(BASE, compile=True)),
}
# With dropout, which every rank draws for itself.
RESUMED: dict[str, tuple[Method, Training]] = {
    "stochca+lp_ft+swad": (
        Method(attention=STOCHCA, phases=LpFt(C=(1.0,)), average=Swad(n_converge=2, n_tolerance=2)),
        dataclasses.replace(BASE, drop_path=0.2, accumulate=2, sampler="balanced"),
    ),
    "ema": (Method(average=Ema(decay=0.9)), dataclasses.replace(MIXED, drop_path=0.2, precision="bf16")),
}


def train(
    method: Method, settings: Training, folder: Path, *callbacks: Callback, batch_norm: bool = False
) -> dict[str, Tensor]:
    # Only rank 0's is the one that all others would start from.
    student = tiny_vit(seed=ranks.rank(), drop_path_rate=settings.drop_path)
    if batch_norm:
        student.fc_norm = torch.nn.BatchNorm1d(student.num_features)
    fit(
        Inputs(
            student,
            ColouredSquares(40),
            ColouredSquares(31, seed=1),
            method=method,
            settings=settings,
            preprocessing=PREPROCESSING,
        ),
        work_folder=folder / "work",
        callbacks=[JsonLines(folder / "log.jsonl"), *callbacks],
        device=DEVICE,
    )
    return student.state_dict()


class KeepCheckpoint(Callback):
    """Copies the checkpoint of a step, as a run that is killed right after it leaves it."""

    def __init__(self, step: int, folder: Path) -> None:
        self.step, self.folder = step, folder

    def on_checkpoint(self, path: Path, step: int) -> None:
        if step == self.step:
            self.folder.mkdir(parents=True)
            shutil.copy(path, self.folder)


def start_rank(rank: int, number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=number
    )


def twice(folder: Path, method: Method, settings: Training) -> None:
    """Train, and once more from the checkpoint of step 8."""
    keep = KeepCheckpoint(8, folder / "again" / "work")
    undisturbed = train(method, settings, folder, keep)
    again = train(method, settings, folder / "again")
    if ranks.is_main():
        save_weights(folder / "undisturbed.safetensors", undisturbed)
        save_weights(folder / "again.safetensors", again)


def two_ranks(rank: int, folder: Path) -> None:
    """What each process does: all the runs, one after the other."""
    start_rank(rank, 2, folder)
    draw, drawn = StochCA.draw, []

    def recorded(
        self: StochCA, batch_size: int, generator: torch.Generator | None = None, prob: Tensor | None = None
    ) -> dict[int, Tensor | None]:
        blocks = draw(self, batch_size, generator, prob)
        if self.granularity == "block":  # else every rank has its own images' draws
            drawn.append(sorted(blocks))
        return blocks

    StochCA.draw = recorded  # type: ignore[method-assign]
    training.compiled_blocks = partial(compiled_blocks, backend=EAGER)
    for name, (method, settings) in RUNS.items():
        weights = train(method, settings, folder / name)
        save_weights(folder / name / f"rank{rank}.safetensors", weights)
    (folder / f"draws{rank}.txt").write_text(repr(drawn))
    weights = train(Method(average=Ema(decay=0.9)), BASE, folder / "batch_norm", batch_norm=True)
    save_weights(folder / "batch_norm" / f"rank{rank}.safetensors", weights)
    for name, (method, settings) in RESUMED.items():
        place = folder / "resumed" / name
        twice(place, method, settings)
    # What must be refused, on every rank alike, so that none waits for another.
    try:
        train(Method(), dataclasses.replace(BASE, batch_size=9), folder / "refused")
    except UserError as error:
        (folder / f"refused{rank}.txt").write_text(str(error))
    torch.cpu.get_capabilities = lambda: {"amx_bf16": rank == 1}  # type: ignore[assignment]
    attention = StochasticCrossAttention()  # whose teacher_precision is auto
    for precision in ("auto", "fp32"):
        settings = dataclasses.replace(BASE, precision=precision)
        try:
            train(Method(attention=attention), settings, folder / f"unlike_{precision}")
        except UserError as error:
            (folder / f"unlike_{precision}{rank}.txt").write_text(str(error))
    try:
        train(Method(), dataclasses.replace(BASE, lr=1e30, warmup=0.0, clip_grad=None), folder / "nan")
    except UserError as error:
        (folder / f"diverged{rank}.txt").write_text(str(error))
    distributed.destroy_process_group()


def three_ranks(rank: int, folder: Path) -> None:
    start_rank(rank, 3, folder)
    settings = dataclasses.replace(BASE, batch_size=9, drop_path=0.2)
    method = Method(attention=STOCHCA)
    twice(folder, method, settings)
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks did `two_ranks`."""
    folder = tmp_path_factory.mktemp("two_ranks")
    for name in (*RUNS, "batch_norm", "nan", "refused", *(f"resumed/{name}/again" for name in RESUMED)):
        (folder / name).mkdir(parents=True)
    multiprocessing.spawn(two_ranks, (folder,), nprocs=2)
    return folder


def curve(log: Path) -> list[tuple[str, int, float]]:
    return [(event["event"], event["step"], event["loss"]) for event in read_events(log)]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_workers_at_half_the_batch_equal_one_process(name: str, done: Path, tmp_path: Path) -> None:
    method, settings = RUNS[name]
    expected = train(method, dataclasses.replace(settings, compile=False), tmp_path)
    alone, together = curve(tmp_path / "log.jsonl"), curve(done / name / "log.jsonl")
    assert [event[:2] for event in together] == [event[:2] for event in alone]
    for found, wanted in zip(together, alone, strict=True):
        assert found[2] == pytest.approx(wanted[2], rel=1e-5), found
    weights = load_file(done / name / "rank0.safetensors")
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RUNS, "batch_norm"])
def test_all_ranks_end_with_the_same_weights(name: str, done: Path) -> None:
    first, second = (load_file(done / name / f"rank{rank}.safetensors") for rank in (0, 1))
    assert all(second[key].equal(value) for key, value in first.items())
    assert ("fc_norm.running_mean" in first) is (name == "batch_norm")


@pytest.mark.slow
def test_all_ranks_draw_the_same_blocks(done: Path) -> None:
    first, second = ((done / f"draws{rank}.txt").read_text() for rank in (0, 1))
    assert first == second
    assert "[]" in first
    assert "[0, 2]" in first


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_resumed_equals_undisturbed(name: str, done: Path) -> None:
    place = done / "resumed" / name
    expected, found = load_file(place / "undisturbed.safetensors"), load_file(place / "again.safetensors")
    assert all(found[key].equal(value) for key, value in expected.items())
    assert len(curve(place / "again" / "log.jsonl")) < len(curve(place / "log.jsonl"))  # it did resume
    # And what was restored is each rank's own: a rank that dropped out as the other does would differ.
    checkpoint = load_checkpoint(place / "again" / "work")
    assert checkpoint is not None
    first, second = (state["torch"] for state in checkpoint["random"])
    assert not first.equal(second)


@pytest.mark.slow
def test_three_ranks_resume(tmp_path: Path) -> None:
    """Sums of three numbers, unlike those of two, depend on their order."""
    multiprocessing.spawn(three_ranks, (tmp_path,), nprocs=3)
    expected, found = (load_file(tmp_path / f"{name}.safetensors") for name in ("undisturbed", "again"))
    assert all(found[key].equal(value) for key, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_mistakes_end_every_rank(rank: int, done: Path) -> None:
    for precision, found in (("auto", "bf16 on .*"), ("fp32", "fp32 with a teacher in bf16 on .*")):
        sentence = (done / f"unlike_{precision}{rank}.txt").read_text()
        assert re.search(f"in different precisions: fp32 on .* and {found}; set training.precision", sentence)
    assert "training.batch_size 9, split by 2 workers" in (done / f"refused{rank}.txt").read_text()
    assert "training diverged" in (done / f"diverged{rank}.txt").read_text()


@pytest.mark.parametrize(("accumulate", "number"), [(1, 2), (2, 2), (1, 4), (2, 3)])
def test_the_shares_of_a_batch_are_the_batch(accumulate: int, number: int) -> None:
    settings = dataclasses.replace(BASE, batch_size=12, accumulate=accumulate)
    images = ColouredSquares(10)

    def steps(rank: int = 0, number: int = 1) -> list[tuple[Tensor, Tensor]]:
        batches = training_batches(images, PREPROCESSING, settings, seed=5, steps=3, rank=rank, ranks=number)
        return [(pictures, labels) for pictures, labels in batches]

    shares = [steps(rank, number) for rank in range(number)]
    for i, (pictures, _) in enumerate(steps()):
        for part, micro_batch in enumerate(pictures.chunk(accumulate)):
            found = torch.cat([share[i][0].chunk(accumulate)[part] for share in shares])
            assert sorted(found.flatten(1).tolist()) == sorted(micro_batch.flatten(1).tolist())


@pytest.mark.parametrize(("size", "number"), [(8, 2), (8, 4), (12, 3), (6, 2), (9, 3), (5, 5), (4, 1)])
def test_mixed_pairs_stay_together(size: int, number: int) -> None:
    shares = [batch_share(range(size), rank, number) for rank in range(number)]
    assert sorted(i for share in shares for i in share) == list(range(size))
    if size // number % 2 == 0:
        for share in shares:
            assert [size - 1 - i for i in share] == share[::-1]


def test_one_process_needs_no_group() -> None:
    value = torch.tensor([1.0, 2.0])
    assert (ranks.rank(), ranks.world_size(), ranks.is_main()) == (0, 1, True)
    assert ranks.mean_over_ranks(value).equal(value)
    assert ranks.gathered("a") == ["a"]
    model: Any = torch.nn.Linear(2, 2)
    assert ranks.data_parallel(model) is model
    ranks.share_statistics(torch.nn.BatchNorm1d(2))
