import csv
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline import compare as stage
from pipeline.config.params import Params, load_params
from pipeline.report.comparison import Standing, compare_runs
from pipeline.report.comparison_json import row_record
from pipeline.report.results import read_runs
from pipeline.runtime import boundary
from pipeline.runtime.paths import RUNS
from pipeline.tracking.run_folder import RunFolder, waiting_folders
from stochca.errors import UserError
from tests.pipeline.synthetic_runs import FINGERPRINT, SKILL, write_inputs, write_params

NBSP = "\u00a0"


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of 6 methods and 3 seeds, and what `compare` makes of them."""
    root = tmp_path_factory.mktemp("three_seeds")
    write_inputs(root, seeds=(0, 1, 2), test_images=150)
    run_in(root)
    return root


def run_in(root: Path) -> list[Standing]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return stage.compare(load_params())[0]


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Inputs of 6 methods and one seed, in the current folder."""
    monkeypatch.chdir(tmp_path)
    return write_inputs(tmp_path)


def plain(text: str) -> str:
    return text.replace(NBSP, " ")


def records(root: Path) -> list[dict[str, Any]]:
    return json.loads((root / "reports" / "comparison.json").read_text())["rows"]


def test_one_row_per_method_ranked(three_seeds: Path) -> None:
    rows = records(three_seeds)
    assert sorted(row["method"] for row in rows) == sorted(SKILL)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5, 6]
    accuracies = [row["test_accuracy_mean"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)


def test_numbers_are_those_of_the_runs(three_seeds: Path) -> None:
    for row in records(three_seeds):
        names = [f"{row['method']}-all-{seed}" for seed in range(3)]
        metrics = [json.loads((three_seeds / "metrics" / f"{name}.json").read_text()) for name in names]
        accuracies = [run["test_accuracy"] for run in metrics]
        assert row["test_accuracy_mean"] == pytest.approx(np.mean(accuracies))
        assert row["test_accuracy_std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert (row["test_accuracy_n"], row["test_images"]) == (3, 150)
        for name in ("test_macro_f1", "test_calibration_error", "train_seconds", "trainable_parameters"):
            assert row[name] == pytest.approx(np.mean([run[name] for run in metrics]))
        finetune = next(other for other in records(three_seeds) if other["method"] == "finetune")
        gap = row["test_accuracy_mean"] - finetune["test_accuracy_mean"]
        assert row["difference"] == pytest.approx(gap)
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        assert len(set(row["mlflow_run_ids"])) == 3
        assert row["caveat"] == "with 3 seeds, the interval covers other seeds as well as other test images"
        assert row["test_accuracy_low"] < row["test_accuracy_mean"] < row["test_accuracy_high"]


def test_one_seed_has_no_spread_and_says_so(inputs: Params) -> None:
    stage.compare(inputs)
    for row in records(Path()):
        assert row["test_accuracy_std"] is None
        assert row["test_accuracy_n"] == 1
        assert isinstance(row["trainable_parameters"], int)
        assert row["caveat"] == (
            "with one seed, the interval covers the test images of this training run; another seed may differ"
        )
    assert "With one seed, the interval covers the test" in Path("reports/comparison.md").read_text()


def test_verdicts_follow_the_adjusted_p_values(three_seeds: Path) -> None:
    found = set()
    for row in records(three_seeds):
        words = (
            "the reference"
            if row["method"] == "finetune"
            else "no difference shown"
            if row["p_value_holm"] > 0.05
            else "better than finetune"
            if row["difference"] > 0
            else "worse than finetune"
        )
        assert row["p_value_holm"] >= row["p_value"]
        assert (row["p_value"] <= 0.05) == (row["difference_low"] > 0 or row["difference_high"] < 0)
        assert row["verdict"] == words
        found.add(words)
    assert len(found) == 4, "the made-up runs should show every verdict"


def test_json_csv_and_markdown_agree(three_seeds: Path) -> None:
    reports = three_seeds / "reports"
    with (reports / "comparison.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    lines = [line for line in (reports / "comparison.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == len(records(three_seeds)) == len(lines) - 2
    for record, line, text in zip(records(three_seeds), table, lines[2:], strict=True):
        assert list(record) == list(line)
        for key, value in record.items():
            if isinstance(value, float):
                assert float(line[key]) == value
            elif isinstance(value, list):
                assert line[key].split(" ") == value
            else:
                assert line[key] == str(value)
        cells = [cell.strip() for cell in text.strip("|").split(" | ")]
        assert cells[1] == record["method"]
        assert cells[3].startswith(f"{100 * record['test_accuracy_mean']:.1f}{NBSP}%")
        assert cells[5] == record["verdict"]
        assert cells[-1].split() == record["mlflow_run_ids"]


def test_summary_holds_numbers_alone(three_seeds: Path) -> None:
    summary = json.loads((three_seeds / "reports" / "summary.json").read_text())
    assert set(summary) == set(SKILL)
    for row in records(three_seeds):
        values = summary[row["method"]]
        assert values["test_accuracy"] == row["test_accuracy_mean"]
        assert values["difference"] == row["difference"]
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in values.values())


def test_plots(three_seeds: Path) -> None:
    plots = three_seeds / "reports" / "plots"
    curves = pd.read_csv(plots / "curves.csv")
    assert len(curves) == 6 * 3 * 10
    assert not curves.isna().any().any()
    name = "stochca+swad-all-2"
    log = pd.read_csv(three_seeds / "results" / name / "curves.csv").set_index("step")
    drawn = curves.query("method == 'stochca+swad' and seed == 2").set_index("step")
    assert drawn.index.tolist() == list(range(20, 201, 20))
    assert drawn["validation_accuracy"].to_dict()[60] == log["validation_accuracy"].to_dict()[60]
    assert drawn.loc[60, "train_loss"] == pytest.approx(log.loc[41:60, "train_loss"].mean())
    costs = pd.read_csv(plots / "accuracy_vs_cost.csv").set_index("method")
    assert costs.loc["linear_probe", "train_seconds"] == pytest.approx(9.1)
    confusion = pd.read_csv(plots / "confusion.csv")
    best = records(three_seeds)[0]["method"]
    predictions = pd.read_parquet(three_seeds / "results" / f"{best}-all-0" / "predictions.parquet")
    assert len(confusion) == 150
    right = (confusion["actual"] == confusion["predicted"]).sum()
    assert right == (predictions["label"] == predictions["prediction"]).sum()


def test_comparing_twice_gives_the_same_files(three_seeds: Path) -> None:
    files = [path for path in sorted((three_seeds / "reports").rglob("*")) if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    assert len(before) == 11
    run_in(three_seeds)
    assert {path: path.read_bytes() for path in files} == before


def test_reports_of_other_stages_stay(inputs: Params) -> None:
    other = Path("reports/tune/best.yaml")
    other.parent.mkdir(parents=True)
    other.write_text("prob: 0.2\n")
    stage.compare(inputs)
    assert other.read_text() == "prob: 0.2\n"
    assert not list(Path("reports").rglob(".*"))


def test_images_are_paired_by_id(inputs: Params) -> None:
    """The order of the rows in a file does not matter."""
    rows = compare_runs(inputs, read_runs(inputs.protocol))
    path = Path("results/stochca-all-0/predictions.parquet")
    pd.read_parquet(path).sample(frac=1, random_state=0).to_parquet(path)
    shuffled = compare_runs(inputs, read_runs(inputs.protocol))
    assert [row_record(row) for row in shuffled] == [row_record(row) for row in rows]


def replace_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def drop_last_image(path: Path) -> None:
    pd.read_parquet(path).sort_values("id").iloc[:-1].to_parquet(path)


def edited(*path: Any) -> str:
    """params.yaml with the last of `path` where the others lead to."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    section = values
    *keys, last, value = path
    for key in keys:
        section = section[key]
    section[last] = value
    return yaml.safe_dump(values)


SWAD = "dvc repro combined@stochca+swad-all-0"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda: Path("metrics/stochca+swad-all-0.json").unlink(), f"json is missing; run: {SWAD}"),
        (lambda: shutil.rmtree("results/stochca-all-0"), "is missing; run: dvc repro stochca@all-0"),
        (
            lambda: Path("results/finetune-all-0/curves.csv").unlink(),
            "results/finetune-all-0/curves.csv is missing; run: dvc repro baseline@finetune-all-0",
        ),
        (
            lambda: Path("results/finetune-all-0/curves.csv").write_text(""),
            "results/finetune-all-0/curves.csv is damaged",
        ),
        (
            lambda: Path("metrics/stochca+swad-all-0.json").write_text('{"test_accuracy": '),
            f"metrics/stochca+swad-all-0.json is damaged (Expecting value: line 1 column 19 (char 18)); "
            f"run: {SWAD}",
        ),
        (
            lambda: replace_json(Path("metrics/stochca+swad-all-0.json"), validation_accuracy="high"),
            "is damaged (validation_accuracy is 'high', no number)",
        ),
        (lambda: Path("metrics/stochca+swad-all-0.json").write_text("[]"), "holds a list, not an object"),
        (
            lambda: replace_json(Path("metrics/stochca+swad-all-0.json"), train_seconds="long"),
            "is damaged (train_seconds is 'long', no number)",
        ),
        (
            lambda: replace_json(Path("metrics/stochca+swad-all-0.json"), test_accuracy=0.1234),
            "its test_accuracy is not that of results/stochca+swad-all-0/predictions.parquet",
        ),
        (
            lambda: replace_json(Path("metrics/stochca+swad-all-0.json"), test_macro_f1=None),
            "is damaged (test_macro_f1 is None, no number)",
        ),
        (
            lambda: replace_json(Path("results/stochca-all-0/run.json"), selection="auroc"),
            "results/stochca-all-0 was selected by auroc, but protocol.selection is accuracy; "
            "run: dvc repro stochca@all-0",
        ),
        (
            lambda: Path("results/stochca+swad-all-0/run.json").write_text("{}"),
            "results/stochca+swad-all-0/run.json is damaged (it has no config)",
        ),
        (
            lambda: Path("results/stochca+swad-all-0/predictions.parquet").write_bytes(b"PAR1"),
            "results/stochca+swad-all-0/predictions.parquet is damaged",
        ),
        (
            lambda: pd.DataFrame({"id": ["a"]}).to_parquet("results/stochca-all-0/predictions.parquet"),
            "is damaged (it has no label); run: dvc repro stochca@all-0",
        ),
        (
            lambda: replace_json(Path("results/stochca-all-0/run.json"), classes=["a", "b", "c"]),
            "were not tested on the same images and classes, so they can't be compared; "
            "run: dvc repro baseline@linear_probe-all-0 stochca@all-0",
        ),
        (
            lambda: replace_json(Path("results/stochca-all-0/run.json"), dataset={"fingerprint": "older"}),
            "results/stochca-all-0 was trained on other images than data/prepared; "
            "run: dvc repro stochca@all-0",
        ),
        (
            lambda: replace_json(Path("data/backbone/card.json"), weights_sha256="other"),
            "results/linear_probe-all-0 was trained from another backbone than data/backbone",
        ),
        (
            lambda: replace_json(Path("data/backbone/card.json"), global_pool="avg"),
            "results/linear_probe-all-0 was trained from another backbone than data/backbone",
        ),
        (lambda: Path("data/prepared/manifest.json").unlink(), "run: dvc repro prepare"),
        (  # as the first seed has it where params.yaml was edited before the second one's turn
            lambda: Path("params.yaml").write_text(edited("methods", "stochca", "attention", "prob", 0.875)),
            "stochca-all-0 was trained with other settings (methods.stochca.attention.prob was 0.1, and "
            "params.yaml says 0.875); run: dvc repro stochca@all-0",
        ),
        (
            lambda: Path("params.yaml").write_text(edited("methods", "lp_ft", "penalties", ["bss"])),
            "results/lp_ft-all-0 was trained with other settings (methods.lp_ft.penalties was [], and",
        ),
    ],
)
def test_what_is_missing_or_damaged_is_named(
    damage: Any, sentence: str, inputs: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    damage()
    with pytest.raises(SystemExit) as exit:
        boundary.run(stage.main)
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not Path("reports").exists()


def test_a_refit_has_no_validation_and_is_compared_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stage.compare(write_inputs(tmp_path, seeds=(0, 1), protocol={"refit": True, "combined": []}))
    assert {row["validation_accuracy"] for row in records(tmp_path)} == {None}
    assert {row["validation_loss"] for row in records(tmp_path)} == {None}
    assert all(row["test_macro_f1"] > 0 for row in records(tmp_path))
    assert len(pd.read_csv("reports/plots/curves.csv")) == 0
    assert "last step (after training on the validation images too)" in Path("reports/table.md").read_text()


def test_several_targets_are_averaged_in_words_and_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    protocol = {"name": "sampling_ratios", "targets": ["15", "100"]}
    stage.compare(write_inputs(tmp_path, protocol=protocol))
    averages = json.loads(Path("reports/comparison.json").read_text())["averages"]
    printed = plain(capsys.readouterr().out).splitlines()
    assert printed[0].startswith(f"{averages[0]['method']} is best:")
    assert [line.split(":")[0] for line in printed[1:3]] == ["15 %", "100 %"]
    text = plain(Path("reports/comparison.md").read_text())
    assert text.startswith(f"**{printed[0].removesuffix('.')}.**")
    assert text.index("\n## 15 %\n") < text.index("\n## 100 %\n")
    summary = json.loads(Path("reports/summary.json").read_text())
    for average in averages:
        both = [summary[f"{average['method']}/{target}"]["test_accuracy"] for target in ("15", "100")]
        assert summary[f"{average['method']}/average"]["test_accuracy"] == pytest.approx(np.mean(both))
        assert average["test_accuracy_mean"] == pytest.approx(np.mean(both))


def test_runs_on_other_test_images_are_refused(inputs: Params) -> None:
    path = Path("results/lp_ft-all-0/predictions.parquet")
    drop_last_image(path)
    table = pd.read_parquet(path)
    right = float((table["label"] == table["prediction"]).mean())
    replace_json(Path("metrics/lp_ft-all-0.json"), test_accuracy=right)
    with pytest.raises(UserError, match="were not tested on the same images"):
        stage.compare(inputs)


@pytest.mark.slow
def test_the_stage_is_a_module(tmp_path: Path) -> None:
    """As DVC runs it, with nothing there: one sentence and exit code 2."""
    write_params(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.compare"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: metrics/linear_probe-all-0.json is missing; run: dvc repro baseline@linear_probe-all-0\n"
    )


def test_what_is_edited_meanwhile_is_told_of(inputs: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC would note it for a page that was made with what was there before."""

    def tell(*folders: Path) -> None:  # the page is written by now, and DVC has yet to read the settings
        Path("params.yaml").write_text(edited("compare", "confidence", 0.5))

    monkeypatch.setattr(stage, "why_it_waits", tell)
    with pytest.raises(UserError, match=r"params.yaml was changed while the stage compare was under way"):
        stage.main()


def test_the_page_is_written_where_no_tracking_server_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In a copy that DVC makes for an experiment, and deletes: what waits is in the project."""
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpx1"
    write_inputs(copy)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    trained = RunFolder.begin(RUNS / "stochca-all-0", "trial", "stochca-all-0")
    (trained.folder / "checkpoint").touch()
    trained.end("FINISHED")
    stage.main()
    assert Path("reports/index.html").exists()
    assert trained.goes_on_from == []
    monkeypatch.chdir(tmp_path)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "MLflow was not told of the comparison: MLFLOW_TRACKING_URI http://127.0.0.1:9 can't be used: no"
    )
    waiting = {folder.name for folder in waiting_folders()}  # for `stochca sync`
    assert waiting == {"compare-comparison", *(f"compare-{method}-all" for method in SKILL)}
    for folder in waiting_folders():  # nothing of another project's, whose images are others
        replaces = {"group": folder.name.removeprefix("compare-"), "dataset_fingerprint": FINGERPRINT}
        assert json.loads((folder / "run.json").read_text())["replaces"] == replaces
