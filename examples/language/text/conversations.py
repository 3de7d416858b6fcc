"""Conversations as they come: a corpus in a wheel, or JSON lines. Here they become lists of messages."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stochca.errors import UserError

ROLES = ("system", "user", "assistant")
Message = dict[str, str]  # role and content, as chat templates take them


@dataclass(frozen=True)
class Conversation:
    """Its messages, and where it stands, for a sentence."""

    messages: list[Message]
    place: str


@dataclass
class Corpus:
    """All that was read, and what had to be left out of it."""

    conversations: list[Conversation]
    license: str | None = None
    notes: list[str] = field(default_factory=list)


def read_corpus(wheel: Path, language: str) -> Corpus:
    """The pairs of chatterbot-corpus: of each conversation the first statement and the first answer to it.

    What follows them is in some subjects another answer to the first statement, in others the next turn;
    nothing tells which, so it is left out.

    Raises:
        UserError: it is no such wheel, or has no such language.
    """
    conversations, further = [], 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = sorted(name for name in archive.namelist() if name.endswith(".yml"))
            own = [name for name in files if name.split("/")[-2] == language]
            if not own:
                known = sorted({name.split("/")[-2] for name in files if "/data/" in name})
                raise UserError(
                    f"data.language is {language!r}, which the corpus does not have; it has "
                    f"{', '.join(known) or 'none'}"
                )
            for name in own:
                for number, lines in enumerate(yaml.safe_load(archive.read(name))["conversations"], start=1):
                    question, answer, *rest = (str(line).strip() for line in lines)
                    further += len(rest)
                    messages = [
                        {"role": "user", "content": question},
                        {"role": "assistant", "content": answer},
                    ]
                    conversations.append(Conversation(messages, f"{name}, conversation {number}"))
    except UserError:
        raise
    except (zipfile.BadZipFile, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{wheel} is no chatterbot-corpus: {' '.join(str(error).split())}") from None
    notes = [f"{further} further statements of conversations with more than two were left out"] * bool(
        further
    )
    return Corpus(conversations, "BSD (chatterbot-corpus)", notes)


def read_json_lines(root: Path) -> Corpus:
    """Every line of root/*.jsonl: `instruction`, `input` (may lack) and `output`, or `messages`.

    Raises:
        UserError: there is no such file, or a line is neither; it names the file and the line.
    """
    files = sorted(root.glob("*.jsonl"))
    if not files:
        raise UserError(f"data.source is jsonl, but {root} has no *.jsonl; put your conversations there")
    return Corpus([conversation for file in files for conversation in _lines(file)])


def _lines(file: Path) -> Iterator[Conversation]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} can't be read as UTF-8: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{file}, line {number}"
            try:
                yield Conversation(_messages(json.loads(line)), place)
            except ValueError as error:
                raise UserError(f"{place}: {error}") from None


def _messages(raw: Any) -> list[Message]:
    if not isinstance(raw, dict):
        raise ValueError(f"must be an object, found {type(raw).__name__}")
    if "messages" not in raw:
        return _instruction(raw)
    messages = raw["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list of objects with role and content")
    for message in messages:
        role, content = (
            message.get(key) if isinstance(message, dict) else None for key in ("role", "content")
        )
        if role not in ROLES or not isinstance(content, str):
            raise ValueError(
                f"each of messages must have a role ({', '.join(ROLES)}) and a content that is text, found "
                f"{json.dumps(message, ensure_ascii=False)[:80]}"
            )
    return [{key: message[key] for key in ("role", "content")} for message in messages]


def _instruction(raw: dict[str, Any]) -> list[Message]:
    """As Alpaca has it: what `input` holds follows the instruction."""
    found = {key: raw.get(key, "") for key in ("instruction", "input", "output")}
    if not {"instruction", "output"} <= raw.keys() or not all(
        isinstance(text, str) for text in found.values()
    ):
        raise ValueError(
            "must have instruction, output and perhaps input, or messages, all of them text, found the keys "
            + (", ".join(raw) or "none")
        )
    question = "\n\n".join(filter(None, (found["instruction"].strip(), found["input"].strip())))
    return [{"role": "user", "content": question}, {"role": "assistant", "content": found["output"]}]
