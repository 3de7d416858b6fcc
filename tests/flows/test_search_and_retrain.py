"""The flows `search` and `retrain` over stages that only wait, with real servers."""

import json
from pathlib import Path

import pytest

from pipeline.runtime.paths import RUNS
from pipeline.tracking.run_folder import RunFolder
from pipeline.tracking.sync import sync
from tests.flows import api
from tests.flows.project import Project
from tests.pipeline.colour_models import colour_model, items, publish, write_backbone, write_prepared
from tests.pipeline.synthetic_runs import write_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
TUNE = (
    "python stage.py tune 0.1 && mkdir -p reports/tune && echo 'prob: 0.2' > reports/tune/best.yaml "
    "&& printf 'trial,prob\\n0,0.123456\\n' > reports/tune/trials.csv"
)
COMPARE = "mkdir -p reports && echo '| method |' > reports/comparison.md"


def project_with_search(folder: Path, compare_waits_for: str) -> Project:
    project = Project(folder, {})
    project.write_stages(
        {
            "tune": {"cmd": TUNE, "outs": ["reports/tune"]},
            "train": {
                "cmd": "python stage.py train 0.1",
                "deps": [compare_waits_for],
                "outs": ["outs/train"],
            },
            "compare": {"cmd": COMPARE, "deps": ["outs/train"], "outs": ["reports/comparison.md"]},
        }
    )
    return project


@pytest.mark.parametrize(
    ("waits_for", "expected"),
    [("reports/tune/best.yaml", {"tune", "train", "compare"}), ("stage.py", {"tune"})],
)
def test_the_search_runs_what_waits_for_it(
    waits_for: str, expected: set[str], tmp_path: Path, prefect: dict[str, str]
) -> None:
    project = project_with_search(tmp_path / "project", waits_for)
    project.run("-m", "flows.search", environment=prefect)
    run = api.newest_run()
    assert set(api.task_states(run.id)) == expected
    found = api.artifacts(run.id)
    assert "prob: 0.2" in found["search"]
    assert json.loads(found["trials"]) == [{"trial": 0, "prob": 0.123456}]
    assert ("comparison" in found) == ("compare" in expected)


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
