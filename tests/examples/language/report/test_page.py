from examples.language.paths import PARAMS_FILE
from examples.language.report.page import build_page, caveat, curves, headline, side_by_side
from examples.language.report.standings import Standing, rank
from examples.language.settings import load_settings
from tests.examples.language.report.outcomes import LEVELS, SETTINGS, in_groups, make_outcomes
from tests.imports import ROOT


def rows(**levels: float) -> list[Standing]:
    return rank(make_outcomes({**LEVELS, **levels}), SETTINGS)


def test_who_won_and_how_sure_that_is() -> None:
    won = headline(rows())
    assert won.startswith("lora is best: log loss 1.8")
    assert "(0.099 below finetune, 95\u00a0% interval +0.098 to +0.101)" in won
    assert headline(rows(lora=2.2)).startswith("No method is better than finetune: log loss 1.9")


def test_what_the_intervals_cover() -> None:
    assert caveat(rows()).startswith("With 3 seeds, the intervals cover other seeds as well")
    outcomes = {name: own[:1] for name, own in make_outcomes().items()}
    assert caveat(rank(outcomes, SETTINGS)).endswith("another seed may differ.")
    in_groups(outcomes, 3)
    assert caveat(rank(outcomes, SETTINGS)).endswith(
        "The 60 answers are of conversations with 20 first questions, each of which counts as one "
        "observation."
    )


def test_curves_and_answers() -> None:
    drawn = curves(rows())
    assert {line["method"] for line in drawn["lines"]} == set(LEVELS)
    assert drawn["lines"][0]["mean"].to_dict() == {1: 3.0, 2: 2.0, 3: 1.0}
    dialogues = side_by_side(rows())
    assert len(dialogues) == 20
    assert set(dialogues[0]["written"]) == set(LEVELS)


def test_what_people_and_models_write_is_text() -> None:
    manifest = {
        "source": "jsonl:x", "license": None, "examples": {"train": 5, "test": 60},
        "answer_tokens": {"train": 9, "test": 9}, "notes": ["<u>left out</u>"],
    }  # fmt: skip
    card = {"source": "folder:x", "architecture": "Llama", "layers": 2, "width": 8, "license": None}
    settings = load_settings(ROOT / PARAMS_FILE)
    page = build_page(rows(), settings, manifest, {**card, "parameters": 3}, pretuned=False)
    for tag in ("<b>x", "<i>1", "<u>left"):
        assert tag not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "TOAST&#39;s decoders were not pre-tuned" in page or "TOAST's decoders were not pre-tuned" in page
