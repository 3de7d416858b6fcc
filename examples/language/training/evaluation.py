"""How a model does on held-out answers: how likely it finds them, and what it writes itself."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rouge_score.rouge_scorer import RougeScorer
from torch import Tensor
from torch.nn.functional import cross_entropy

from examples.language.settings import Compare
from examples.language.text.batches import to_answer, to_learn
from examples.language.text.encoding import IGNORED, Example
from examples.language.text.splitting import plain
from examples.language.training.words import Words
from stochca.compute.precision import autocast


@dataclass(frozen=True)
class Answered:
    """A held-out answer; what the model wrote is None where it was not asked to."""

    id: str
    group: str  # the first question of its conversation, plain
    question: str
    answer: str
    tokens: int  # of the answer
    surprise: float  # minus the log likelihood of the answer, in nats: the sum over its tokens
    written: str | None = None
    rouge_l: float | None = None  # F-measure, of `Words`
    exact: bool | None = None  # but for case and spaces


def choose(examples: Sequence[Example], settings: Compare) -> list[Example]:
    """The same held-out examples for every method and seed, drawn once."""
    count = min(settings.answers, len(examples))
    return random.Random(0).sample(list(examples), count)


def evaluate(
    module: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    settings: Compare,
    *,
    precision: str,
    device: torch.device,
) -> list[Answered]:
    """Score all of `examples`, and let the model answer the first `settings.generated` of them, greedily."""
    module.eval()
    pad = pad_token(tokenizer)
    with torch.no_grad(), autocast(precision, device):
        surprises = dict(_surprises(module, examples, settings.batch_size, pad, device))
        written = dict(_written(module, tokenizer, examples[: settings.generated], settings, pad, device))
    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    answers = []
    for example in examples:
        own = written.get(example.id)
        answers.append(
            Answered(
                example.id,
                example.group,
                example.question,
                example.answer,
                len(example.answer_tokens),
                surprises[example.id],
                own,
                None if own is None else scorer.score(example.answer, own)["rougeL"].fmeasure,
                None if own is None else plain(own) == plain(example.answer),
            )
        )
    return answers


def pad_token(tokenizer: Any) -> int:
    """The token that fills up a batch, of a tokenizer that may have none of its own."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def surprises_of(logits_BNV: Tensor, labels_BN: Tensor) -> Tensor:
    """Minus the log likelihood of the labels that are not ignored, summed by sequence: (B,)."""
    logits_BNV, labels_BN = logits_BNV[:, :-1], labels_BN[:, 1:]
    learned_BN = labels_BN != IGNORED
    each = cross_entropy(logits_BNV[learned_BN].float(), labels_BN[learned_BN], reduction="none")
    sums = torch.zeros(len(labels_BN), device=each.device)
    return sums.index_add(0, learned_BN.nonzero()[:, 0], each)


def _surprises(
    module: Any, examples: Sequence[Example], size: int, pad: int, device: torch.device
) -> Iterator[tuple[str, float]]:
    for part in _alike(examples, size, lambda each: len(each.prompt_tokens) + len(each.answer_tokens)):
        batch = {name: values.to(device) for name, values in to_learn(part, pad).items()}
        labels = batch.pop("labels")
        logits_BNV = module(**batch, use_cache=False).logits
        sums = surprises_of(logits_BNV, labels).tolist()
        yield from zip((example.id for example in part), sums, strict=True)


def _written(
    module: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    settings: Compare,
    pad: int,
    device: torch.device,
) -> Iterator[tuple[str, str]]:
    for part in _alike(examples, settings.batch_size, lambda each: len(each.prompt_tokens)):
        batch = {name: values.to(device) for name, values in to_answer(part, pad).items()}
        tokens = module.generate(
            **batch,
            max_new_tokens=settings.new_tokens,
            do_sample=False,  # nor what else the model's own generation_config asks for
            num_beams=1,
            repetition_penalty=1.0,
            pad_token_id=pad,
            eos_token_id=tokenizer.eos_token_id,
        )
        new = tokens[:, batch["input_ids"].shape[1] :]
        for example, text in zip(part, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            yield example.id, text.strip()


def _alike(examples: Sequence[Example], size: int, length: Any) -> Iterator[list[Example]]:
    """Batches of about the same length, which need little padding."""
    ordered = sorted(examples, key=length)
    yield from (ordered[first : first + size] for first in range(0, len(ordered), size))
