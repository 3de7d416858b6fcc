import pytest
from rouge_score.rouge_scorer import RougeScorer

from examples.language.training.words import Words


def rouge_l(answer: str, written: str) -> float:
    return float(RougeScorer(["rougeL"], tokenizer=Words()).score(answer, written)["rougeL"].fmeasure)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Хорошо, а у тебя?", "хорошо а у тебя"),
        ("人工智能, AI", "人 工 智 能 ai"),
        ("AIとは何ですか？", "ai と は 何 で す か"),
        ("सूरज पूर्व में।", "सूरज पूर्व में"),
        ("ที่ดี", "ที่ ดี"),
        ("Für Ärzte_2", "für ärzte 2"),
        ("Cafe\N{COMBINING ACUTE ACCENT}", "café"),
        ("\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}", ""),
    ],
)
def test_words_of_any_language(text: str, words: str) -> None:
    assert Words().tokenize(text) == words.split()


def test_answers_that_are_alike_score_by_the_words_they_share() -> None:
    assert rouge_l("Хорошо, а у тебя?", "хорошо, а у него?") == pytest.approx(3 / 4)
    assert rouge_l("人工智能", "人工") == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert rouge_l("für", "fär") == 0


def test_english_scores_are_those_of_rouge_score_itself() -> None:
    text = "It's 3.5 computers_running on NASA's “big” PCs \N{EM DASH} a co-operation, said O'Neil in 2024!"
    other = "The computer ran 3.5 bigger machine; cooperations, I said… 2024"
    its_own = RougeScorer(["rougeL"], use_stemmer=True)
    assert rouge_l(text, other) == its_own.score(text, other)["rougeL"].fmeasure > 0
    assert Words().tokenize(text) == its_own._tokenizer.tokenize(text)
