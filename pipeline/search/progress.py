"""How far a search is, for people: a line per report, a bar on a terminal, and a run per trial in MLflow."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pipeline.search.records import Record, Rung
from pipeline.search.space import as_methods_take
from pipeline.tracking.run_folder import CHILDREN, ENDS, RUN, RunFolder
from pipeline.training.digests import digest_of
from stochca.config.selection import Metric


class SearchProgress:
    """Tells of the trials what it has not told before.

    Args:
        run: of the search; those of the trials are nested under it.
        steps: of a trial that runs to its end.
        metric: that the trials are compared by.
    """

    def __init__(self, run: RunFolder, trials: int, steps: int, seeds: Sequence[int], metric: Metric) -> None:
        self.run, self.trials, self.steps, self.seeds, self.metric = run, trials, steps, seeds, metric
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
        self.told: dict[int, Record] = {}  # by number

    def say(self, text: str) -> None:
        self.console.print(f"tune: {text}", soft_wrap=True)

    def tell(self, records: Sequence[Record], *, aloud: bool = True) -> None:
        """Tell what is new: to MLflow, where a number that it has stays as it is, and aloud in lines."""
        for record in records:
            before = self.told.get(record.number)
            if record == before:
                continue
            if before is not None and before.id != record.id:
                before = None
            new = record.rungs[len(before.rungs) if before else 0 :]
            self._tell_mlflow(record, new, is_open=before is not None and before.finished_at is None)
            if aloud:
                self._say_of(record, new)
            self.told[record.number] = record
        done = sum(self.steps if record.finished_at is not None else record.step for record in records)
        self.bar.update(self.task, completed=done)

    def _say_of(self, record: Record, new: Sequence[Rung]) -> None:
        texts = []
        over = "1 seed" if len(self.seeds) == 1 else f"{len(self.seeds)} seeds"
        for rung in new:
            spread = "" if rung.std is None else f" ± {rung.std:.3f}"
            reached = f"validation {self.metric.title} {rung.mean:.3f}{spread} ({over})"
            texts.append(f"step {rung.step} of {self.steps}, {reached}")
        if record.finished_at is not None and record.problem:
            texts.append(f"failed: {record.problem}")
        elif record.finished_at is not None and record.stopped_early:
            texts.append(f"stopped early, after step {record.step}")
        for text in texts:
            self.say(f"trial {record.number} of {self.trials}, {record.name.replace('=', ' ')}: {text}")

    def _tell_mlflow(self, record: Record, new: Sequence[Rung], is_open: bool) -> None:
        # Named by its values: a trial that is drawn again after a kill goes on with the run that it had.
        name = f"{record.number}-{digest_of(dict(record.values))[:12]}"
        run = RunFolder(self.run.folder / CHILDREN / name)
        if not is_open:
            if record.finished_at is not None and run.read(RUN).get("status") in ENDS:
                return  # told by a search that was interrupted
            run = self.run.child(name, record.name, {"trial": record.id})
        if new:
            seeds = ",".join(map(str, self.seeds))
            run.add_params({**as_methods_take(record.values), "seeds": seeds, "node": record.node})
        for rung in new:
            name, each = f"validation_{self.metric.name}", zip(self.seeds, rung.values, strict=True)
            values = {name: rung.mean, **{f"{name}_seed_{seed}": value for seed, value in each}}
            run.log(values if rung.std is None else {**values, f"{name}_std": rung.std}, rung.step)
        if record.finished_at is not None:
            problem = {"problem": record.problem} if record.problem else {}
            run.add_tags({"stopped_early": str(record.stopped_early).lower(), **problem})
            run.end("FAILED" if record.problem else "FINISHED")
