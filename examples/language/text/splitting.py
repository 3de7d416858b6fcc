"""Which conversations are held out: none that begins as one that is trained on does."""

import random
from collections.abc import Sequence

from examples.language.text.conversations import Conversation
from stochca.errors import UserError


def without_repeats(conversations: Sequence[Conversation]) -> list[Conversation]:
    """The first of each that are equal but for case and spaces; a corpus may have one a hundred times."""
    first: dict[tuple[str, ...], Conversation] = {}
    for conversation in conversations:
        key = tuple(plain(message["content"]) for message in conversation.messages)
        first.setdefault(key, conversation)
    return list(first.values())


def held_out(conversations: Sequence[Conversation], share: float, seed: int) -> list[bool]:
    """Whether each is held out; those with the same first question go together.

    Raises:
        UserError: a side would be empty.
    """
    beginnings = [beginning(conversation) for conversation in conversations]
    groups = sorted(set(beginnings))
    random.Random(seed).shuffle(groups)
    count = round(share * len(groups))
    if not 0 < count < len(groups):
        raise UserError(
            f"data.test {share} of {len(groups)} conversations with different first questions leaves nothing "
            f"to {'train on' if count else 'hold out'}; change it, or bring more conversations"
        )
    chosen = set(groups[:count])
    return [each in chosen for each in beginnings]


def beginning(conversation: Conversation) -> str:
    """Its first question, plain; empty where it has none."""
    questions = [message["content"] for message in conversation.messages if message["role"] == "user"]
    return plain(questions[0]) if questions else ""


def plain(text: str) -> str:
    """`text` without case and the number of spaces, for comparisons."""
    return " ".join(text.casefold().split())
