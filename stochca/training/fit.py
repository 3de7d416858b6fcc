"""Training, from a model with a fresh head to the weights that are kept."""

import math
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from timm.layers.drop import DropPath
from torch import Tensor

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation
from stochca.compute.checkpoint import cloned, save_weights
from stochca.compute.compilation import compiled_blocks
from stochca.compute.devices import default_device, device_name
from stochca.compute.distributed import from_main, gathered, is_main, rank, world_size
from stochca.compute.precision import choose_attention_kernel, resolve_precision
from stochca.compute.randomness import Stream, derived_seed, seed_everything
from stochca.config import Method, build
from stochca.config.training import Training
from stochca.data.batches import training_batches
from stochca.data.examples import Examples
from stochca.data.images import joined_images
from stochca.errors import UserError
from stochca.evaluation import Scores, evaluate
from stochca.phases.first_phase import FirstPhase
from stochca.timm_models.normalisation import other_normalisation
from stochca.training.callbacks import Callback, Callbacks, EvalEvent
from stochca.training.composition import compose, settled_teacher
from stochca.training.deciding import what_decides_fit
from stochca.training.inputs import Inputs, check_classes, check_images, check_settings
from stochca.training.loop import Loop
from stochca.training.loss import Loss

EVALUATED = "evaluated"
Keep = Literal["none", "last", "all"]


@dataclass(frozen=True)
class Fitted:
    """What a run came to."""

    model: TimmModule  # with the selected weights: the student, or a model around it
    validation: Scores | None  # of the selected weights; None: they were trained on the validation images
    selected_step: int | None  # None: an average of several steps
    train_seconds: float  # with what the method needs before its first step
    images_per_second: float  # of all ranks together
    peak_memory_mb: float  # of rank 0
    trainable_parameters: int
    precision: str
    device: str
    notes: list[str]
    # Of each block the share of the training images that cross-attended in it; empty without StochCA.
    cross_attended: list[float] = field(default_factory=list)


def fit(
    inputs: Inputs,
    *,
    work_folder: Path | str | None = None,
    keep_evaluated: Keep = "none",
    callbacks: Sequence[Callback] = (),
    device: torch.device | str | None = None,
) -> Fitted:
    """Fine-tune `inputs.student` in place; what is kept is `Fitted.model`.

    With a `work_folder`, checkpoints go there, and a run that finds one continues from it, to the same
    weights as if it had never stopped, where it is given the same student, images, method and settings; what
    images show is not compared. The weights of the last evaluation, or of all, are left in its folder
    `evaluated` if `keep_evaluated` says so.

    In a data-parallel run (`stochca.compute.distributed`) every rank calls this with the same arguments and
    ends with the same weights, which are those of a single process within rounding: `batch_size` counts
    the images of all ranks. Callbacks are called on rank 0 alone, which also writes the checkpoints.

    Raises:
        UserError: the method or the settings don't fit the model or the device, training and validation
            images number classes differently, a label is no output of the head, the ranks' devices differ in
            precision, parameters are frozen that the method trains, the work folder holds a checkpoint of
            another training or lacks weights that were kept, or training diverged.
    """
    device = default_device() if device is None else torch.device(device)
    folder = None if work_folder is None else Path(work_folder)
    check_settings(inputs, device)
    check_classes(inputs)
    inputs = inputs.labelled()
    check_images(inputs)
    check_drop_path(inputs)
    check_precisions(inputs, device)
    run = _Run(inputs, folder, keep_evaluated, Callbacks(callbacks if is_main() else ()), device)
    run.begin()
    try:
        run.train()
        return run.end()
    finally:
        run.listeners.on_end()


def check_drop_path(inputs: Inputs) -> None:
    """Raise `UserError` where the settings want another stochastic depth than the student was made with."""
    own = max(
        (part.drop_prob for part in inputs.student.modules() if isinstance(part, DropPath)), default=0.0
    )
    wanted = inputs.settings.drop_path
    if wanted and not math.isclose(own, wanted, rel_tol=1e-4):
        raise UserError(
            f"training.drop_path is {wanted}, but the student was made with {own:g}; make it with "
            f"timm.create_model(..., drop_path_rate={wanted}), or leave drop_path out"
        )


def precisions_of(method: Method, settings: Training, device: torch.device) -> str:
    """What a training computes in on a device, in words."""
    precision = resolve_precision(settings.precision, device)
    teacher = build(method.attention).teacher_precision(precision, device)
    return precision if teacher is None else f"{precision} with a teacher in {teacher}"


def check_precisions(inputs: Inputs, device: torch.device) -> None:
    """Raise `UserError`, on every rank, where they would compute in different precisions."""
    text = precisions_of(inputs.method, inputs.settings, device)
    found = dict(gathered((text, f"{device_name(device)} of {socket.gethostname()}")))
    if len(found) > 1:
        raise UserError(
            f"ranks would compute in different precisions: {' and '.join(map(' on '.join, found.items()))}; "
            "set training.precision to one that all devices have, and the method's teacher_precision to same"
        )


class _Run:
    """One run of `fit`: set up when made, then `begin`, the loop with its evaluations, and `end`."""

    def __init__(
        self,
        inputs: Inputs,
        work_folder: Path | None,
        keep_evaluated: Keep,
        listeners: Callback,
        device: torch.device,
    ) -> None:
        self.work_folder, self.keep_evaluated, self.listeners = work_folder, keep_evaluated, listeners
        self.device = device
        self.precision = resolve_precision(inputs.settings.precision, device)
        seed_everything(derived_seed(inputs.seed, Stream.GLOBAL))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        names_of_step = inputs.names_of_step  # images in memory have no names
        self.inputs = inputs = inputs.decoded()
        method, settings = inputs.method, inputs.settings
        self.timetable = inputs.timetable
        self.backbone = student = inputs.student.to(device)
        student.load_state_dict(from_main(student.state_dict(), device))
        student.set_grad_checkpointing(settings.gradient_checkpointing)
        choose_attention_kernel(student, self.precision, device)
        decides = (
            {} if work_folder is None else what_decides_fit(inputs.settled(device))
        )  # of the student before it is adapted
        started = time.perf_counter()  # from here on it is the method that takes time
        self.adaptation: Adaptation = build(method.adapter)
        model, self.student = compose(method, student, inputs.teacher, self.precision)
        model.to(device)
        self.teacher = settled_teacher(model, self.precision, device)
        if not is_main():  # dropout differs between ranks; the draws of StochCA, seeded by now, don't
            seed_everything(derived_seed(inputs.seed, Stream.GLOBAL, rank()))
        of_batches, of_images = (
            None if weights is None else torch.tensor(weights, device=device)
            for weights in (inputs.class_weights, inputs.class_weights_of_images)
        )
        self.examples = Examples(
            inputs.train,
            inputs.validation,
            inputs.preprocessing,
            device,
            self.precision,
            settings.workers,
            inputs.selection,
            class_weights=of_batches,
            class_weights_of_images=of_images,
        )
        self.loop = Loop(
            self.student,
            model,
            Loss(self.student, settings, inputs.seed, method.penalties, inputs.source_head, self.examples),
            method.average,
            settings,
            self.timetable,
            precision=self.precision,
            device=device,
            listeners=listeners,
            work_folder=work_folder,
            decides=decides,
            names_of_step=names_of_step,
        )
        self.progress, self.averaging = self.loop.progress, self.loop.averaging
        if self.progress.step == 0:  # else its seconds hold this already
            self.loop.started = started

    def begin(self) -> None:
        """Continue from the last checkpoint, or do what comes before the first step."""
        inputs, method, progress = self.inputs, self.inputs.method, self.progress
        self._check_evaluated()
        if progress.step == 0:
            seen = inputs.preprocessing
            progress.notes += other_normalisation(inputs.student, seen.mean, seen.std)
            progress.notes += self.adaptation.notes
            progress.notes += build(method.attention).notes(self.precision, self.device)
            phase: FirstPhase = build(method.phases)
            note = phase.run(self.student, self.examples, inputs.class_texts, refit=inputs.refit)
            progress.notes += [note] if note else []
            self.averaging.before_training(self.student)
        self.listeners.on_start(progress.step, self.timetable.steps)
        for note in progress.notes:
            self.listeners.on_note(note)
        self.adaptation.set_training_mode(self.loop.model, self.student)

    def _check_evaluated(self) -> None:
        """Raise UserError where weights that were to be kept up to the checkpoint have been removed."""
        if self.work_folder is None or self.keep_evaluated == "none" or self.inputs.refit or not is_main():
            return
        progress = self.progress.step
        due = [step for step in self.timetable.evaluations if step <= progress]
        kept = find_evaluated(self.work_folder)
        if self.keep_evaluated == "last":  # a later one has taken its place, and will be repeated
            missing = [step for step in due[-1:] if step > max(kept, default=0)]
        else:
            missing = [step for step in due if step not in kept]
        if missing:
            raise UserError(
                f"{self.work_folder}, whose checkpoint is of step {progress}, lacks the weights that were "
                f"evaluated after step {missing[0]}; remove the folder to train from the beginning"
            )

    def train(self) -> None:
        """Take the steps that are left, or those until patience ends, on this rank's images."""
        inputs, settings = self.inputs, self.inputs.settings
        batches = training_batches(
            joined_images(*inputs.parts),
            inputs.preprocessing,
            settings,
            domains=inputs.domains,
            labels=inputs.balanced_labels,
            seed=inputs.seed,
            steps=self.timetable.steps,
            start=self.progress.step,
            rank=rank(),
            ranks=world_size(),
        )
        with compiled_blocks(self.backbone, self.teacher) if settings.compile else nullcontext():
            self.loop.run(batches, None if inputs.refit else self.evaluate)

    def evaluate(self, step: int) -> None:
        """Score the weights after `step` steps on validation, and keep them if they are the best."""
        evaluated = self.adaptation.plain(self.averaging.evaluated(self.student))
        scores = self._scores(evaluated)
        self.averaging.after_evaluation(self.student, step, scores.loss)
        is_best = self.progress.keep_if_best(step, scores, evaluated.state_dict())
        if self.work_folder is not None and is_main():
            save_evaluated(self.work_folder, step, evaluated.state_dict(), self.keep_evaluated)
        steps, chosen_by = self.timetable.steps, scores.selection
        self.listeners.on_eval(
            EvalEvent(step, steps, scores.loss, scores.accuracy, is_best, chosen_by, scores.value)
        )

    def end(self) -> Fitted:
        """Select the weights, and put them into the model that is kept."""
        settings, progress, averaging = self.inputs.settings, self.progress, self.averaging
        selected, selected_step, best = progress.best, progress.best_step, progress.best_weights
        if self.inputs.refit:
            best, selected_step = cloned(averaging.evaluated(self.student).state_dict()), progress.step
        averaged = averaging.finish(self.student, best, self._scores)
        # The best on validation were weights of the plain model, the others are those of the adapted one.
        if averaged is not None:
            self.student.load_state_dict(averaged)
        elif self.inputs.refit:
            self.student.load_state_dict(best)
        model = self.adaptation.finish(self.student)
        if averaged is not None:
            selected, selected_step = (None if self.inputs.refit else self._scores(model)), None
        elif not self.inputs.refit:
            model.load_state_dict(best)
        model.requires_grad_(True).eval()
        notes = [*self._early_end, *averaging.notes, *progress.skip_notes]
        stochca = self.loop.stochca
        for note in notes:
            self.listeners.on_note(note)
        return Fitted(
            model=model,
            validation=selected,
            selected_step=selected_step,
            train_seconds=time.perf_counter() - self.loop.started,
            images_per_second=progress.step * settings.batch_size / progress.step_seconds,
            peak_memory_mb=self.loop.peak_memory_mb,
            trainable_parameters=sum(parameter.numel() for parameter in self.loop.trainable),
            precision=self.precision,
            device=device_name(self.device),
            notes=progress.notes + notes,
            cross_attended=[] if stochca is None else stochca.tally.shares,
        )

    @property
    def _early_end(self) -> list[str]:
        """What a person should know where patience has ended training."""
        step, steps = self.progress.step, self.timetable.steps
        if step == steps:
            return []
        return [
            f"Training ended early, after step {step} of {steps}: the last {self.inputs.settings.patience} "
            f"evaluations on validation were no better than that after step {self.progress.best_step}."
        ]

    def _scores(self, model: TimmModule) -> Scores:
        return evaluate(model, self.examples)


def save_evaluated(work_folder: Path, step: int, weights: Mapping[str, Tensor], keep: Keep) -> None:
    """Write the weights after `step` steps to work_folder/evaluated; `last` drops the others."""
    if keep == "none":
        return
    folder = work_folder / EVALUATED
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / f"{step:08}.safetensors", dict(weights))
    if keep == "last":
        for other, path in find_evaluated(work_folder).items():
            if other != step:  # a later one too, of before an interruption
                path.unlink()


def find_evaluated(work_folder: Path) -> dict[int, Path]:
    """The files of `save_evaluated` by step, in order."""
    paths = sorted((work_folder / EVALUATED).glob("[0-9]*.safetensors"))
    return {int(path.stem): path for path in paths}
