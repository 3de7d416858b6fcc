"""`prob: tuned`, as its users run it: DVC runs the search first, and training takes what it found.

On shares of the training images, as the paper does it: chosen on a part of them, then trained on all.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.workspace import Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STAGE = "stochca@50-0"


def stages(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace.prepared(tmp_path_factory.mktemp("tuned") / "project")

    def edit(raw: dict[str, Any]) -> None:
        raw["methods"]["stochca"] = {"attention": {"name": "stochca", "prob": "tuned"}}
        raw["training"].update(steps=4, warmup=0.0, evaluations=2, checkpoints=1)
        raw["protocol"].update(
            name="sampling_ratios",
            targets=[50],
            baseline=[],
            combined=[],
            stochca_after="reports/tune/best.yaml",
        )
        raw["tune"].update(prob=[0.25, 0.75], seeds=[0], trials=2, target="50", grace=0.5, training={})
        raw["compare"].update(reference="stochca", analysed=["stochca"])
        raw["promotion"].update(method="stochca")

    workspace.edit_params(edit)
    assert stages(workspace.run("dvc", "repro", STAGE)) == ["tune", STAGE]
    return workspace


def trained(workspace: Workspace) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((workspace.folder / "results" / "stochca-50-0" / "run.json").read_text())
    return run


def prob_used(workspace: Workspace) -> float:
    return float(trained(workspace)["config"]["attention"]["prob"])


def test_training_takes_what_the_search_found(tuned: Workspace) -> None:
    best = yaml.safe_load((tuned.folder / "reports" / "tune" / "best.yaml").read_text())
    assert best["prob"] in (0.25, 0.75)
    assert prob_used(tuned) == best["prob"]
    assert "up to date" in tuned.run("dvc", "repro", STAGE)


def test_where_a_search_runs_does_not_matter(tuned: Workspace) -> None:
    tuned.edit_params(lambda raw: raw["tune"].update(concurrent=1, max_failures=1))
    assert "up to date" in tuned.run("dvc", "repro", STAGE)


def test_the_pictures_are_plots(tuned: Workspace) -> None:
    tuned.run("dvc", "plots", "show", "--out", "page")
    page = (tuned.folder / "page" / "index.html").read_text()
    for name in ("accuracy_by_prob.png", "trials_over_time.png"):
        assert name in page


def test_another_best_trains_again_on_all_images_and_is_compared(tuned: Workspace) -> None:
    assert trained(tuned)["dataset"]["images"]["val"] > 0
    before = prob_used(tuned)
    tuned.edit_params(lambda raw: raw["tune"].update(prob=[1.0 - before], trials=1))
    tuned.edit_params(lambda raw: raw["protocol"].update(refit=True))
    ran = stages(tuned.run("dvc", "repro", "compare"))
    assert ran.index("tune") < ran.index(STAGE) < ran.index("compare")
    assert prob_used(tuned) == 1.0 - before
    metrics = json.loads((tuned.folder / "metrics" / "stochca-50-0.json").read_text())
    assert metrics["validation_accuracy"] is None
    assert trained(tuned)["selected_step"] == 4
    assert "stochca" in (tuned.folder / "reports" / "table.md").read_text()


def test_a_clone_has_what_was_found(tuned: Workspace, tmp_path: Path) -> None:
    tuned.run("dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    tuned.run("dvc", "push")
    tuned.commit()
    clone = Workspace.there(tmp_path / "clone")
    tuned.run("git", "clone", "--quiet", ".", str(clone.folder))
    clone.run("dvc", "pull")
    assert (clone.folder / "reports" / "tune" / "trials.csv").exists()
    assert "up to date" in clone.run("dvc", "repro", "compare")
