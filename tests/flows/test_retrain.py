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
    publish(params, "finetune", 0, colour_model(["blue"]), validation=0.6)
    publish(params, "stochca", 0, colour_model(["red"]), validation=0.5)

    def retrain(expect: int = 0) -> tuple[str, set[str]]:
        """How it ended, and the tasks that it ran."""
        project.run("-m", "flows.retrain", environment=prefect, expect=expect)
        run = api.newest_run()
        assert run.state is not None
        return str(run.state.message), set(api.task_states(run.id))

    everything = {"train", "compare", "promote"}
    assert retrain() == ("version 1 (finetune, seed 0) is the first model: it is the champion", everything)

    # Trained, in the night or by day with make repro; its promotion fails, and is not forgotten.
    run_id = publish(params, "stochca", 0, colour_model(), validation=0.9)
    RunFolder.of_known_run(RUNS / "stochca-all-0", run_id).end("FINISHED")
    message, tasks = retrain(expect=1)
    assert message.endswith("; run: stochca sync")
    assert tasks == everything
    list(sync())
    assert retrain()[0].startswith("version 2 (stochca, seed 0) is better than the champion, version 1")
    assert retrain() == ("nothing changed", set())

    stages = project.folder / "dvc.yaml"
    stages.write_text(stages.read_text().replace("train 0.1", "train 0.2"))
    (project.folder / "fail-train").touch()
    output = project.run("-m", "flows.retrain", environment=prefect, expect=1)
    assert "train has to run: changed command" in output
    assert "error: train failed: train was told to fail" in output  # and nothing was promoted
    assert set(api.task_states(api.newest_run().id)) == {"train", "compare"}
