"""How far a training run is: a bar on a terminal, a line per evaluation elsewhere."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stochca.config.selection import SELECTIONS
from stochca.training.callbacks import Callback, EvalEvent, StepEvent


class TrainingProgress(Callback):
    def __init__(self, name: str) -> None:
        self.name = name
        self.console = Console(highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.loss = float("nan")

    def on_start(self, first_step: int, steps: int) -> None:
        if first_step:
            self.console.print(f"{self.name}: continues after step {first_step} of {steps}")
        for task in self.bar.task_ids:  # of a start that lost a worker
            self.bar.remove_task(task)
        self.bar.start()
        self.task = self.bar.add_task(self.name, total=steps, completed=first_step, state="")

    def on_step(self, event: StepEvent) -> None:
        self.loss = event.loss
        state = f"loss {event.loss:.3f}, {event.images_per_second:.0f} images/s"
        self.bar.update(self.task, completed=event.step, state=state)

    def on_eval(self, event: EvalEvent) -> None:
        best = " (best so far)" if event.is_best else ""
        line = (
            f"{self.name}: step {event.step} of {event.steps}, training loss {self.loss:.3f}, "
            f"validation {SELECTIONS[event.selection].title} {event.value:.3f}{best}"
        )
        self.console.print(line, soft_wrap=True)

    def on_note(self, note: str) -> None:
        self.console.print(f"{self.name}: {note}", soft_wrap=True)

    def on_end(self) -> None:
        """Give the terminal its cursor back; also after an interruption, and where nothing has started."""
        self.bar.stop()
