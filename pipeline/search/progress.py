"""How far a search is: a line per report, and on a terminal a bar."""

from collections.abc import Iterable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pipeline.search.records import Record


class SearchProgress:
    def __init__(self, trials: int, steps: int, seeds: int) -> None:
        self.trials, self.steps = trials, steps
        self.over = "1 seed" if seeds == 1 else f"{seeds} seeds"
        self.console = Console(highlight=False)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("tune", total=trials * steps)

    def say(self, text: str) -> None:
        self.console.print(f"tune: {text}", soft_wrap=True)

    def reported(self, record: Record) -> None:
        spread = "" if record.std is None else f" ± {record.std:.3f}"
        accuracy = f"validation accuracy {record.mean:.3f}{spread} ({self.over})"
        self._say_of(record, f"step {record.step} of {self.steps}, {accuracy}")

    def finished(self, record: Record) -> None:
        if record.problem:
            self._say_of(record, f"failed: {record.problem}")
        elif record.stopped_early:
            self._say_of(record, f"stopped early, after step {record.step}")

    def update(self, records: Iterable[Record]) -> None:
        done = sum(self.steps if record.finished_at is not None else record.step for record in records)
        self.bar.update(self.task, completed=done)

    def _say_of(self, record: Record, text: str) -> None:
        self.say(f"trial {record.number} of {self.trials}, {record.name.replace('=', ' ')}: {text}")
