"""What a search found, in `reports/tune/`: best.yaml, trials.csv and two pictures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline.config.tuned import BEST
from pipeline.search.pictures import reached_against_prob, trials_over_time
from pipeline.search.records import Record
from pipeline.search.space import as_methods_take, is_plain, mean_prob
from pipeline.search.task import Task
from stochca.config.selection import Metric
from stochca.errors import UserError

TRIALS = "trials.csv"
BY_PROB = "accuracy_by_prob.png"
OVER_TIME = "trials_over_time.png"


def best_of(records: Sequence[Record], metric: Metric) -> Record:
    """The best mean over the seeds, among trials that ran to the end; of equals the smaller probability.

    Raises:
        UserError: no trial ran to the end.
    """
    complete = [record for record in records if record.is_complete]
    if not complete:
        problem = next((record.problem for record in records if record.problem), "nothing was reported")
        raise UserError(f"tune: no trial came to an end; the first problem was: {problem}")
    return min(complete, key=lambda record: (-metric.merit(record.reached.mean), mean_prob(record.values)))


def plain_of(records: Sequence[Record], metric: Metric) -> Record | None:
    """The trial of plain fine-tuning that came to its end; the best, where the rate varied."""
    plain = [record for record in records if record.is_complete and is_plain(record.values)]
    return max(plain, key=lambda record: metric.merit(record.reached.mean)) if plain else None


def against_plain(best: Record, plain: Record | None, trials: int, metric: Metric) -> str:
    """In words, whether the best is beyond the noise of plain fine-tuning."""
    if plain is None:
        return "plain fine-tuning (prob 0) was not among the trials, so nothing is known of the gain over it"
    if is_plain(best.values):
        return "no probability did better than plain fine-tuning (prob 0)"
    reached, before = best.reached, plain.reached
    gain = reached.mean - before.mean
    told = f"{gain:+.4f} {metric.title} over plain fine-tuning (prob 0: {before.mean:.4f})"
    if reached.std is None or before.std is None:
        return f"{told}; with a single seed nothing is known of the noise, so set tune.seeds to two or more"
    noise = math.hypot(reached.std, before.std)
    verdict = "beyond" if metric.merit(gain) > noise else "within"
    return (
        f"{told}, {verdict} the noise: the spread of such a difference over the seeds is {noise:.4f}; "
        f"being the best of {trials} favours it"
    )


def write_results(folder: Path, task: Task, records: Sequence[Record]) -> dict[str, Any]:
    """Fill the empty `folder`; gives the contents of best.yaml.

    Raises:
        UserError: no trial ran to the end.
    """
    best, plain = best_of(records, task.metric), plain_of(records, task.metric)
    reached = best.reached
    found = {
        **as_methods_take(best.values),
        task.measured: {"mean": reached.mean, "std": reached.std, "seeds": len(reached.values)},
        "against_plain": against_plain(best, plain, len(records), task.metric),
        "trial": best.number,
        "trials": len(records),
        "stopped_early": sum(record.stopped_early for record in records),
        "failed": sum(record.problem is not None for record in records),
        "steps": task.timetable.steps,
    }
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100)
    (folder / BEST.name).write_text(text, encoding="utf-8")
    _write_trials(folder / TRIALS, task, records)
    reached_against_prob(records, best, plain, task.metric).savefig(folder / BY_PROB, dpi=150)
    trials_over_time(records, best, task.metric).savefig(folder / OVER_TIME, dpi=150)
    return found


def _write_trials(path: Path, task: Task, records: Sequence[Record]) -> None:
    rows = []
    for record in records:
        each = record.rungs[-1].values if record.rungs else [None] * len(task.tune.seeds)
        seeds = zip(task.tune.seeds, each, strict=True)
        rows.append(
            {
                "trial": record.number,
                **record.values,
                task.measured: record.rungs[-1].mean if record.rungs else None,
                "std": record.rungs[-1].std if record.rungs else None,
                **{f"{task.measured}_seed_{seed}": value for seed, value in seeds},
                "steps": record.step,
                "stopped_early": str(record.stopped_early).lower(),
                "seconds": round(record.seconds, 1),
                "finished_at": round(record.finished_at or 0.0, 1),
                "node": record.node,
                "problem": record.problem,
            }
        )
    pd.DataFrame(rows).to_csv(path, index=False, lineterminator="\r\n")
