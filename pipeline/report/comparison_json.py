"""comparison.json: what was compared, row by row, with all that a table over several datasets needs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.config.params import Params
from pipeline.images.prepared import Prepared
from pipeline.report.comparison import Standing
from pipeline.report.results import METRIC_NAMES
from pipeline.report.terms import Terms, terms_of
from stochca.backbones.card import BackboneCard
from stochca.config.selection import SELECTIONS, Metric, Selection
from stochca.errors import UserError, one_line


class Part(BaseModel):
    """A part of the file; keys that it does not need may be there."""

    model_config = ConfigDict(frozen=True, extra="ignore", from_attributes=True)


class DatasetFacts(Part):
    name: str
    root: str | None
    fingerprint: str
    classes: int


class BackboneFacts(Part):
    """What makes two runs start from the same point."""

    architecture: str
    source: str
    source_sha256: str | None
    global_pool: str
    image_size: int
    resize: int | None

    in_full: bool = Field(default=False, exclude=True)  # so that two with the same short title are told apart

    @property
    def title(self) -> str:
        short = f"{self.architecture} ({self.source}, {self.image_size} pixels"
        if not self.in_full:
            return f"{short})"
        digest = (self.source_sha256 or "unknown")[:8]
        resize = f", resized to {self.resize}" if self.resize else ""
        return f"{short}{resize}, pooling {self.global_pool}, sha256 {digest})"


class ProtocolFacts(Part):
    name: str
    refit: bool
    targets: list[str]
    seeds: list[int]
    methods: list[str]
    selection: Selection

    @property
    def terms(self) -> Terms:
        return terms_of(self.name, self.selection, refit=self.refit)

    @property
    def metric(self) -> Metric:
        """That ranks."""
        return SELECTIONS[self.selection]


class TestedRun(Part):
    """What one run reached on the test images, by metric: ``test_accuracy``, ``test_accuracy_last``, ..."""

    method: str
    target: str
    seed: int
    tested: dict[str, float]


class Comparison(Part):
    dataset: DatasetFacts
    backbone: BackboneFacts
    protocol: ProtocolFacts
    runs: list[TestedRun]
    averages: list[dict[str, Any]]  # of several targets
    rows: list[dict[str, Any]]  # one per method and target

    def tested(self, method: str, target: str, metric: str) -> list[float] | None:
        """Of one metric, by seed in the order of the protocol; None where a run lacks it.

        The target `average` is the mean over all targets, seed by seed.
        """
        own = [run for run in self.runs if run.method == method and target in (run.target, "average")]
        if not all(metric in run.tested for run in own):
            return None
        by_seed = [[run.tested[metric] for run in own if run.seed == seed] for seed in self.protocol.seeds]
        return [fmean(values) for values in by_seed] if all(by_seed) else None


def comparison_of(
    params: Params,
    rows: Sequence[Standing],
    averages: Sequence[Standing],
    prepared: Prepared,
    backbone: BackboneCard,
) -> Comparison:
    manifest = prepared.manifest
    return Comparison.model_validate(
        {
            "dataset": {
                "name": manifest["dataset"],
                "root": manifest["root"],
                "fingerprint": prepared.fingerprint,
                "classes": len(prepared.classes),
            },
            "backbone": backbone.to_dict(),
            "protocol": params.protocol,
            "runs": [
                {
                    "method": run.method,
                    "target": run.target,
                    "seed": run.seed,
                    "tested": {key: value for key, value in run.metrics.items() if key.startswith("test_")},
                }
                for row in rows
                for run in row.runs
            ],
            "averages": [average_record(average) for average in averages],
            "rows": [row_record(row) for row in rows],
        }
    )


def row_record(row: Standing) -> dict[str, Any]:
    """A method on one target as flat columns; shares are of 1, differences above 0 where it is better."""
    name, behind = f"test_{row.metric.name}", row.behind_best
    others = {metric: spread.mean for metric, spread in row.metrics.items() if metric != name}
    others["trainable_parameters"] = row.runs[0].metrics[
        "trainable_parameters"
    ]  # a whole number, of all seeds
    return {
        "target": row.target,
        "rank": row.rank,
        "method": row.method,
        "metric": row.metric.name,
        **{f"{name}_{key}": value for key, value in asdict(row.tested).items()},
        **interval_ends(row),
        "test_images": row.test_images,
        "reference": row.reference,
        **row.difference_numbers,
        "confidence": row.confidence,
        **p_values(row),
        "verdict": row.verdict,
        **{"behind_best": behind.mean, "behind_best_low": behind.low, "behind_best_high": behind.high},
        **dict.fromkeys(each for each in METRIC_NAMES if each != name),  # null where the runs do not have it
        **others,
        "mlflow_run_ids": row.mlflow_run_ids,
        "caveat": row.caveat,
    }


def average_record(average: Standing) -> dict[str, Any]:
    """A method on average over the targets, likewise."""
    tested: dict[str, float | None] = {}
    for name, spread in average.metrics.items():
        tested |= {f"{name}_mean": spread.mean, f"{name}_std": spread.std}
        tested[f"{name}_standard_error"] = spread.standard_error
    return {
        "rank": average.rank,
        "method": average.method,
        "targets": average.targets,
        "metric": average.metric.name,
        "trials": average.trials,
        **tested,
        **interval_ends(average),
        "reference": average.reference,
        **average.difference_numbers,
        "difference_standard_error": average.gain.standard_error,
        "confidence": average.confidence,
        **p_values(average),
        "verdict": average.verdict,
        "caveat": average.caveat,
    }


def interval_ends(row: Standing) -> dict[str, float]:
    low, high = row.interval
    return {f"test_{row.metric.name}_low": low, f"test_{row.metric.name}_high": high}


def p_values(row: Standing) -> dict[str, float]:
    """Of the difference to the reference: alone, and among all methods, which decides the verdict."""
    return {"p_value": row.difference.p_value, "p_value_holm": row.difference.adjusted}


def read_comparison(path: Path) -> Comparison:
    """A comparison.json of this or another workspace.

    Raises:
        UserError: it is missing, damaged, or was written by an older version.
    """
    try:
        return Comparison.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; make it there with: dvc repro compare") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the whole file"
        reason = f"{where}: {error.errors()[0]['msg'].lower()}"
    except (OSError, ValueError) as error:
        reason = one_line(error)
    raise UserError(
        f"{path} is no comparison.json of this version ({reason}); make it again with: dvc repro compare"
    )
