"""The flow `search` over stages that only wait, with a real server."""

import json
from pathlib import Path

import pytest

from tests.flows import api
from tests.flows.project import project_with_search

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


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
