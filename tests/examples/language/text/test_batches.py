from pathlib import Path

import pytest

from examples.language.text.batches import read_examples, to_answer, to_learn
from examples.language.text.encoding import Example
from stochca.errors import UserError

EXAMPLES = [
    Example("0", "train", "g", "q", "a", [5, 6, 7], [8, 2]),
    Example("1", "train", "g", "q", "a", [5], [9, 9, 9, 2, 2]),
]


def test_answers_alone_are_learned_and_padding_is_on_the_right() -> None:
    batch = {name: values.tolist() for name, values in to_learn(EXAMPLES, pad=0).items()}
    assert batch["input_ids"] == [[5, 6, 7, 8, 2, 0], [5, 9, 9, 9, 2, 2]]
    assert batch["attention_mask"] == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert batch["labels"] == [[-100, -100, -100, 8, 2, -100], [-100, 9, 9, 9, 2, 2]]


def test_whole_texts_are_learned_without_their_padding() -> None:
    labels = to_learn(EXAMPLES, pad=0, whole=True)["labels"].tolist()
    assert labels == [[5, 6, 7, 8, 2, -100], [5, 9, 9, 9, 2, 2]]


def test_prompts_end_where_the_answer_begins() -> None:
    batch = {name: values.tolist() for name, values in to_answer(EXAMPLES, pad=0).items()}
    assert batch == {"input_ids": [[5, 6, 7], [0, 0, 5]], "attention_mask": [[1, 1, 1], [0, 0, 1]]}


def test_nothing_is_prepared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run the stage prepare"):
        read_examples(tmp_path, "train")
