"""Training by `transformers.Trainer`, which goes on exactly where an interrupted run left a checkpoint."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from examples.language.settings import Training
from examples.language.text.batches import to_learn
from examples.language.text.encoding import Example
from stochca.errors import UserError

WHOLE = "whole"  # in a checkpoint that was written to its end
CHECKPOINTS = "checkpoints"  # in the run's folder
BEGUN = f"{CHECKPOINTS}/checkpoint-*/{WHOLE}"
Log = Callable[[dict[str, float], int], None]  # numbers of a step, and the step


@dataclass(frozen=True)
class Fitted:
    """What there is to tell of a training; its seconds include those before an interruption."""

    losses: list[float]  # by step: the cross-entropy
    reconstruction: list[float]  # of TOAST likewise, the term beside it; of others empty
    seconds: float
    trainable_parameters: int


def fit(
    module: nn.Module,
    examples: Sequence[Example],
    settings: Training,
    *,
    lr: float,
    steps: int,
    seed: int,
    precision: str,
    device: torch.device,
    pad: int,
    folder: Path,
    log: Log,
    whole_text: bool = False,
) -> Fitted:
    """Train `module`, whose loss is that of its own forward pass, in place.

    Args:
        precision: fp32 or bf16.
        pad: the token that fills up a batch.
        folder: for checkpoints; the last whole one that is there is gone on with.
        whole_text: prompts are learned as well as answers.

    Raises:
        UserError: training diverged.
    """
    arguments = _Arguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size // settings.accumulate,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=lr,
        weight_decay=settings.weight_decay,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        max_grad_norm=settings.clip_grad,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=precision == "bf16",
        use_cpu=device.type == "cpu",
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would tell of zeros in place of what is not finite
        save_strategy="steps",
        save_steps=max(1, steps // (settings.checkpoints + 1)),
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = _Trainer(
        model=module,
        args=arguments,
        train_dataset=list(examples),
        data_collator=partial(to_learn, pad=pad, whole=whole_text),
        callbacks=[_MarksCheckpoints()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.told = log
    with Progress(disable=not sys.stdout.isatty()) as bar:
        trainer.add_callback(_TellsProgress(bar))
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
    steps_told = [each for each in trainer.state.log_history if "seconds" in each]
    return Fitted(
        [each["cross_entropy"] for each in steps_told],
        [each["reconstruction"] for each in steps_told if "reconstruction" in each],
        sum(each["seconds"] for each in steps_told),
        sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad),
    )


def last_checkpoint(folder: Path) -> str | None:
    """The last that was written to its end, if there is one."""
    whole = [mark.parent for mark in folder.glob(f"checkpoint-*/{WHOLE}")]
    return str(max(whole, key=lambda path: int(path.name.split("-")[1]))) if whole else None


class _Arguments(TrainingArguments):
    """Of several GPUs one is used: nn.DataParallel would give a step as many times the answers."""

    @property
    def n_gpu(self) -> int:
        return min(1, super().n_gpu)


class _Trainer(Trainer):
    """Tells of every step: the cross-entropy, what TOAST adds to it, and the seconds since the last."""

    told: Log
    _since: float
    _reconstruction: float | None = None

    def train(self, *arguments: Any, **options: Any) -> Any:
        self._since = time.perf_counter()
        return super().train(*arguments, **options)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, *arguments: Any, **options: Any
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, True, *arguments, **options)
        if (term := getattr(outputs, "reconstruction", None)) is not None:
            self._reconstruction = (self._reconstruction or 0.0) + float(term.detach())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._check_finite(logs)
            now = time.perf_counter()
            logs["seconds"], self._since = now - self._since, now
            logs["cross_entropy"] = logs["loss"] - (self._reconstruction or 0.0)
            numbers = {"train_loss": logs["cross_entropy"], "lr": logs["learning_rate"]}
            if self._reconstruction is not None:
                numbers["reconstruction"] = logs["reconstruction"] = self._reconstruction
            self._reconstruction = None
            self.told(numbers, self.state.global_step)
        super().log(logs, start_time)

    def _check_finite(self, logs: dict[str, float]) -> None:
        """Raise `UserError` after a step that has made the weights something that is not finite."""
        if not all(isfinite(logs[name]) for name in ("loss", "grad_norm")):
            raise UserError(
                f"training diverged: in step {self.state.global_step} of {self.state.max_steps} the loss was "
                f"{logs['loss']:g} and the norm of its gradient {logs['grad_norm']:g}; lower lr, which is "
                f"{self.args.learning_rate:g}"
            )


class _TellsProgress(TrainerCallback):
    """A bar on a terminal, a line per checkpoint elsewhere."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step:
            print(f"continues after step {state.global_step} of {state.max_steps}", flush=True)
        self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.advance(self.task)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar.disable:
            print(f"step {state.global_step} of {state.max_steps}", flush=True)


class _MarksCheckpoints(TrainerCallback):
    """A checkpoint is a folder of several files, which a kill may leave by half."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_save = False  # what has ended is saved elsewhere

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()
