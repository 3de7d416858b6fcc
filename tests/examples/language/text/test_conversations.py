import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from examples.language.text.conversations import read_corpus, read_json_lines
from stochca.errors import UserError


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for language, question in (("english", "how are you"), ("turkish", "nasilsin")):
            archive.writestr(
                f"chatterbot_corpus/data/{language}/greetings.yml",
                f"categories: [x]\nconversations:\n- - {question}\n  - 'yes: '\n- [a, b, c, d]\n- [q, 42]\n",
            )
    return path


def test_the_first_pair_of_each_conversation(wheel: Path) -> None:
    corpus = read_corpus(wheel, "english")
    pairs = [[message["content"] for message in each.messages] for each in corpus.conversations]
    assert pairs == [["how are you", "yes:"], ["a", "b"], ["q", "42"]]
    assert [message["role"] for message in corpus.conversations[0].messages] == ["user", "assistant"]
    assert corpus.notes == ["2 further statements of conversations with more than two were left out"]
    assert corpus.conversations[1].place.endswith("greetings.yml, conversation 2")


def test_a_language_that_is_not_there(wheel: Path) -> None:
    with pytest.raises(UserError) as error:
        read_corpus(wheel, "english2")
    assert str(error.value).startswith("data.language is 'english2', which the corpus does not have")
    assert str(error.value).endswith("it has english, turkish")


def test_no_wheel(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_text("no archive")
    with pytest.raises(UserError, match="is no chatterbot-corpus"):
        read_corpus(tmp_path / "x.whl", "english")


def read(folder: Path, *lines: Any) -> list[list[dict[str, str]]]:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "own.jsonl").write_text(text + "\n\n")
    return [each.messages for each in read_json_lines(folder).conversations]


def test_instructions_and_messages(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    found = read(
        tmp_path,
        {"instruction": "add", "input": "1 2", "output": "3", "id": 7},
        {"instruction": "wave", "output": "o/"},
        {"messages": [*chat, {"role": "assistant", "content": "a", "name": "x"}]},
    )
    assert [message["content"] for message in found[0]] == ["add\n\n1 2", "3"]
    assert [message["content"] for message in found[1]] == ["wave", "o/"]
    assert found[2] == [*chat, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{broken", "Expecting property name"),
        ("[1]", "must be an object, found list"),
        ({"prompt": "x"}, "found the keys prompt"),
        ({"instruction": "x", "output": 3}, "all of them text"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "must have a role (system, user, assistant)"),
        ({"messages": [{"role": "user"}]}, "a content that is text"),
    ],
)
def test_a_line_that_is_no_conversation(line: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, {"instruction": "x", "output": "y"}, line)
    assert f"{tmp_path / 'own.jsonl'}, line 2: " in str(error.value)
    assert sentence in str(error.value)


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no \*.jsonl"):
        read_json_lines(tmp_path)
