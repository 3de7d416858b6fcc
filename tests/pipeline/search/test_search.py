"""One real search on this machine: Ray, Optuna, MLflow; four trials of two seeds."""

import csv
import dataclasses
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline.config.params import load_params
from pipeline.config.tuned import read_best
from pipeline.images.prepared import load_prepared
from stochca.backbones.card import BackboneCard
from stochca.backbones.loading import load_backbone
from stochca.config import Method, StochasticCrossAttention
from stochca.data.preprocessing import Preprocessing
from stochca.training.fit import fit
from stochca.training.inputs import Inputs
from tests.pipeline.search.small_project import STEPS, run_search, write_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LEARNS, DOES_NOT = 1e-3, 1e-9  # learning rates
SEEDS = (3, 5)


@dataclasses.dataclass(frozen=True)
class Search:
    folder: Path
    output: str

    @property
    def trials(self) -> list[dict[str, str]]:
        with (self.folder / "reports" / "tune" / "trials.csv").open() as file:
            return list(csv.DictReader(file))

    def query(self, sql: str) -> list[Any]:
        with sqlite3.connect(self.folder / "mlflow.db") as database:
            return database.execute(sql).fetchall()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Search:
    folder = tmp_path_factory.mktemp("search") / "project"
    settings = {"prob": [0.5, 0.0], "lr": [LEARNS, DOES_NOT], "seeds": list(SEEDS), "concurrent": 1}
    write_project(folder, settings)
    return Search(folder, run_search(folder))


def accuracy(folder: Path, prob: float, seed: int, **training: Any) -> float:
    """Of the selected weights, trained without pauses, without Ray, from the same settings."""
    params = load_params(folder / "params.yaml")
    prepared = load_prepared(folder / "data" / "prepared")
    card = BackboneCard.from_file(folder / "data" / "backbone" / "card.json")
    fitted = fit(
        Inputs(
            load_backbone(folder / "data" / "backbone", num_classes=3, drop_path=0.0, seed=seed),
            prepared.images("train"),
            prepared.images("val"),
            method=Method(attention=StochasticCrossAttention(prob=prob)),
            settings=dataclasses.replace(params.training, **training),
            preprocessing=Preprocessing(card.image_size, card.mean, card.std, card.interpolation),
            seed=seed,
        ),
        device=torch.device("cpu"),
    )
    assert fitted.validation is not None
    return fitted.validation.accuracy


def test_what_counts_is_the_mean_over_the_seeds(finished: Search) -> None:
    """Nothing in the test split is an image, so this also shows that nothing of it was looked at."""
    for trial in finished.trials[:3]:
        expected = [accuracy(finished.folder, float(trial["prob"]), s, lr=float(trial["lr"])) for s in SEEDS]
        found = [float(trial[f"validation_accuracy_seed_{seed}"]) for seed in SEEDS]
        assert found == expected
        mean = sum(expected) / 2
        assert float(trial["validation_accuracy"]) == pytest.approx(mean)
        spread = (sum((value - mean) ** 2 for value in expected) / (2 - 1)) ** 0.5
        assert float(trial["std"]) == pytest.approx(spread)
    assert finished.trials[0]["validation_accuracy"] != finished.trials[2]["validation_accuracy"]


def test_what_falls_behind_is_stopped_but_never_plain_fine_tuning(finished: Search) -> None:
    found = [(t["prob"], t["lr"], t["steps"], t["stopped_early"]) for t in finished.trials]
    assert found == [
        ("0.0", str(LEARNS), str(STEPS), "false"),
        ("0.0", str(DOES_NOT), str(STEPS), "false"),
        ("0.5", str(LEARNS), str(STEPS), "false"),
        ("0.5", str(DOES_NOT), "2", "true"),
    ]


def test_the_best_can_be_taken_by_methods_and_says_how_sure_it_is(finished: Search) -> None:
    found = yaml.safe_load((finished.folder / "reports" / "tune" / "best.yaml").read_text())
    best = max(finished.trials[:3], key=lambda trial: float(trial["validation_accuracy"]))
    assert (found["prob"], found["lr"]) == (float(best["prob"]), float(best["lr"]))
    assert found["validation_accuracy"]["mean"] == float(best["validation_accuracy"])
    assert found["validation_accuracy"]["seeds"] == 2
    assert (found["trials"], found["stopped_early"], found["steps"]) == (4, 1, STEPS)
    assert "plain fine-tuning (prob 0" in found["against_plain"]
    taken = read_best(finished.folder / "reports" / "tune" / "best.yaml")
    assert (taken.prob, taken.lr) == (found["prob"], found["lr"])


def test_mlflow_has_every_trial_under_the_search(finished: Search) -> None:
    runs = dict(finished.query("select run_uuid, name from runs"))
    assert set(finished.query("select distinct status from runs")) == {("FINISHED",)}
    parents = dict(finished.query("select run_uuid, value from tags where key = 'mlflow.parentRunId'"))
    (search,) = (run for run, name in runs.items() if name == "search")
    assert sorted(runs[run] for run in parents) == [
        "prob=0, lr=0.001",
        "prob=0, lr=1e-09",
        "prob=0.5, lr=0.001",
        "prob=0.5, lr=1e-09",
    ]
    assert set(parents.values()) == {search}
    for trial in finished.trials:
        name = f"prob={float(trial['prob']):g}, lr={float(trial['lr']):.2g}"
        (run,) = (run for run in parents if runs[run] == name)
        params = dict(finished.query(f"select key, value from params where run_uuid = '{run}'"))
        assert (params["prob"], params["lr"]) == (trial["prob"], trial["lr"])
        assert (params["seeds"], params["node"]) == ("3,5", trial["node"])
        tags = dict(finished.query(f"select key, value from tags where run_uuid = '{run}'"))
        assert tags["stopped_early"] == trial["stopped_early"]
        points = finished.query(
            "select step, value from metrics "
            f"where run_uuid = '{run}' and key = 'validation_accuracy' order by step"
        )
        assert [step for step, _ in points] == [step for step in (2, 4, 8) if step <= int(trial["steps"])]
        assert points[-1][1] == pytest.approx(float(trial["validation_accuracy"]))


def test_the_results_are_artifacts_of_the_search(finished: Search) -> None:
    expected = {"best.yaml", "trials.csv", "accuracy_by_prob.png", "trials_over_time.png"}
    assert {path.name for path in (finished.folder / "reports" / "tune").iterdir()} == expected
    assert {path.name for path in finished.folder.glob("mlruns/*/artifacts/*")} == expected


def test_a_line_per_report_and_nothing_else(finished: Search) -> None:
    lines = finished.output.splitlines()
    assert [line for line in lines if not line.startswith("tune: ")] == []
    reports = [line for line in lines if "step" in line and "validation accuracy" in line]
    assert len(reports) == 3 * 3 + 1
    first = finished.query(
        "select value from metrics where key = 'validation_accuracy' and step = 2 order by timestamp limit 1"
    )
    assert reports[0].startswith(
        f"tune: trial 1 of 4, prob 0, lr 0.001: step 2 of {STEPS}, validation accuracy {first[0][0]:.3f} ± "
    )
    assert reports[0].endswith(" (2 seeds)")


def test_nothing_of_a_finished_search_stays(finished: Search) -> None:
    assert list((finished.folder / "work" / "tune").iterdir()) == []
    assert list(finished.folder.rglob("*.partial")) == []
