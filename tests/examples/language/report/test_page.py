from typing import Any

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


MANIFEST: dict[str, Any] = {
    "source": "jsonl:x", "license": None, "examples": {"train": 5, "test": 60},
    "answer_tokens": {"train": 9, "test": 9}, "notes": ["<u>left out</u>"],
}  # fmt: skip
CARD: dict[str, Any] = {"source": "folder:x", "architecture": "Llama", "license": None}
CARD |= {"layers": 2, "width": 8, "parameters": 3}


def test_what_people_and_models_write_is_text() -> None:
    settings = load_settings(ROOT / PARAMS_FILE)
    page = build_page(rows(), settings, MANIFEST, CARD, pretuned=False)
    for tag in ("<b>x", "<i>1", "<u>left"):
        assert tag not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "TOAST's decoders were not pre-tuned, " in page


def test_what_was_written_is_counted_and_where_decoders_are_from_is_said() -> None:
    settings = load_settings(ROOT / PARAMS_FILE)
    own = settings.pretune.model_copy(update={"decoders": "<own>.safetensors"})
    more = settings.compare.model_copy(update={"generated": 500})
    settings = settings.model_copy(update={"pretune": own, "compare": more})
    page = build_page(rows(), settings, MANIFEST, CARD, pretuned=True)
    assert "TOAST's decoders were pre-tuned elsewhere (&lt;own&gt;.safetensors).</p>" in page
    assert "exact match are of 30 answers that each model wrote" in page
