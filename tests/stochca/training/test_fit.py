import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from stochca.compute.checkpoint import CHECKPOINT, PREVIOUS, load_checkpoint, save_checkpoint
from stochca.config import (
    Ema,
    HeadAlone,
    LpFt,
    Method,
    Schedule,
    StochasticCrossAttention,
    Swa,
    Swad,
    WiseFt,
)
from stochca.config.penalties.delta import Delta
from stochca.config.selection import SELECTIONS, Selection
from stochca.config.training import Augmentation, Training
from stochca.data.images import joined_images
from stochca.errors import UserError
from stochca.evaluation import measure, predict, score
from stochca.training.callbacks import Callback, EvalEvent, JsonLines, StepEvent, read_events
from stochca.training.fit import Fitted, Keep, find_evaluated, fit, save_evaluated
from stochca.training.inputs import Inputs, check_settings
from tests.stochca.timm_models.families.cases import CASES, Case
from tests.stochca.tiny import DEVICE, PREPROCESSING, ColouredSquares, tiny_vit

STOCHCA = StochasticCrossAttention(prob=0.5, teacher_precision="same")
METHODS = {
    "finetune": Method(),
    "linear_probe": Method(adapter=HeadAlone()),
    "lp_ft": Method(phases=LpFt(C=(0.1, 1.0))),
    "stochca": Method(attention=STOCHCA),
    "stochca, teacher in bf16": Method(
        attention=StochasticCrossAttention(prob=0.4, teacher_precision="bf16")
    ),
    "stochca+lp_ft": Method(attention=STOCHCA, phases=LpFt(C=(0.1, 1.0))),
    "stochca+ema": Method(attention=STOCHCA, average=Ema(decay=0.9)),
    "stochca+swa": Method(attention=STOCHCA, average=Swa(start=0.5)),
    "stochca+swad": Method(attention=STOCHCA, average=Swad(n_converge=2, n_tolerance=2)),
    "stochca+lp_ft+swad": Method(
        attention=STOCHCA, phases=LpFt(C=(1.0,)), average=Swad(n_converge=2, n_tolerance=2)
    ),
    "linear_probe+ema": Method(adapter=HeadAlone(), average=Ema(decay=0.9)),
    "stochca+lp_ft+wise_ft": Method(
        attention=StochasticCrossAttention(
            prob=0.8, granularity="sample", blocks=(0, 2), schedule=Schedule("cosine", end=0.2)
        ),
        phases=LpFt(C=(1.0,)),
        average=WiseFt(alpha=(0.0, 0.5, 1.0)),
    ),
}


def settings(**options: Any) -> Training:
    defaults: dict[str, Any] = {
        "steps": 12,
        "batch_size": 8,
        "lr": 3e-3,
        "warmup": 2 / 12,
        "clip_grad": 1.0,
        "precision": "fp32",
        "evaluations": 4,
        "checkpoints": 3,
        "workers": 0,
        "drop_path": 0.1,
        "augmentation": Augmentation(color_jitter=0.1),
    }
    return Training(**{**defaults, **options})


def run(
    method: Method,
    options: Training | None = None,
    folder: Path | None = None,
    *callbacks: Callback,
    seed: int = 0,
    make_student: Callable[..., Any] = tiny_vit,
) -> tuple[dict[str, Tensor], Fitted]:
    options = options or settings()
    student = make_student(drop_path_rate=options.drop_path)
    fitted = fit(
        Inputs(
            student,
            ColouredSquares(40),
            ColouredSquares(30, seed=1),
            method=method,
            settings=options,
            preprocessing=PREPROCESSING,
            seed=seed,
        ),
        work_folder=folder,
        callbacks=callbacks,
        device=DEVICE,
    )
    return student.state_dict(), fitted


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


class Killed(Exception):
    pass


class Kill(Callback):
    """Ends the run in the middle, as soon as it hears of this step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, event: StepEvent) -> None:
        if event.step == self.step:
            raise Killed


@pytest.mark.parametrize("name", METHODS)
def test_killed_and_resumed_equals_undisturbed(name: str, tmp_path: Path) -> None:
    method = METHODS[name]
    log = tmp_path / "undisturbed.jsonl"
    expected, undisturbed = run(method, None, tmp_path / "a", JsonLines(log))
    resumed_log = tmp_path / "resumed.jsonl"
    for step in (
        6,
        11,
    ):  # events arrive with the next evaluation, after the checkpoint at 4 and 8
        with pytest.raises(Killed):
            run(method, None, tmp_path / "b", JsonLines(resumed_log), Kill(step))
    found, resumed = run(method, None, tmp_path / "b", JsonLines(resumed_log))
    assert_equal(found, expected)
    assert resumed.selected_step == undisturbed.selected_step
    assert resumed.validation == undisturbed.validation
    assert resumed.cross_attended == undisturbed.cross_attended
    without_times = [
        [
            {key: value for key, value in event.items() if key not in ("images_per_second", "time")}
            for event in read_events(path)
        ]
        for path in (log, resumed_log)
    ]
    assert without_times[0] == without_times[1]


def test_resumes_in_bfloat16_with_accumulation_and_mixup(tmp_path: Path) -> None:
    options = settings(precision="bf16", accumulate=2, augmentation=Augmentation(mixup=0.3, cutmix=0.5))
    method = METHODS["stochca"]
    expected, _ = run(method, options)
    with pytest.raises(Killed):
        run(method, options, tmp_path, Kill(7))
    assert_equal(run(method, options, tmp_path)[0], expected)


def test_balanced_batches_and_weights_of_classes_resume(tmp_path: Path) -> None:
    options = settings(
        sampler="balanced",
        class_weights=(1.0, 2.0, 5.0),
        label_smoothing=0.1,
        augmentation=Augmentation(mixup=0.3),
    )
    expected, _ = run(METHODS["stochca"], options)
    with pytest.raises(Killed):
        run(METHODS["stochca"], options, tmp_path, Kill(7))
    assert_equal(run(METHODS["stochca"], options, tmp_path)[0], expected)


def test_truncated_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, _ = run(METHODS["stochca"])
    with pytest.raises(Killed):
        run(METHODS["stochca"], None, tmp_path, Kill(11))
    checkpoint = tmp_path / CHECKPOINT
    assert (tmp_path / PREVIOUS).exists()
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert_equal(run(METHODS["stochca"], None, tmp_path)[0], expected)
    assert "can't be read" in capsys.readouterr().out


def test_the_seed_decides_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run(METHODS["stochca"])

    def disturbed(**options: Any) -> Any:
        """The same student, but the global generators stand elsewhere when training starts."""
        student = tiny_vit(**options)
        torch.manual_seed(123)
        random.seed(123)
        np.random.seed(123)
        return student

    assert_equal(run(METHODS["stochca"], make_student=disturbed)[0], first)
    other, _ = run(METHODS["stochca"], seed=1)
    assert not torch.equal(other["blocks.0.attn.qkv.weight"], first["blocks.0.attn.qkv.weight"])


def test_a_diverged_run_says_so_and_saves_nothing_of_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"diverged: the gradients of 5 steps in a row, 2 to 6, .* lower training.lr"
    ):
        run(Method(), settings(lr=1e30, warmup=0.0, clip_grad=None), tmp_path)
    assert load_checkpoint(tmp_path) is None


def test_a_head_alone_has_to_learn_something() -> None:
    with pytest.raises(UserError, match="head_lr_scale 0 with adapter 'head' trains nothing"):
        run(Method(adapter=HeadAlone()), settings(head_lr_scale=0.0))


def test_listeners_hear_of_the_end_of_an_interrupted_run() -> None:
    class Ends(Callback):
        ended = False

        def on_end(self) -> None:
            self.ended = True

    ends = Ends()
    with pytest.raises(Killed):
        run(Method(), None, None, ends, Kill(6))
    assert ends.ended


def test_logged_learning_rate_is_the_schedules() -> None:
    class Rates(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_step(self, event: StepEvent) -> None:
            self.seen.append(event.lr)

    for method in (Method(), Method(adapter=HeadAlone())):
        rates = Rates()
        run(method, settings(lr=1e-3, head_lr_scale=7.0, layer_decay=0.5), None, rates)
        assert max(rates.seen) == pytest.approx(1e-3, rel=0.1)


@pytest.mark.parametrize(
    "optimizer", ["adamw", "sgd", "lamb", "adafactorbv", pytest.param("kron", marks=pytest.mark.slow)]
)
def test_optimisers_resume(optimizer: str, tmp_path: Path) -> None:
    options = settings(optimizer=optimizer, lr=1e-3)
    with torch.compiler.set_stance("force_eager"):  # kron would compile its step for minutes
        expected, _ = run(Method(), options)
        with pytest.raises(Killed):
            run(Method(), options, tmp_path, Kill(7))
        assert_equal(run(Method(), options, tmp_path)[0], expected)


@pytest.mark.parametrize("empty", ["training", "validation"])
def test_no_images(empty: str) -> None:
    sizes = {"training": 8, "validation": 8, empty: 0}
    with pytest.raises(UserError, match=f"there are no {empty} images"):
        fit(
            Inputs(
                tiny_vit(),
                ColouredSquares(sizes["training"]),
                ColouredSquares(sizes["validation"]),
                method=Method(),
                settings=settings(),
                preprocessing=PREPROCESSING,
            ),
            device=DEVICE,
        )


def test_loader_workers_change_nothing() -> None:
    expected, _ = run(METHODS["finetune"], settings(steps=3))
    assert_equal(run(METHODS["finetune"], settings(steps=3, workers=2))[0], expected)


def test_probability_zero_equals_finetune() -> None:
    plain, _ = run(Method())
    stochca, _ = run(Method(attention=StochasticCrossAttention(prob=0.0)))
    assert_equal(stochca, plain)
    crossed, _ = run(METHODS["stochca"])
    assert not torch.equal(crossed["blocks.0.attn.qkv.weight"], plain["blocks.0.attn.qkv.weight"])


def test_linear_probe_trains_the_head_alone() -> None:
    start = tiny_vit().state_dict()
    found, fitted = run(METHODS["linear_probe"])
    for name, value in found.items():
        assert torch.equal(value, start[name]) == (not name.startswith("head.")), name
    assert fitted.trainable_parameters == 16 * 3 + 3


class Evaluations(Callback):
    """Remembers every evaluation."""

    def __init__(self) -> None:
        self.events: list[EvalEvent] = []

    def on_eval(self, event: EvalEvent) -> None:
        self.events.append(event)


def test_selection_keeps_the_best_weights_on_validation() -> None:
    options = settings(
        steps=30, evaluations=10, lr=0.05, warmup=0.0, clip_grad=None
    )  # so high that it gets worse
    for seed in range(10):
        evaluations = Evaluations()
        weights, fitted = run(Method(), options, None, evaluations, seed=seed)
        best = max(evaluations.events, key=lambda event: (event.accuracy, -event.loss))
        if best.step < evaluations.events[-1].step:
            break
    else:
        pytest.fail("the last step was always the best: this can't tell the two apart")
    assert fitted.selected_step == best.step
    student = tiny_vit()
    student.load_state_dict(weights)
    logits, labels = predict(student, ColouredSquares(30, seed=1), PREPROCESSING, device=DEVICE)
    assert fitted.validation is not None
    assert score(logits, labels).accuracy == fitted.validation.accuracy == best.accuracy


def test_head_learning_rate_is_scaled_at_every_step() -> None:
    """Against the schedule written out: linear warm-up, cosine to zero, the head's ten times as high."""
    from stochca.training.optimisation import create_optimizer, create_schedule

    options = settings(steps=20, lr=1e-3, warmup=0.25, head_lr_scale=10.0, layer_decay=0.5)
    student = tiny_vit()
    optimizer = create_optimizer(student, options)
    schedule = create_schedule(optimizer, options, options.timetable(images=1))
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    for step in range(1, 21):
        schedule.step_update(step)
        base = 1e-3 * step / 5 if step < 5 else 0.5e-3 * (1 + math.cos(math.pi * step / 21))
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = names[id(parameter)]
                if name.startswith("head."):
                    scale = 10.0
                elif name.startswith("norm."):
                    scale = 0.5  # timm counts the last norm to the last block
                elif name.startswith("blocks."):
                    scale = 0.5 ** (3 - int(name.split(".")[1]))
                else:
                    scale = 0.5**4
                assert group["lr"] == pytest.approx(base * scale), (step, name)


def test_constant_schedule_stays_at_the_learning_rate() -> None:
    from stochca.training.optimisation import create_optimizer, create_schedule

    options = settings(steps=10, lr=1e-3, warmup=0.4, head_lr_scale=2.0, schedule="constant")
    optimizer = create_optimizer(tiny_vit(), options)
    schedule = create_schedule(optimizer, options, options.timetable(images=1))
    for step in range(1, 11):
        schedule.step_update(step)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(group["lr_scale"] * 1e-3 * min(step / 4, 1)), step
    with pytest.raises(ValueError, match=r"min_lr 0\.0001 is where a cosine ends"):
        settings(schedule="constant", lr=1e-3, min_lr=1e-4)


@pytest.mark.parametrize("layer_decay", [None, 0.75])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_weight_decay_spares_biases_norms_and_positions(case: Case, layer_decay: float | None) -> None:
    from stochca.training.optimisation import create_optimizer

    student = case.model()
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    options = settings(weight_decay=0.1, layer_decay=layer_decay)
    groups = create_optimizer(student, options).param_groups
    given = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(given) == sorted(names.values())  # each once
    decayed = {
        names[id(parameter)] for group in groups for parameter in group["params"] if group["weight_decay"] > 0
    }
    assert {name for name in decayed if "head" in name}
    assert {name for name in decayed if ".mlp.fc1.weight" in name or ".mlp.fc1_g.weight" in name}
    spared = ("pos_embed", "cls_token", "reg_token", "relative_position_bias_table", "rel_pos_h", "rel_pos_w")
    assert not {
        name for name in decayed if name.endswith(("bias", *spared)) or student.get_parameter(name).ndim < 2
    }


def test_head_scale_reaches_the_weights() -> None:
    still, _ = run(Method(), settings(head_lr_scale=0.0, steps=3, warmup=0.0))
    start = tiny_vit().state_dict()
    assert torch.equal(still["head.weight"], start["head.weight"])
    assert not torch.equal(still["blocks.0.attn.qkv.weight"], start["blocks.0.attn.qkv.weight"])


def test_accumulation_equals_the_whole_batch() -> None:
    whole, _ = run(Method(), settings(drop_path=0.0))
    parts, _ = run(Method(), settings(drop_path=0.0, accumulate=4))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)


def test_learns_the_squares() -> None:
    _, fitted = run(Method(), settings(steps=150, lr=1e-2, evaluations=3, drop_path=0.0))
    assert fitted.validation is not None
    assert fitted.validation.accuracy > 0.8


def test_events_tell_every_step_once(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    started = time.time() * 1000
    run(Method(), settings(steps=23, evaluations=5), None, JsonLines(log))
    events = read_events(log)
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(1, 24))
    assert [event["step"] for event in events if event["event"] == "eval"] == [5, 10, 14, 19, 23]
    assert all(math.isfinite(event["loss"]) for event in events)
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert all(isinstance(at, int) and started - 1 <= at <= time.time() * 1000 for at in times)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"precision": "fp16"}, "fp16 needs a GPU"),
        ({"optimizer": "adamv"}, "'adamv' can't be used"),
        ({"optimizer": "lookahead_adahessian"}, "can't be used: it needs second derivatives"),
        ({"augmentation": Augmentation(auto_augment="foo")}, "auto_augment 'foo' is no policy of timm"),
    ],
)
def test_bad_settings(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run(Method(), settings(**options))


def test_an_optimizer_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # else timm asks for a GPU first
    from stochca.training.optimisation import create_optimizer

    with pytest.raises(UserError, match="'fusedlamb' can't be used: APEX"):
        create_optimizer(tiny_vit(), settings(optimizer="fusedlamb"))


def test_a_student_that_is_frozen_in_part_is_for_the_head_alone() -> None:
    student = tiny_vit(drop_path_rate=0.1)
    student.blocks[:2].requires_grad_(False)
    with pytest.raises(
        UserError, match=r"student's blocks\.0\.norm1\.weight is frozen, but `adapter` decides"
    ):
        run(Method(), make_student=lambda **_: student)
    run(Method(adapter=HeadAlone()), settings(steps=1), make_student=lambda **_: student)
    run(Method(), settings(steps=1), make_student=lambda **_: student)  # fit has let go of it


def test_the_student_is_made_with_its_stochastic_depth() -> None:
    sentence = (
        r"drop_path is 0\.3, but the student was made with 0; make it with timm\.create_model\(\.\.\., drop_"
    )
    with pytest.raises(UserError, match=sentence):
        run(Method(), settings(drop_path=0.3), make_student=lambda **_: tiny_vit())


def test_one_probability_per_block_must_fit_the_model() -> None:
    with pytest.raises(UserError, match="2 values, but the model has 3 blocks"):
        run(Method(attention=StochasticCrossAttention(prob=(0.1, 0.2))))


def test_checking_the_settings_copies_no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(model: nn.Module) -> nn.Module:
        raise AssertionError("a teacher was copied")

    monkeypatch.setattr("stochca.attention.stochca.headless_copy", copied)
    method = Method(attention=StochasticCrossAttention(prob=0.1))
    check_settings(
        Inputs(tiny_vit(), [], [], method=method, settings=settings(), preprocessing=PREPROCESSING),
        DEVICE,
    )
    with pytest.raises(AssertionError, match="a teacher was copied"):
        run(method, settings())


def test_images_per_batch_must_pair_up_for_mixup() -> None:
    with pytest.raises(
        ValueError,
        match=r"leaves 9 images; choose one that leaves an even number, because mixup and cutmix pair",
    ):
        settings(batch_size=9, augmentation=Augmentation(mixup=0.5))


@pytest.mark.parametrize(("optimizer", "fused"), [("adamw", True), ("sgd", True), ("lamb", None)])
def test_fused_kernels_are_used_where_there_are_any(optimizer: str, fused: bool | None) -> None:
    from stochca.training.optimisation import create_optimizer

    assert create_optimizer(tiny_vit(), settings(optimizer=optimizer)).defaults.get("fused") is fused


class KillAtCheckpoint(Callback):
    """Ends the run once this step's checkpoint is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_checkpoint(self, path: Path, step: int) -> None:
        if step == self.step:
            raise Killed


class Timed(ColouredSquares):
    """Images that know when they were first read."""

    first_read = math.inf

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        self.first_read = min(self.first_read, time.perf_counter())
        return super().__getitem__(index)


def test_what_a_penalty_needs_before_the_first_step_is_of_the_time() -> None:
    """DELTA reads the images, fits a head, and takes gradients before the loop is made."""
    images, evaluated = Timed(40), []

    class Clock(Callback):
        def on_eval(self, event: EvalEvent) -> None:
            evaluated.append(time.perf_counter())

    inputs = Inputs(
        tiny_vit(),
        images,
        ColouredSquares(30, seed=1),
        method=Method(penalties=(Delta(),)),
        settings=settings(steps=1, evaluations=1, checkpoints=1, drop_path=0.0),
        preprocessing=PREPROCESSING,
    )
    fitted = fit(inputs, callbacks=[Clock()], device=DEVICE)
    assert fitted.train_seconds > evaluated[0] - images.first_read


def test_the_peak_of_memory_and_the_time_outlive_the_process(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(METHODS["finetune"], None, tmp_path, KillAtCheckpoint(8))
    state = load_checkpoint(tmp_path)
    assert state is not None
    state["progress"]["peak_memory_mb"] = 1e9  # as if the killed process had used more than this one will
    state["progress"]["seconds"] = 1e6
    save_checkpoint(tmp_path, state)
    fitted = run(METHODS["finetune"], None, tmp_path)[1]
    assert fitted.peak_memory_mb == 1e9
    assert fitted.train_seconds > 1e6


def ends_by_hand(evaluations: list[EvalEvent], patience: int) -> int:
    """The step after which so many evaluations in a row were no better than the best before them."""
    best, since = (-math.inf, -math.inf), 0
    for event in evaluations:
        found = event.accuracy, -event.loss
        best, since = (found, 0) if found > best else (best, since + 1)
        if since == patience:
            break
    return event.step


@pytest.mark.parametrize("name", ["finetune", "stochca+ema", "stochca+lp_ft+wise_ft"])
def test_patience_ends_training_where_validation_has_stalled(name: str, tmp_path: Path) -> None:
    """As one counts by hand in a run without it; killed and resumed anywhere, it is the same."""
    options = {"steps": 40, "evaluations": 20, "checkpoints": 4, "lr": 0.05, "warmup": 0.0, "clip_grad": None}
    method, patience = METHODS[name], 3
    evaluations = Evaluations()
    run(method, settings(**options), None, evaluations)
    end = ends_by_hand(evaluations.events, patience)
    assert end < 40

    patient, heard = settings(**options, patience=patience), Evaluations()
    weights, fitted = run(method, patient, tmp_path / "a", heard)
    assert heard.events == [event for event in evaluations.events if event.step <= end]
    best = max(heard.events, key=lambda event: (event.accuracy, -event.loss))
    assert fitted.selected_step in (best.step, None)
    note = next(note for note in fitted.notes if note.startswith("Training ended early"))
    assert note == (
        f"Training ended early, after step {end} of 40: the last 3 evaluations on validation were no better "
        f"than that after step {best.step}."
    )

    folder = tmp_path / "b"
    for kill in (Kill(end - 1), Kill(end), KillAtCheckpoint(end)):
        with pytest.raises(Killed):
            run(method, patient, folder, kill)
    found, resumed = run(method, patient, folder)
    assert_equal(found, weights)
    assert (resumed.notes, resumed.validation) == (fitted.notes, fitted.validation)
    checkpoint = load_checkpoint(folder)
    assert checkpoint is not None
    assert checkpoint["progress"]["step"] == end  # and not a step more was taken


def test_patience_that_nothing_tries_changes_nothing() -> None:
    expected, fitted = run(Method())
    found, patient = run(Method(), settings(patience=4))  # of four evaluations the first is the best so far
    assert_equal(found, expected)
    assert patient.notes == fitted.notes == []


@pytest.mark.parametrize(
    ("picture", "found"),
    [(Image.new("L", (16, 16)), "a picture of mode L"), (torch.zeros(3, 16, 16), "Tensor")],
)
def test_images_that_are_no_pictures_in_rgb(picture: Any, found: str) -> None:
    """Nor where so many are given that none is read before the first batch."""
    good = ColouredSquares(8)
    for train, validation in (([(picture, 0)] * 200, good), (good, [(picture, 0)])):
        with pytest.raises(
            UserError, match=f"images give {found} where a picture of Pillow in RGB is wanted"
        ):
            fit(
                Inputs(
                    tiny_vit(),
                    train,
                    validation,
                    method=Method(),
                    settings=settings(drop_path=0.0),
                    preprocessing=PREPROCESSING,
                ),
                device=DEVICE,
            )


def test_labels_in_arrays_train_as_those_in_numbers() -> None:
    """As collections of medical images give them."""

    class InArrays(ColouredSquares):
        def __getitem__(self, index: int) -> Any:
            picture, label = super().__getitem__(index)
            return picture, np.array([label], np.uint8)

    found = []
    for kind in (ColouredSquares, InArrays):
        inputs = inputs_with(
            train=kind(40),
            validation=kind(30, seed=1),
            settings=settings(steps=2, drop_path=0.0, sampler="balanced"),
            selection="balanced_accuracy",
        )
        fitted = fit(inputs, device=DEVICE)
        _, labels = predict(fitted.model, kind(30, seed=1), PREPROCESSING, device=DEVICE)
        found.append({**fitted.model.state_dict(), "labels": labels})
    assert_equal(*found)


def test_images_that_are_normalised_in_another_way_are_noted() -> None:
    notes = []
    for mean in ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6]):
        inputs = inputs_with(settings=settings(steps=1, evaluations=1, drop_path=0.0))
        inputs.student.pretrained_cfg = {"mean": mean, "std": [0.5, 0.5, 0.5]}
        notes.append(fit(inputs, device=DEVICE).notes)
    assert notes[0] == []
    (note,) = notes[1]
    assert "but the student was pretrained with ((0.4, 0.5, 0.6), (0.5, 0.5, 0.5));" in note


def test_epochs_are_steps_by_the_number_of_images() -> None:
    """Of 40 images in batches of 8, 2.4 epochs are 12 steps."""
    expected, _ = run(METHODS["stochca"])
    assert_equal(run(METHODS["stochca"], settings(steps=None, epochs=2.4))[0], expected)


@pytest.mark.parametrize("name", ["finetune", "stochca+ema", "stochca+swa", "lp_ft"])
def test_refitting_trains_on_validation_images_too_and_keeps_the_last_step(name: str, tmp_path: Path) -> None:
    """The same as training on both without ever evaluating anything."""
    train, validation = ColouredSquares(40), ColouredSquares(30, seed=1)
    seen: list[int] = []

    class Watched(ColouredSquares):
        def __getitem__(self, index: int) -> Any:
            seen.append(index)
            return super().__getitem__(index)

    evaluations = Evaluations()
    student = tiny_vit()
    fitted = fit(
        Inputs(
            student,
            train,
            Watched(30, seed=1),
            method=METHODS[name],
            settings=settings(drop_path=0.0),
            preprocessing=PREPROCESSING,
            refit=True,
        ),
        work_folder=tmp_path,
        callbacks=[evaluations],
        device=DEVICE,
    )
    assert not evaluations.events
    assert fitted.validation is None
    assert seen
    if name != "finetune":
        return
    plain = tiny_vit()
    last = fit(
        Inputs(
            plain,
            joined_images(train, validation),
            validation,
            method=METHODS[name],
            settings=settings(drop_path=0.0),
            preprocessing=PREPROCESSING,
        ),
        work_folder=str(tmp_path / "plain"),  # either will do, as will a device's name
        keep_evaluated="last",
        device=str(DEVICE),
    )
    assert last.validation is not None
    (weights,) = find_evaluated(tmp_path / "plain").values()
    assert_equal(student.state_dict(), load_file(weights))
    assert fitted.selected_step == 12


def test_swad_can_not_refit() -> None:
    with pytest.raises(UserError, match="swad chooses its steps by the validation loss"):
        fit(
            Inputs(
                tiny_vit(),
                ColouredSquares(8),
                ColouredSquares(8),
                method=METHODS["stochca+swad"],
                settings=settings(),
                preprocessing=PREPROCESSING,
                refit=True,
            ),
        )


def test_evaluations_are_kept_as_asked_and_resuming_leaves_the_same(tmp_path: Path) -> None:
    """One file per evaluation, with the weights that the evaluation saw; `last` keeps one."""

    def run(keep: Keep, *callbacks: Callback) -> None:
        fit(
            Inputs(
                tiny_vit(),
                ColouredSquares(40),
                ColouredSquares(30, seed=1),
                method=Method(),
                settings=settings(drop_path=0.0),
                preprocessing=PREPROCESSING,
            ),
            work_folder=tmp_path / keep,
            keep_evaluated=keep,
            callbacks=callbacks,
            device=DEVICE,
        )

    expected: dict[Keep, list[int]] = {"all": [3, 6, 9, 12], "last": [12], "none": []}
    until_killed: dict[Keep, list[int]] = {"all": [3, 6], "last": [6], "none": []}
    for keep, steps in expected.items():
        with pytest.raises(Killed):
            run(keep, Kill(7))  # with a checkpoint of step 4 and an evaluation since
        assert list(find_evaluated(tmp_path / keep)) == until_killed[keep]
        run(keep)
        assert list(find_evaluated(tmp_path / keep)) == steps
    whole = load_file(find_evaluated(tmp_path / "all")[12])
    assert_equal(whole, load_file(find_evaluated(tmp_path / "last")[12]))
    state = load_checkpoint(tmp_path / "all")
    assert state is not None
    assert_equal(whole, state["student"])
    gone: dict[Keep, int] = {"all": 6, "last": 12}  # none may, while a checkpoint counts on it
    for keep, step in gone.items():
        find_evaluated(tmp_path / keep)[step].unlink()
        with pytest.raises(UserError, match=f"lacks the weights that were evaluated after step {step};"):
            run(keep)


def test_the_last_evaluation_drops_a_later_one_of_before_an_interruption(tmp_path: Path) -> None:
    for step in (6, 9, 6):
        save_evaluated(tmp_path, step, {"weight": torch.ones(1)}, "last")
        assert list(find_evaluated(tmp_path)) == [step]


def test_domains_that_can_not_share_a_batch() -> None:
    with pytest.raises(UserError, match=r"batch_size 8 can't hold equally many .* 3 domains a, b, c"):
        fit(
            Inputs(
                tiny_vit(),
                ColouredSquares(9),
                ColouredSquares(8),
                method=Method(),
                settings=settings(),
                preprocessing=PREPROCESSING,
                domains=["a", "b", "c"] * 3,
            ),
        )


class Unbalanced(ColouredSquares):
    """Nine in ten images are of the first class."""

    def __init__(self, number: int, seed: int = 0) -> None:
        super().__init__(10 * number, seed)
        rare = [i for i, label in enumerate(self.labels) if label][: number // 5]
        common = [i for i, label in enumerate(self.labels) if not label][: number - len(rare)]
        self.pixels = self.pixels[rare + common]
        self.labels = [self.labels[i] for i in rare + common]


def unbalanced(folder: Path | None = None, selection: Selection = "accuracy", **options: Any) -> Fitted:
    inputs = Inputs(
        tiny_vit(),
        Unbalanced(60),
        Unbalanced(60, seed=1),
        method=Method(phases=LpFt(C=(0.01, 1.0))),
        settings=settings(augmentation=Augmentation(), drop_path=0.0, evaluations=12, **options),
        preprocessing=PREPROCESSING,
        selection=selection,
    )
    return fit(inputs, work_folder=folder, keep_evaluated="all", device=DEVICE)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_metric_that_selects_chooses_the_weights(selection: Selection, tmp_path: Path) -> None:
    """Against the metric of all weights that were evaluated, taken anew."""
    fitted = unbalanced(tmp_path, selection)
    student, images, values = tiny_vit(), Unbalanced(60, seed=1), {}
    for step, path in find_evaluated(tmp_path).items():
        student.load_state_dict(load_file(path))
        logits, labels = predict(student, images, PREPROCESSING, device=DEVICE)
        values[step] = measure(selection, labels.numpy(), logits.softmax(dim=1).numpy())
    assert fitted.validation is not None
    best = (min if selection == "log_loss" else max)(values.values())
    assert fitted.validation.value == pytest.approx(best, abs=1e-5)
    assert values[fitted.selected_step or 0] == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("options", [{"class_weights": "balanced"}, {"sampler": "balanced"}])
def test_rare_classes_are_found_more_often(options: dict[str, Any]) -> None:
    def recall(**options: Any) -> float:
        fitted = unbalanced(None, steps=40, **options)
        images = ColouredSquares(90, seed=2)
        logits, labels = predict(fitted.model, images, PREPROCESSING, device=DEVICE)
        found = logits.argmax(dim=1)
        return float((found[labels > 0] == labels[labels > 0]).double().mean())

    assert recall(**options) > recall() + 0.05


def test_the_loss_of_a_step_weighs_images_by_their_class() -> None:
    """A step without augmentation, against the weighted mean over its images."""
    seen: list[float] = []

    class First(Callback):
        def on_step(self, event: StepEvent) -> None:
            seen.append(event.loss)

    images = ColouredSquares(40)
    still = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), horizontal_flip=0.0)
    options = settings(
        class_weights=(1.0, 2.0, 5.0), batch_size=40, augmentation=still, drop_path=0.0, steps=3
    )
    run(Method(), options, None, First())
    logits, labels = predict(tiny_vit(), images, PREPROCESSING, device=DEVICE)
    weights = torch.tensor([1.0, 2.0, 5.0])[labels]
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert seen[0] == pytest.approx(((weights * losses).sum() / weights.sum()).item(), rel=1e-4)


def inputs_with(**options: Any) -> Inputs:
    found: dict[str, Any] = {
        "train": ColouredSquares(40),
        "validation": ColouredSquares(30, seed=1),
        "settings": settings(),
        **options,
    }
    return Inputs(tiny_vit(), **{"method": Method(), "preprocessing": PREPROCESSING, **found})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"selection": "auroc", "validation": [(Image.new("RGB", (16, 16)), 1)] * 4},
            "auroc needs validation images of every class, but there are none of 0, 2;",
        ),
        (
            {"settings": settings(class_weights={"grey": 2.0}), "classes": ["red", "green", "blue"]},
            "training.class_weights names 'grey', .* the classes are red, green, blue",
        ),
        ({"settings": settings(class_weights=(1.0, 2.0))}, "has 2 weights for 3 classes"),
        ({"method": Method(training={"lr": 5e-5})}, "method.training sets lr, but .*; put it into settings"),
        (
            {"settings": settings(sampler="balanced"), "domains": ["a", "b"] * 20},
            "training.sampler balanced does not go with batches",
        ),
    ],
)
def test_what_can_not_be_balanced_or_measured_is_refused(options: dict[str, Any], sentence: str) -> None:
    class Starts(Callback):
        def on_start(self, first_step: int, steps: int) -> None:
            raise AssertionError("too late")

    with pytest.raises(UserError, match=sentence):
        fit(inputs_with(**options), callbacks=[Starts()], device=DEVICE)
