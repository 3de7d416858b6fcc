from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule

from flows.serving.deployments import read_deployments
from stochca.errors import UserError
from tests.imports import ROOT


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def edited(tmp_path: Path, deployment: str, **changes: Any) -> Path:
    """prefect.yaml with some keys of one deployment changed."""
    raw = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    next(item for item in raw["deployments"] if item["name"] == deployment).update(changes)
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_the_projects_own_deployments() -> None:
    served = {deployment.name: deployment for deployment in read_deployments()}
    assert {item.full_name for item in served.values()} == {
        "pipeline/pipeline",
        "search/search",
        "retrain/retrain",
    }
    schedules = {name: [item.schedule for item in served[name].schedules or []] for name in served}
    assert schedules == {
        "pipeline": [],
        "search": [CronSchedule(cron="0 3 * * 0", timezone="UTC")],
        "retrain": [CronSchedule(cron="0 1 * * *", timezone="UTC")],
    }
    for item in served.values():
        assert item.concurrency_limit == 1
        assert item.concurrency_options is not None
        assert item.concurrency_options.collision_strategy == "CANCEL_NEW"
        assert item.work_pool_name is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"schedules": [{"cron": "0 1 * *"}]},
            "deployment 'retrain': '0 1 \\* \\*' is no cron expression; it needs minute, hour",
        ),
        ({"schedules": [{"cron": "0 25 * * *"}]}, "'0 25 \\* \\* \\*' is no cron expression"),
        (
            {"schedules": [{"cron": "0 1 * * *", "timezone": "Mars/Olympus"}]},
            "deployment 'retrain': there is no time zone 'Mars/Olympus'",
        ),
        ({"schedule": {"cron": "0 1 * * *"}}, r"unknown key 'deployments\.2\.schedule'"),
        ({"entrypoint": "flows/nowhere.py:retrain"}, "there is no file flows/nowhere.py"),
        ({"entrypoint": "flows/retrain.py:nothing"}, "deployment 'retrain': .*'nothing' not found"),
        ({"entrypoint": "flows.retrain"}, r"deployments\.2\.entrypoint"),
        ({"parameters": {"slotz": 2}}, "deployment 'retrain': parameters don't fit retrain: .*'slotz'"),
        ({"parameters": {"slots": "many"}}, "parameters don't fit retrain: .*slots"),
        ({"concurrency_limit": {"limit": 0}}, r"concurrency_limit\.limit: .*greater than or equal to 1"),
    ],
)
def test_mistakes_are_one_sentence(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    path = edited(tmp_path, "retrain", **changes)
    with pytest.raises(UserError, match=sentence) as caught:
        read_deployments(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_is_not_there_or_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "prefect.yaml"
    with pytest.raises(UserError, match="is missing"):
        read_deployments(path)
    path.write_text("deployments: [")
    with pytest.raises(UserError, match="can't be read as YAML"):
        read_deployments(path)
