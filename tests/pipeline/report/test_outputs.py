"""What `compare` tells a real MLflow database about its groups."""

import shutil
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from pipeline import compare as stage
from pipeline.config.params import load_params
from pipeline.tracking.server import connect
from tests.pipeline.synthetic_runs import write_inputs

PROTOCOL = {
    "name": "leave_one_domain_out", "targets": ["art", "photo"], "baseline": ["finetune"], "combined": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory, new_database: Path) -> dict[str, Run]:
    """The runs of a comparison that was made twice, by their group."""
    root = tmp_path_factory.mktemp("groups")
    shutil.copy(new_database, root)
    write_inputs(root, seeds=(0, 1), protocol=PROTOCOL, test_images=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        stage.main()
        stage.main()
        runs = MlflowClient().search_runs([connect(load_params().tracking.experiment)])
        assert len(runs) == 2 * 2 + 2 + 1  # not twice as many
        page = next(run for run in runs if run.data.tags["group"] == "comparison")
        names = {Path(file.path).name for file in MlflowClient().list_artifacts(page.info.run_id)}
    assert {"index.html", "comparison.json", "table.md", "table.tex", "table.csv"} <= names
    return {run.data.tags["group"]: run for run in runs}


def test_every_method_has_a_run_with_its_average_over_the_targets(groups: dict[str, Run]) -> None:
    for method in ("finetune", "stochca"):
        averages = groups[f"{method}-over-targets"].data
        targets = [groups[f"{method}-{target}"].data for target in ("art", "photo")]
        for name in ("test_accuracy", "test_accuracy_oracle", "test_accuracy_last"):
            both = [each.metrics[name] for each in targets]
            assert averages.metrics[name] == pytest.approx(sum(both) / 2)
        assert averages.metrics["test_accuracy_standard_error"] >= 0
        assert averages.tags["targets"] == "art,photo"
    gap = groups["stochca-over-targets"].data.metrics["difference_to_finetune"]
    accuracies = [
        groups[f"{name}-over-targets"].data.metrics["test_accuracy"] for name in ("stochca", "finetune")
    ]
    assert gap == pytest.approx(accuracies[0] - accuracies[1])
