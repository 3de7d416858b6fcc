"""What decides a search's result, against what DVC notes for it; and the name of its state."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config.params import load_params, settings_kept
from pipeline.search.task import decided_by, plan
from stochca.errors import UserError
from tests.imports import ROOT
from tests.pipeline.search.small_project import write_project

Edit = Callable[..., None]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "small"
    write_project(folder, {})
    return folder


@pytest.fixture
def edit(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Sets keys of the section tune, over what the project was made with."""
    monkeypatch.chdir(project)
    path = Path("params.yaml")
    before = path.read_text()

    def change(**tune: Any) -> None:
        values = yaml.safe_load(before)
        values["tune"].update(tune)
        path.write_text(yaml.safe_dump(values))

    yield change
    path.write_text(before)


def name() -> str:
    return plan(load_params()).name


def test_what_decides_the_result_is_what_dvc_notes() -> None:
    noted = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["tune"]["params"]
    decides = decided_by(load_params(ROOT / "params.yaml"))["tune"]
    assert {f"tune.{key}" for key in decides} == {key for key in noted if key.startswith("tune.")}


@pytest.mark.parametrize(
    "tune",
    [{"concurrent": 1}, {"max_failures": 0}, {"resources": {"cpu": 2, "gpu": 0}}, {"address": "auto"}],
    ids=lambda tune: next(iter(tune)),
)
def test_where_and_how_many_at_once_may_change_during_a_search(edit: Edit, tune: dict[str, Any]) -> None:
    before = name()
    with settings_kept(load_params(), decided_by, "the search"):
        edit(**tune)
    assert name() == before  # interrupted, it goes on


def test_what_decides_may_not(edit: Edit) -> None:
    before = name()
    with pytest.raises(UserError, match="was changed"), settings_kept(load_params(), decided_by, "it"):
        edit(sampler_seed=1)
    assert name() != before


@pytest.mark.parametrize(
    "same", [{"steps": 12, "workers": 2}, {"epochs": 2}, {"steps": 12, "checkpoints": 7}]
)
def test_it_goes_on_however_the_budget_is_written(edit: Edit, same: dict[str, Any]) -> None:
    """48 images in batches of 8."""
    edit(training={"steps": 12})
    before = name()
    edit(training=same)
    assert name() == before
    edit(training={"steps": 13})
    assert name() != before


@pytest.mark.parametrize(
    ("training", "grace", "reduction", "rungs"),
    [
        ({"steps": 332, "evaluations": 4}, 0.75, 2, [249, 332]),  # as params.yaml has it
        ({"steps": 12, "evaluations": 4}, 0.25, 2, [3, 6, 12]),
        ({"steps": 10, "evaluations": 4}, 0.25, 2, [3, 5, 10]),  # evaluated after 3, 5, 8 and 10
        ({"steps": 10, "evaluations": 4}, 0.3, 3, [3, 8, 10]),
        ({"steps": 10, "evaluations": 4}, 0.4, 3, [5, 10]),  # the first evaluation that is not before step 4
        ({"steps": 3, "evaluations": 50}, 0.01, 2, [1, 2, 3]),
        ({"epochs": 2, "evaluations": 4}, 1.0, 2, [12]),  # nothing is stopped
    ],
)
def test_trials_are_compared_at_evaluations(
    edit: Edit, training: dict[str, Any], grace: float, reduction: int, rungs: list[int]
) -> None:
    edit(training=training, grace=grace, reduction=reduction)
    task = plan(load_params())
    assert task.rungs == rungs
    kept = task.settings({"prob": 0.1}).timetable(images=47)  # of a seed whose split has one image less
    assert (kept.steps, kept.evaluations) == (task.timetable.steps, task.timetable.evaluations)
    assert set(rungs) <= set(kept.checkpoints) & set(kept.evaluations)


def test_a_search_does_not_go_on_with_another_device(edit: Edit) -> None:
    on_cpu = name()
    edit(resources={"cpu": 1, "gpu": 0.5})
    half = name()
    edit(resources={"cpu": 1, "gpu": 1})
    assert on_cpu != half == name()
