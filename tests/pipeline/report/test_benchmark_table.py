"""The papers' tables of made-up runs, against numbers that the test computes from the runs' own files."""

import csv
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import compare as stage
from pipeline.config.params import load_params
from pipeline.config.sections import Protocol
from pipeline.report.benchmark_table import (
    BenchmarkTable,
    Block,
    Cell,
    Column,
    as_latex,
    as_markdown,
)
from pipeline.report.comparison_json import Comparison, read_comparison
from pipeline.report.documents import escape
from pipeline.report.published import DOMAINS, PUBLISHED
from pipeline.report.table_contents import table_of
from pipeline.report.terms import terms_of
from stochca.errors import UserError
from tests.pipeline.synthetic_runs import SKILL, write_inputs

TRIALS = (0, 1, 2)
PACS = ("art_painting", "cartoon", "photo", "sketch")


def compared(root: Path, **inputs: Any) -> Path:
    """The reports on made-up runs in a folder."""
    write_inputs(root, **inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        stage.compare(load_params())
    return root / "reports"


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    protocol = {"name": "leave_one_domain_out", "targets": list(PACS)}
    return compared(tmp_path_factory.mktemp("pacs"), seeds=TRIALS, protocol=protocol, dataset="pacs")


@pytest.fixture(scope="module")
def ratios(tmp_path_factory: pytest.TempPathFactory) -> Path:
    protocol = {"name": "sampling_ratios", "targets": ["15", "100"], "refit": True, "combined": []}
    root = tmp_path_factory.mktemp("ratios")
    return compared(root, seeds=(0, 1), protocol=protocol, dataset="stanford_cars")


def metric(reports: Path, method: str, target: str, seeds: Sequence[int], name: str) -> np.ndarray:
    files = [reports.parent / "metrics" / f"{method}-{target}-{seed}.json" for seed in seeds]
    return np.array([json.loads(file.read_text())[name] for file in files])


def rows_of(reports: Path) -> list[dict[str, str]]:
    with (reports / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


SELECTIONS = {
    "training-domain validation": "test_accuracy",
    "oracle": "test_accuracy_oracle",
    "last step": "test_accuracy_last",
}


def test_domains_have_means_and_standard_errors_over_trials(pacs: Path) -> None:
    measured = [row for row in rows_of(pacs) if row["source"] == "measured"]
    assert len(measured) == 3 * len(SKILL) * (len(PACS) + 1)
    for row in measured:
        targets = PACS if row["target"] == "average" else (row["target"],)
        numbers = [
            metric(pacs, row["method"], target, TRIALS, SELECTIONS[row["selection"]]) for target in targets
        ]
        trials = np.mean(numbers, axis=0)  # of each trial over the domains
        assert float(row["mean"]) == pytest.approx(trials.mean())
        assert float(row["error"]) == pytest.approx(trials.std(ddof=1) / math.sqrt(3))
        assert (row["n"], row["error_is"], row["dataset"]) == ("3", "standard error", "pacs")


def test_shares_have_standard_deviations_over_seeds(ratios: Path) -> None:
    rows = rows_of(ratios)
    assert {row["target"] for row in rows} == {"15", "100", "average"}
    assert {row["selection"] for row in rows} == {"last step"}
    for row in rows:
        targets = ("15", "100") if row["target"] == "average" else (row["target"],)
        trials = np.mean(
            [metric(ratios, row["method"], each, (0, 1), "test_accuracy") for each in targets], axis=0
        )
        assert float(row["mean"]) == pytest.approx(trials.mean())
        assert float(row["error"]) == pytest.approx(trials.std(ddof=1))
        assert row["error_is"] == "standard deviation"


def markdown_blocks(text: str) -> dict[str, list[list[str]]]:
    """The rows of each block by its title; the first row is the header."""
    blocks: dict[str, list[list[str]]] = {}
    for part in text.split("\n\n"):
        if part.startswith("**"):
            title = part.strip("*")
        elif part.startswith("|"):
            blocks[title] = [
                [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()
            ]
    return blocks


def test_the_markdown_has_a_block_for_each_choice_and_the_best_is_bold(pacs: Path) -> None:
    blocks = markdown_blocks((pacs / "table.md").read_text())
    titles = list(blocks)
    assert titles[:3] == [
        "training-domain validation",
        "oracle (chosen on the target: not comparable)",
        "last step",
    ]
    for title, name in zip(titles[:3], SELECTIONS.values(), strict=True):
        header, _, *lines = blocks[title]
        assert header == ["method", *PACS, "Average"]
        assert [line[0] for line in lines] == list(SKILL)
        for column, target in enumerate((*PACS, "average"), start=1):
            targets = PACS if target == "average" else (target,)
            means = {
                method: np.mean([metric(pacs, method, each, TRIALS, name) for each in targets])
                for method in SKILL
            }
            printed = {method: f"{100 * mean:.1f}" for method, mean in means.items()}
            best = max(printed.values(), key=float)
            for line in lines:
                bold = line[column].startswith("**")
                assert line[column].strip("*").split(" ± ")[0] == printed[line[0]]
                assert bold == (printed[line[0]] == best)


def test_published_numbers_stand_apart(pacs: Path) -> None:
    rows = [row for row in rows_of(pacs) if row["source"] == "published"]
    known = {(row["method"], row["selection"]): float(row["mean"]) for row in rows if row["mean"]}
    assert known == {
        ("ERM", "training-domain validation"): 0.855,
        ("ERM", "oracle"): 0.867,
        ("SWAD", "training-domain validation"): 0.881,
    }
    assert all(row["target"] == "average" for row in rows if row["mean"])
    assert all("ResNet-50" in row["backbone"] for row in rows)
    text = (pacs / "table.md").read_text()
    published = text[text.index("**published:") :]
    assert "85.5" in published
    assert "**85.5**" not in published
    assert "| ERM | - [1] | - [1] | - [1] | - [1] | 85.5 |" in published
    assert "[1] not among the numbers that are quoted" in published
    assert "they are of ResNet-50 pretrained on ImageNet, ours of vit_small_patch14_dinov2" in published


@pytest.mark.parametrize("targets", [PACS[:3], PACS[:1]])
def test_an_average_over_all_domains_is_not_put_beside_one_over_some(
    tmp_path: Path, targets: Sequence[str]
) -> None:
    protocol = {
        "name": "leave_one_domain_out", "targets": list(targets), "oracle": False,
        "baseline": ["finetune"], "combined": [],
    }  # fmt: skip
    reports = compared(tmp_path, protocol=protocol, dataset="pacs", test_images=20)
    rows = rows_of(reports)
    assert {row["source"] for row in rows} == {"measured"}
    assert {row["selection"] for row in rows} == {"training-domain validation", "last step"}
    assert ("average" in {row["target"] for row in rows}) == (len(targets) > 1)
    assert (
        "There are no numbers for the oracle: the runs did not evaluate it."
        in (reports / "table.md").read_text()
    )


def test_toasts_numbers_stand_beside_its_datasets(tmp_path: Path) -> None:
    protocol = {"baseline": ["finetune"], "combined": []}
    rows = rows_of(compared(tmp_path, protocol=protocol, dataset="stanford_dogs", test_images=20))
    published = {row["method"]: row["mean"] for row in rows if row["source"] == "published"}
    assert len(published) == 6
    assert (published["LoRA"], published["full fine-tuning"]) == ("0.975", "0.947")
    assert "stanford_dogs: its images are part of ImageNet" in (tmp_path / "reports" / "table.md").read_text()
    assert [row["target"] for row in rows if row["source"] == "measured"] == ["all", "all"]


def test_what_is_published_has_the_numbers_of_the_papers() -> None:
    """Row by row, as the papers print them."""
    tables = {(each.selection, name): row for each in PUBLISHED for name, row in each.rows.items()}
    assert tables["training-domain validation", "ERM"] == {
        "pacs": 85.5, "vlcs": 77.5, "office_home": 66.5, "terra_incognita": 46.1, "domain_net": 40.9
    }  # fmt: skip
    assert list(tables["oracle", "ERM"].values()) == [86.7, 77.6, 66.4, 53.0, 41.3]
    assert list(tables["training-domain validation", "SWAD"].values()) == [88.1, 79.1, 70.6, 50.0, 46.5]
    fgvc = ["cub_200_2011", "nabirds", "flowers_102", "stanford_dogs", "stanford_cars"]
    for name, numbers in {
        "linear probe": [76.8, 47.3, 81.7, 97.7, 60.3],
        "full fine-tuning": [80.5, 60.2, 86.9, 94.7, 83.2],
        "VPT": [76.9, 72.2, 80.6, 97.3, 62.8],
        "LoRA": [82.5, 71.2, 81.2, 97.5, 76.6],
        "TOAST": [85.0, 75.2, 88.7, 97.4, 84.5],
        "TOAST-Lite": [84.5, 76.9, 89.4, 97.4, 82.0],
    }.items():
        assert tables["as its authors chose", name] == dict(zip(fgvc, numbers, strict=True))


def test_the_published_averages_are_over_the_domains_that_the_datasets_have() -> None:
    from pipeline.config.datasets import registered

    assert {name: len(registered(name).domains or ()) for name in DOMAINS} == DOMAINS


def block(*numbers: float | None, source: str = "measured") -> Block:
    return Block("b", "s", "v", {f"m{i}": [Cell(number)] for i, number in enumerate(numbers)}, source)


@pytest.mark.parametrize(
    ("numbers", "best"),
    [
        ((0.8511, 0.8509, 0.84), [True, True, False]),  # a tie as printed
        ((0.8511, None), [False, False]),  # alone
        ((None, 0.1, 0.2), [False, False, True]),
    ],
)
def test_bold_is_the_best_as_printed_ties_too(numbers: Sequence[float | None], best: list[bool]) -> None:
    table = block(*numbers)
    assert [table.is_best(method, 0) for method in table.lines] == best
    quoted = block(*numbers, source="published")
    assert not any(quoted.is_best(method, 0) for method in quoted.lines)


def check_latex(text: str) -> list[list[str]]:
    """Environments, braces and dollars are balanced, and every row has every column; gives the rows."""
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    bare = re.sub(r"\\[\\{}$%&#_]", "", text)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    match = re.search(r"\\begin\{tabular\}\{(l(r+))\}\n(.*)\\end\{tabular\}", text, re.DOTALL)
    assert match
    rows = []
    for line in match[3].splitlines():
        if not line.endswith("\\\\"):
            assert re.fullmatch(r"\\(top|mid|bottom)rule|(\\cmidrule\(lr\)\{\d+-\d+\} ?)+", line), line
            continue
        cells = re.split(r"(?<!\\)&", line.removesuffix("\\\\"))
        spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", line)]
        assert len(cells) - len(spans) + sum(spans) == len(match[1])
        rows.append([cell.strip() for cell in cells])
    return rows


def test_the_latex_is_balanced_and_says_the_same(pacs: Path, ratios: Path) -> None:
    for reports in (pacs, ratios):
        rows = check_latex((reports / "table.tex").read_text())
        plain = [
            re.sub(r"\\textbf\{([\d.]+)\}", r"\1", cell).replace("$\\pm$", "±").replace("\\_", "_")
            for row in rows
            for cell in row
            if "multicolumn" not in cell
        ]
        blocks = markdown_blocks((reports / "table.md").read_text())
        told = [cell.replace("*", "") for _, _, *lines in blocks.values() for line in lines for cell in line]
        numbers = [cell for cell in told if re.fullmatch(r"[\d.]+( ± [\d.]+)?", cell)]
        assert [cell for cell in plain if re.fullmatch(r"[\d.]+( ± [\d.]+)?", cell)] == numbers
        bold = (reports / "table.tex").read_text().count("\\textbf{")
        assert bold == (reports / "table.md").read_text().count("| **")
        assert bold > 0


def test_names_are_escaped_for_latex_and_groups_span_their_columns() -> None:
    nasty = "50% & a_b #1 {x} $y$ ~ ^ \\end{table} ± |"
    columns = [
        Column("d", "15", "15 %", nasty),
        Column("d", "30", "30 %", nasty),
        Column("e", "15", "15 %", "e"),
    ]
    cells = [Cell(0.5, 0.01, 2), Cell(None, missing=nasty), Cell(0.5), Cell(None, missing="another")]
    columns.append(Column("all", "average", "Average"))
    block = Block(nasty, "s", "v", {nasty: cells})
    table = BenchmarkTable(nasty, columns, [block], "standard deviation", [nasty])
    text = as_latex(table)
    rows = check_latex(text)
    assert rows[0][1] == f"\\multicolumn{{2}}{{c}}{{{escape(nasty)}}}"
    assert "\\cmidrule(lr){2-3} \\cmidrule(lr){4-4}" in text
    assert rows[-1][1:] == ["50.0 $\\pm$ 1.0", "--$^{1}$", "50.0", "--$^{2}$"]
    assert escape("a_b & 5% \\x") == r"a\_b \& 5\% \textbackslash{}x"
    assert "- [1] | 50.0 | - [2] |" in as_markdown(table)


def test_one_trial_has_no_error(tmp_path: Path) -> None:
    protocol = {"name": "sampling_ratios", "targets": ["30", "50"], "baseline": ["finetune"], "combined": []}
    reports = compared(tmp_path, protocol=protocol, test_images=20)
    text = (reports / "table.md").read_text()
    assert "±" not in text
    assert "One seed: the standard deviation is not known." in text
    assert {row["error"] for row in rows_of(reports)} == {""}
    assert {row["n"] for row in rows_of(reports)} == {"1"}


def test_every_protocol_has_its_words() -> None:
    for name in Protocol.model_fields["name"].annotation.__args__:  # type: ignore[union-attr]
        terms = terms_of(name, "accuracy")
        assert (terms.error == "standard error") == (name == "leave_one_domain_out")
        assert terms.selections[0].metric == "test_accuracy"


def test_a_comparison_can_be_read_back(pacs: Path) -> None:
    results = read_comparison(pacs / "comparison.json")
    assert as_markdown(table_of(results)) == (pacs / "table.md").read_text()
    assert (results.dataset.name, results.dataset.classes, results.backbone.image_size) == ("pacs", 3, 70)
    assert len(results.runs) == len(SKILL) * len(PACS) * len(TRIALS)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "is missing; make it there with: dvc repro compare"),
        ("[]", "of this version (the whole file: input should be a valid"),
        ("{", "is no comparison.json of this version"),
        ('{"dataset": {}}', "(dataset.name: field required); make it again with: dvc repro compare"),
    ],
)
def test_what_is_no_comparison_is_named(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "comparison.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_comparison(path)


def test_a_comparison_holds_what_a_table_needs(pacs: Path) -> None:
    values = json.loads((pacs / "comparison.json").read_text())
    assert set(values) == set(Comparison.model_fields)
    assert values["protocol"]["targets"] == list(PACS)
