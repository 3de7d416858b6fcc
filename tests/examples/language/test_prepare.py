import json
from pathlib import Path
from typing import Any

import pytest

from examples.language.paths import EXAMPLES, MANIFEST
from examples.language.prepare import prepare
from examples.language.settings import Data
from examples.language.text.batches import read_examples
from pipeline.runtime.files import sha256
from stochca.errors import UserError
from tests.examples.language.tiny import make_tokenizer, write_conversations


def data(root: Path, **changes: Any) -> Data:
    settings = {"source": "jsonl", "sha256": None, "language": "english", "root": str(root), "system": None}
    return Data(**{**settings, "max_length": 32, "test": 0.25, "split_seed": 0, **changes})


def test_splits_counts_and_the_fingerprint(tmp_path: Path) -> None:
    root = write_conversations(tmp_path / "raw", 40)
    ends = "word0\u2028\u0085\x0cword0"  # of lines, for some
    lines = [{"instruction": "word1", "output": ""}, {"instruction": "word0 word3", "output": "word0  WORD3"}]
    lines.append({"instruction": " Word0\u2028WORD3", "output": ends})
    (root / "more.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    manifest = prepare(data(root), make_tokenizer(), tmp_path / "prepared")
    train, test = (read_examples(tmp_path / "prepared", split) for split in ("train", "test"))
    assert manifest["examples"] == {"train": len(train), "test": len(test)}
    assert len(train) + len(test) == 41
    (own,) = (example for example in train + test if example.answer == ends)
    assert [each.group for each in train + test].count(own.group) == 2
    assert own.group == "word0 word3"
    assert not {each.question for each in train} & {each.question for each in test}
    assert manifest["counts"]["answers_empty"] == 1
    assert manifest["notes"][0] == "1 of 43 conversations were repeats of others, and left out"
    assert "more.jsonl, line 1" in manifest["notes"][1]
    assert json.loads((tmp_path / "prepared" / MANIFEST).read_text()) == manifest
    assert manifest["fingerprint"] == sha256(tmp_path / "prepared" / EXAMPLES)


def test_a_tokenizer_without_a_chat_template_is_said(tmp_path: Path) -> None:
    root = write_conversations(tmp_path / "raw", 8)
    manifest = prepare(data(root), make_tokenizer(template=None), tmp_path / "prepared")
    assert manifest["notes"] == [
        "the tokenizer has no chat template; a plain one is used (User: ... Assistant: ...)"
    ]


def test_answers_that_all_are_too_long(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    lines = [{"instruction": f"word{number}", "output": "word1 " * 40} for number in range(8)]
    (root / "long.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError) as error:
        prepare(data(root), make_tokenizer(), tmp_path / "prepared")
    assert "no answer is left in the split train: 8 examples had an answer that alone" in str(error.value)
    assert not (tmp_path / "prepared").exists()


def test_a_tokenizer_that_ends_nothing(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="no token that ends an answer"):
        prepare(data(tmp_path), tokenizer, tmp_path / "prepared")
