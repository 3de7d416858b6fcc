"""Keeps the records of the trials from what Ray Tune tells, and passes on what is new."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

from mlflow.entities import RunStatus
from ray.exceptions import RayError
from ray.util.queue import Queue

from pipeline.runtime.files import write_json
from pipeline.search.children import Children
from pipeline.search.messenger import END, Message, message_of
from pipeline.search.progress import SearchProgress
from pipeline.search.records import Record

CLOCK = "clock.json"
SECONDS_TO_CATCH_UP = 30.0


class Journal:
    """The records of a search. An interrupted search goes on with its clock where it stood.

    Args:
        folder: where the clock is kept.
        steps: of a trial that runs to its end.
    """

    def __init__(self, folder: Path, steps: int, progress: SearchProgress, children: Children) -> None:
        self.records: dict[str, Record] = {}
        self.steps = steps
        self.progress = progress
        self.children = children
        self.clock_file = folder / CLOCK
        clock = json.loads(self.clock_file.read_text()) if self.clock_file.exists() else {}
        self.started = monotonic() - clock.get("seconds", 0.0)
        self.finished: dict[str, float] = clock.get("finished", {})  # when each trial was, by its id
        self.told = set(self.finished)  # by an interrupted search

    @contextmanager
    def reads(self, mailbox: Queue) -> Iterator[None]:
        """Take in what arrives in the mailbox, during the block and whatever is in it at its end."""
        problems: list[Exception] = []

        def read() -> None:
            try:
                while (message := mailbox.get()) is not END:
                    self.take(message)
            except Exception as error:
                problems.append(error)

        reader = Thread(target=read, name="journal", daemon=True)
        reader.start()
        try:
            with self.progress.bar:
                try:
                    yield
                finally:
                    with suppress(RayError, ConnectionError):  # a lost cluster is told by what it broke
                        mailbox.put(END)
                        reader.join(SECONDS_TO_CATCH_UP)
            if problems:
                raise problems[0]
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            self.children.interrupt(RunStatus.to_string(RunStatus.KILLED if stopped else RunStatus.FAILED))
            raise

    def take(self, message: Message) -> None:
        """Take in one message; what is known already changes nothing."""
        record = self.records.setdefault(
            message["trial"], Record(message["trial"], message["number"], message["values"])
        )
        if message["kind"] == "started":
            self.children.start(record)
        is_news = record.id not in self.told
        if record.update(message["result"]):
            self.children.report(record)
            if is_news:
                self.progress.reported(record)
        if message["kind"] in ("finished", "failed") and record.finished_at is None:
            record.problem = record.problem or message.get("problem")
            record.stopped_early = not record.problem and record.step < self.steps
            record.finished_at = self.finished.setdefault(record.id, self._now())
            self.children.end(record)
            if is_news:
                self.progress.finished(record)
        self.progress.update(self.records.values())
        write_json(self.clock_file, {"seconds": self._now(), "finished": self.finished})

    def complete(self, results: Iterable[Any]) -> list[Record]:
        """The records of all trials, also of those that finished before an interruption.

        Args:
            results: Ray Tune's, of all trials.
        """
        for result in results:
            metrics = result.metrics or {}
            if "trial_id" in metrics:
                trial, tag = metrics["trial_id"], metrics["experiment_tag"]
                kind = "failed" if result.error else "finished"
                self.take(message_of(kind, trial, tag, result.config, metrics, result.error))
        return sorted(self.records.values(), key=lambda record: record.number)

    def _now(self) -> float:
        return monotonic() - self.started
