"""Examples as tensors, padded to the longest: on the right to learn from, on the left to go on writing."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from examples.language.paths import EXAMPLES
from examples.language.text.encoding import IGNORED, Example
from stochca.errors import UserError

Batch = dict[str, Tensor]


def read_examples(folder: Path, split: str) -> list[Example]:
    """The prepared examples of a split.

    Raises:
        UserError: the stage prepare has not run, or its file is damaged.
    """
    try:
        text = (folder / EXAMPLES).read_text(encoding="utf-8")
        # Not splitlines: what people write has ends of lines of its own, as U+2028.
        examples = [Example(**json.loads(line)) for line in text.split("\n") if line]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder / EXAMPLES} can't be read ({error}); run the stage prepare") from None
    return [example for example in examples if example.split == split]


def to_learn(examples: Sequence[Example], pad: int, whole: bool = False) -> Batch:
    """`input_ids`, `attention_mask`, `labels` (B, N); labels are those of the answers, or of all tokens."""
    rows = [example.prompt_tokens + example.answer_tokens for example in examples]
    length = max(map(len, rows))
    input_ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORED)
    attention_mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, (row, example) in enumerate(zip(rows, examples, strict=True)):
        input_ids[index, : len(row)] = torch.tensor(row)
        attention_mask[index, : len(row)] = 1
        first = 0 if whole else len(example.prompt_tokens)
        labels[index, first : len(row)] = input_ids[index, first : len(row)]
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def to_answer(examples: Sequence[Example], pad: int) -> Batch:
    """`input_ids` and `attention_mask` (B, N) of the prompts alone."""
    length = max(len(example.prompt_tokens) for example in examples)
    input_ids = torch.full((len(examples), length), pad)
    attention_mask = torch.zeros((len(examples), length), dtype=torch.long)
    for index, example in enumerate(examples):
        input_ids[index, length - len(example.prompt_tokens) :] = torch.tensor(example.prompt_tokens)
        attention_mask[index, length - len(example.prompt_tokens) :] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}
