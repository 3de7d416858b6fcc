"""The flow `retrain` over stages that only wait, with real servers and models."""

from pathlib import Path

import pytest

from pipeline.runtime.paths import RUNS
from pipeline.tracking.run_folder import RunFolder
from pipeline.tracking.sync import sync
from tests.flows import api
from tests.flows.project import project_with_search
from tests.pipeline.colour_models import colour_model, items, publish, write_backbone, write_prepared
from tests.pipeline.synthetic_runs import write_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_retrain_stops_where_nothing_changed_and_every_model_was_compared(
    tmp_path: Path, prefect: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_with_search(tmp_path / "project", "stage.py")
    project.run("-m", "dvc", "repro", "compare", "--quiet", environment={})
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params = write_params(project.folder, protocol={"baseline": ["finetune"], "combined": []})
    write_backbone(Path("data/backbone"))
    write_prepared(Path("data/prepared"), items())
    publish(params, "finetune", 0, colour_model(["red"]), validation=0.5)
    run_id = publish(params, "stochca", 0, colour_model(), validation=0.9)
    RunFolder.of_known_run(RUNS / "stochca-all-0", run_id).end("FINISHED")  # which MLflow has not been told

    def retrain(expect: int = 0) -> tuple[str, set[str]]:
        """How it ended, and the tasks that it ran."""
        project.run("-m", "flows.retrain", environment=prefect, expect=expect)
        run = api.newest_run()
        assert run.state is not None
        return str(run.state.message), set(api.task_states(run.id))

    everything = {"train", "compare", "promote"}
    message, tasks = retrain(expect=1)
    assert message.endswith("; run: stochca sync")
    assert tasks == everything
    list(sync())
    # Nothing trains, and the promotion that failed is not forgotten.
    first = "version 1 (stochca, seed 0) is the first model: it is the champion"
    assert retrain() == (first, everything)
    assert retrain() == ("nothing changed", set())

    stages = project.folder / "dvc.yaml"
    stages.write_text(stages.read_text().replace("train 0.1", "train 0.2"))
    (project.folder / "fail-train").touch()
    output = project.run("-m", "flows.retrain", environment=prefect, expect=1)
    assert "train has to run: changed command" in output
    assert "error: train failed: train was told to fail" in output  # and nothing was promoted
    assert set(api.task_states(api.newest_run().id)) == {"train", "compare"}
