"""What `compare` tells MLflow: one parent per method with mean and spread over its seeds, and the page."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.config.params import Params
from pipeline.report.averages import Average
from pipeline.report.comparison import Row, Standing
from pipeline.tracking.patience import WHILE_TRAINING, patience
from pipeline.tracking.server import connect


def log_groups(
    params: Params, rows: Sequence[Row], averages: Sequence[Average], report_files: Sequence[Path]
) -> None:
    """One parent run per method and target, over the runs of its seeds, and one run that holds the page.

    Of several targets there is one run more per method, with the averages over them.

    They are found again by their tag, so that comparing anew updates them. Runs that the tracking
    server no longer has are passed over.

    Raises:
        UserError: the tracking server can't be used.
        Exception: it was lost meanwhile; whatever MLflow or its store of files raises.
    """
    experiment_id = connect(params.tracking.experiment)
    with patience(WHILE_TRAINING):
        client = MlflowClient()
        _log_groups(client, experiment_id, params.compare.reference, rows, report_files)
        _log_averages(client, experiment_id, averages)


def _log_groups(
    client: MlflowClient,
    experiment_id: str,
    reference: str,
    rows: Sequence[Row],
    report_files: Sequence[Path],
) -> None:
    for row in rows:
        tags = {"seeds": ",".join(str(run.seed) for run in row.runs), "verdict": row.verdict}
        parent = _group_run(client, experiment_id, f"{row.method}-{row.target}", tags)
        for name in ("method", "target"):
            client.log_param(parent, name, getattr(row, name))
        _log_numbers(client, parent, row, "std")
        for run_id in row.mlflow_run_ids:
            with suppress(MlflowException):
                client.set_tag(run_id, MLFLOW_PARENT_RUN_ID, parent)
    page = _group_run(client, experiment_id, "comparison", {"reference": reference})
    for path in report_files:
        client.log_artifact(page, str(path))
    client.set_terminated(page)


def _log_averages(client: MlflowClient, experiment_id: str, averages: Sequence[Average]) -> None:
    for average in averages:
        tags = {"targets": ",".join(row.target for row in average.rows), "verdict": average.verdict}
        run = _group_run(client, experiment_id, f"{average.method}-over-targets", tags)
        client.log_param(run, "method", average.method)
        _log_numbers(client, run, average, "standard_error")


def _log_numbers(
    client: MlflowClient, run: str, standing: Standing, error: Literal["std", "standard_error"]
) -> None:
    """Every metric with its error, and the difference to the reference; they end the run."""
    for name, spread in standing.metrics.items():
        client.log_metric(run, name, spread.mean)
        if (value := getattr(spread, error)) is not None:
            client.log_metric(run, f"{name}_{error}", value)
    client.log_metric(run, f"difference_to_{standing.reference}", standing.difference.mean)
    client.set_terminated(run)


def _group_run(client: MlflowClient, experiment_id: str, group: str, tags: Mapping[str, str]) -> str:
    found = client.search_runs([experiment_id], f"tags.group = '{group}'", max_results=1)
    run = found[0] if found else client.create_run(experiment_id, run_name=group, tags={"group": group})
    for key, value in tags.items():
        client.set_tag(run.info.run_id, key, value)
    return str(run.info.run_id)
