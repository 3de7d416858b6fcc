"""The training loop."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from stochca._typing import TimmModule
from stochca.averaging import start_averaging
from stochca.compute.checkpoint import cloned
from stochca.compute.compilation import check_compiles, compiled_blocks
from stochca.compute.devices import default_device, device_name, peak_memory_mb
from stochca.compute.distributed import (
    average_gradients,
    averaging_gradients,
    data_parallel,
    from_main,
    is_main,
    rank,
    share_statistics,
    world_size,
)
from stochca.compute.precision import autocast, choose_attention_kernel, resolve_precision
from stochca.compute.randomness import Stream, derived_seed, seed_everything
from stochca.config import HeadAlone, Method, Swad, WiseFt
from stochca.config.training import Training
from stochca.data.batches import images_of_step, training_batches
from stochca.data.examples import Examples
from stochca.data.images import Images, Joined, keep_in_memory, names_of
from stochca.data.preprocessing import Preprocessing
from stochca.errors import UserError
from stochca.evaluation import Scores, predict_together, score
from stochca.penalties.terms import check_penalties
from stochca.phases.zero_shot import ClassTexts
from stochca.training.callbacks import Callback, Callbacks, EvalEvent
from stochca.training.composition import (
    adaptation,
    attention_notes,
    check_composition,
    compose,
    cross_attended,
    first_phase,
    set_progress,
    settled_teacher,
)
from stochca.training.divergence import Divergence
from stochca.training.evaluated import Keep, save_evaluated
from stochca.training.loss import Loss
from stochca.training.optimisation import create_optimizer, create_schedule
from stochca.training.reporting import backbone_lr, report_steps
from stochca.training.state import RunState

EVENTS_EVERY = 10  # steps between reading losses back from the device


@dataclass(frozen=True)
class Fitted:
    """What a run came to."""

    model: TimmModule  # with the selected weights: the student, or a model around it
    validation: Scores | None  # of the selected weights; None: they were trained on the validation images
    selected_step: int | None  # None: an average of several steps
    train_seconds: float
    images_per_second: float  # of all ranks together
    peak_memory_mb: float  # of rank 0
    trainable_parameters: int
    precision: str
    device: str
    notes: list[str]
    # Of each block the share of the training images that cross-attended in it; empty without StochCA.
    cross_attended: list[float] = field(default_factory=list)


def fit(
    student: TimmModule,
    train: Images,
    validation: Images,
    *,
    method: Method,
    settings: Training,
    preprocessing: Preprocessing,
    source_head: nn.Linear | None = None,
    teacher: TimmModule | None = None,
    class_texts: ClassTexts | None = None,
    domains: Sequence[str] | None = None,
    refit: bool = False,
    seed: int = 0,
    work_folder: Path | None = None,
    keep_evaluated: Keep = "none",
    callbacks: Sequence[Callback] = (),
    device: torch.device | None = None,
) -> Fitted:
    """Fine-tune `student`, a timm model with a fresh head, in place; what is kept is `Fitted.model`.

    Selection looks at `validation` and nothing else. With a `work_folder`, checkpoints go there, and a
    run that finds one continues from it, to the same weights as if it had never stopped; the weights of
    the last evaluation, or of all, are left in its folder `looks` if `keep_evaluated` says so.

    `domains` names the domain of each training image; every batch then holds equally many of each. With
    `refit` the validation images, on which everything has been chosen, are trained on too: nothing is
    looked at any more, and the weights of the last step are kept.

    `teacher` is the model that `attention.teacher` names, if it names one (it is frozen in place, its
    projections in the numbers it computes in), and `class_texts` what the first
    phase `zero_shot` makes a head of.

    In a data-parallel run (`stochca.compute.distributed`) every rank calls this with the same arguments and
    ends with the same weights, which are those of a single process within rounding: `batch_size` counts
    the images of all ranks. Callbacks are called on rank 0 alone, which also writes the checkpoints.

    Raises:
        UserError: the method or the settings don't fit the model or the device.
    """
    device = device or default_device()
    precision = resolve_precision(settings.precision, device)
    listeners = Callbacks(callbacks if is_main() else ())
    check_settings(
        student,
        method,
        settings,
        preprocessing,
        device,
        source_head,
        teacher=teacher,
        class_texts=class_texts,
        domains=domains,
        refit=refit,
    )
    for name, split in (("training", train), ("validation", validation)):
        if len(split) < world_size():
            number = f"only {len(split)}" if len(split) else "no"
            raise UserError(f"there are {number} {name} images")
    seed_everything(derived_seed(seed, Stream.GLOBAL))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    parts = (train, validation)
    train = keep_in_memory(train, reads=settings.steps * settings.batch_size)
    validation = keep_in_memory(validation)
    student.to(device)
    student.load_state_dict(from_main(student.state_dict(), device))
    student.set_grad_checkpointing(settings.gradient_checkpointing)
    choose_attention_kernel(student, precision, device)
    train_choice = adaptation(method.adapter)
    backbone = student
    model, student = compose(method, student, teacher, precision)
    model.to(device)
    teacher = settled_teacher(model, precision, device)
    if not is_main():  # dropout differs between ranks; the draws of StochCA, seeded by now, don't
        seed_everything(derived_seed(seed, Stream.GLOBAL, rank()))
    examples = Examples(train, validation, preprocessing, device, precision, settings.workers)
    loss_of = Loss(student, settings, seed, method.penalties, source_head, examples)
    optimizer = create_optimizer(student, settings, loss_of)
    schedule = create_schedule(optimizer, settings)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    averaging = start_averaging(method.average, student, settings.steps)
    state = RunState(student, model, loss_of, optimizer, scaler, averaging, device)

    progress = state.restore(work_folder)
    started = time.perf_counter() - progress.seconds
    if progress.step == 0:
        progress.notes += [*train_choice.notes, *attention_notes(method.attention, precision, device)]
        note = first_phase(
            method.phases,
            student,
            train,
            validation,
            preprocessing,
            class_texts,
            device=device,
            precision=precision,
            workers=settings.workers,
            refit=refit,
        )
        progress.notes += [note] if note else []
        averaging.before_training(student)
    listeners.on_start(progress.step, settings.steps)
    for note in progress.notes:
        listeners.on_note(note)

    def look(model: nn.Module) -> Scores:
        logits, labels = predict_together(
            model, validation, preprocessing, device=device, precision=precision, workers=settings.workers
        )
        return from_main(score(logits, labels), device)

    divergence = Divergence(
        lambda step: names_of(
            parts,
            images_of_step(
                sum(len(part) for part in parts[: 1 + refit]),
                settings,
                domains=domains,
                seed=seed,
                step=step,
            ),
        ),
        fp16=scaler.is_enabled(),
        skipped=progress.skipped,
    )
    model = data_parallel(model)
    train_choice.set_training_mode(model, student)
    trainable = [parameter for parameter in student.parameters() if parameter.requires_grad]
    unread: list[tuple[int, Tensor, float]] = []  # steps whose losses are still on the device
    window_started = time.perf_counter()
    compiled = ExitStack()
    try:
        if settings.compile:
            compiled.enter_context(compiled_blocks(backbone, teacher))
        for images, labels in training_batches(
            Joined(train, validation) if refit else train,
            preprocessing,
            settings,
            domains=domains,
            seed=seed,
            start=progress.step,
            rank=rank(),
            ranks=world_size(),
        ):
            step = progress.step + 1
            schedule.step_update(step)
            set_progress(state.model, step, settings.steps)
            losses: list[Tensor] = []
            for part, part_labels in zip(
                images.chunk(settings.accumulate), labels.chunk(settings.accumulate), strict=True
            ):
                part = part.to(device, non_blocking=True)
                part_labels = part_labels.to(device, non_blocking=True)
                is_last = len(losses) == settings.accumulate - 1
                with averaging_gradients(model, now=is_last):
                    with autocast(precision, device):
                        loss = loss_of(model, part, part_labels, step) / settings.accumulate
                    scaler.scale(loss).backward()
                losses.append(loss.detach())
            average_gradients(loss_of.parameters)
            share_statistics(student)
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(trainable, settings.clip_grad or math.inf)
            if not divergence.skips(norm, step):
                scaler.step(optimizer)
                averaging.after_step(student, step)
                unread.append((step, torch.stack(losses).sum(), backbone_lr(optimizer)))
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            progress.step, progress.skipped = step, divergence.skipped

            evaluates = not refit and (step % settings.eval_every == 0 or step == settings.steps)
            saves = (step % settings.checkpoint_every == 0 or step == settings.steps) and (
                not divergence.going_on
            )
            if evaluates or saves or step % EVENTS_EVERY == 0:
                progress.step_seconds += report_steps(listeners, unread, settings, window_started)
                unread.clear()

            if evaluates:
                evaluated = train_choice.plain(averaging.evaluated(student))
                scores = look(evaluated)
                averaging.after_evaluation(student, step, scores.loss)
                is_best = (scores.accuracy, -scores.loss) > progress.best_scores
                if is_best:
                    progress.best_step, progress.best_scores = step, (scores.accuracy, -scores.loss)
                    progress.best_weights = cloned(evaluated.state_dict())
                if work_folder is not None and is_main():
                    save_evaluated(work_folder, step, evaluated.state_dict(), keep_evaluated)
                listeners.on_eval(EvalEvent(step, settings.steps, scores.loss, scores.accuracy, is_best))

            if saves and work_folder is not None:
                progress.seconds = time.perf_counter() - started
                listeners.on_checkpoint(state.save(work_folder, progress), step)
            if not unread:
                window_started = time.perf_counter()

        compiled.close()
        selected, selected_step = progress.best
        best = progress.best_weights
        if refit:
            best, selected_step = cloned(averaging.evaluated(student).state_dict()), settings.steps
        kept = averaging.finish(student, best, look)
        if kept is not None:
            student.load_state_dict(kept)
        elif refit:
            student.load_state_dict(best)
        student = train_choice.finish(student)
        if kept is not None:
            selected, selected_step = (None if refit else look(student)), None
        elif not refit:
            student.load_state_dict(best)
        student.requires_grad_(True).eval()
        notes = [*averaging.notes, *divergence.notes]
        for note in notes:
            listeners.on_note(note)
    finally:
        try:
            compiled.close()
        finally:
            listeners.on_end()
    return Fitted(
        model=student,
        validation=selected,
        selected_step=selected_step,
        train_seconds=time.perf_counter() - started,
        images_per_second=settings.steps * settings.batch_size / progress.step_seconds,
        peak_memory_mb=peak_memory_mb(device),
        trainable_parameters=sum(parameter.numel() for parameter in trainable),
        precision=precision,
        device=device_name(device),
        notes=progress.notes + notes,
        cross_attended=cross_attended(state.model),
    )


def check_settings(
    student: TimmModule,
    method: Method,
    settings: Training,
    preprocessing: Preprocessing,
    device: torch.device,
    source_head: nn.Linear | None = None,
    *,
    teacher: TimmModule | None = None,
    class_texts: ClassTexts | None = None,
    domains: Sequence[str] | None = None,
    refit: bool = False,
) -> None:
    """Find what would stop `fit` later, before any work.

    Raises:
        UserError: the device lacks the precision or what compiling needs, timm knows no such optimiser or
            augmentation, a choice of the method does not suit the model, or the ranks or domains can't share
            a batch.
    """
    resolve_precision(settings.precision, device)
    names = sorted(set(domains or ()))
    if names and settings.batch_size % len(names):
        raise UserError(
            f"training.batch_size {settings.batch_size} can't hold equally many images of the {len(names)} "
            f"domains {', '.join(names)}; choose a multiple of {len(names)}"
        )
    if refit and isinstance(method.average, Swad):
        raise UserError("average swad chooses its steps by the validation loss, of which refit leaves none")
    if refit and isinstance(method.average, WiseFt) and len(method.average.alphas) > 1:
        raise UserError(
            "average wise_ft chooses among several alpha on validation, of which refit leaves nothing; give "
            "one alpha"
        )
    share = settings.batch_size / (settings.accumulate * world_size())
    pairs = settings.augmentation.mixup or settings.augmentation.cutmix
    if share % (2 if pairs else 1):
        raise UserError(
            f"training.batch_size {settings.batch_size}, split by {world_size()} workers and "
            f"training.accumulate {settings.accumulate}, leaves {share:g} images; choose a batch size that "
            f"leaves {'an even number, because mixup and cutmix pair images up' if pairs else 'whole images'}"
        )
    if settings.head_lr_scale == 0 and isinstance(method.adapter, HeadAlone):
        raise UserError("training.head_lr_scale 0 with adapter 'head' trains nothing; set it to 1")
    if settings.layer_decay is not None and not adaptation(method.adapter).takes_layer_decay:
        raise UserError(
            f"training.layer_decay {settings.layer_decay} means nothing with adapter "
            f"{method.adapter.name!r}, which freezes the layers that it counts; set it to null"
        )
    if settings.compile:
        check_compiles(device)
    create_optimizer(student, settings)
    preprocessing.training(settings.augmentation)
    check_composition(method, student, teacher, class_texts)
    check_penalties(method.penalties, source_head, int(share))
