"""The flows `search` and `retrain` over stages that only wait, with real servers."""

from pathlib import Path

import pytest

from tests.flows import api
from tests.flows.project import Project

pytestmark = pytest.mark.slow
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
    assert "| 0 | 0.1235 |" in found["search"]
    assert ("comparison" in found) == ("compare" in expected)


def test_retrain_stops_where_nothing_changed(
    tmp_path: Path, prefect: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    project = project_with_search(tmp_path / "project", "stage.py")
    project.run("-m", "dvc", "repro", "compare", "--quiet", environment={})
    client = MlflowClient(f"sqlite:///{project.folder}/mlflow.db")
    client.create_registered_model("stochca")
    version = client.create_model_version("stochca", (project.folder / "outs").as_uri())
    client.set_registered_model_alias("stochca", "champion", version.version)
    project.run("-m", "flows.retrain", environment=prefect)
    run = api.newest_run()
    assert run.state is not None
    assert (run.state_name, run.state.message) == ("Completed", "nothing changed")
    assert api.task_states(run.id) == {}

    stages = project.folder / "dvc.yaml"
    stages.write_text(stages.read_text().replace("train 0.1", "train 0.2"))
    (project.folder / "fail-train").touch()
    output = project.run("-m", "flows.retrain", environment=prefect, expect=1)
    assert "train has to run: changed command" in output
    assert "error: train failed: train was told to fail" in output  # and nothing was promoted
    assert set(api.task_states(api.newest_run().id)) == {"train", "compare"}
