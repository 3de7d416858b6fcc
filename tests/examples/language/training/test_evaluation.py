"""Held-out answers against the slow way: one at a time, token by token, without padding or caches."""

import pytest
import torch

from examples.language.settings import KINDS, Compare
from examples.language.text.encoding import Example
from examples.language.training.evaluation import choose, evaluate, surprises_of
from examples.language.training.methods import build
from tests.examples.language.tiny import make_model, make_tokenizer

SETTINGS = Compare(
    methods=["x"], seeds=[0], reference="x", confidence=0.95, answers=6,
    generated=4, new_tokens=5, batch_size=3,
)  # fmt: skip
EXAMPLES = [
    Example(
        str(n), "test", f"g{n}", f"q{n}", "word1 word2", [3, *range(9, 10 + n), 2, 4], [9 + n, 10, 2][n % 2 :]
    )
    for n in range(7)
]


@pytest.mark.parametrize("adapt", ["full", "toast"])
def test_surprise_and_greedy_answers(adapt: str) -> None:
    method = KINDS[adapt].model_validate({"adapt": adapt, "lr": 1})
    model = make_model(seed=1)
    model.generation_config.repetition_penalty = 5.0  # as of some models that were tuned to chat
    module = build(method, model, None).eval()
    if adapt == "toast":  # whose feedback is nothing at first
        for name, parameter in module.named_parameters():
            if "emit" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    module.requires_grad_(False)
    tokenizer = make_tokenizer()
    answers = evaluate(module, tokenizer, EXAMPLES, SETTINGS, precision="fp32", device=torch.device("cpu"))
    for place, (example, found) in enumerate(zip(EXAMPLES, answers, strict=True)):
        surprise, tokens = 0.0, list(example.prompt_tokens)
        for token in example.answer_tokens:
            chances = module(torch.tensor([tokens]), use_cache=False).logits[0, -1].log_softmax(-1)
            surprise -= float(chances[token])
            tokens.append(token)
        assert found.surprise == pytest.approx(surprise, abs=1e-4)
        assert found.tokens == len(example.answer_tokens)
        assert found.group == f"g{place}"
        if place >= SETTINGS.generated:
            assert found.written is None
            continue
        tokens = list(example.prompt_tokens)
        for _ in range(SETTINGS.new_tokens):
            token = int(module(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
            tokens.append(token)
            if token == tokenizer.eos_token_id:
                break
        new = tokens[len(example.prompt_tokens) :]
        assert found.written == tokenizer.decode(new, skip_special_tokens=True)


def test_ignored_labels_count_nothing() -> None:
    logits = torch.zeros(2, 4, 8)
    labels = torch.tensor([[-100, 1, 2, -100], [-100, -100, -100, 3]])
    eighth = torch.log(torch.tensor(8.0))
    assert torch.allclose(surprises_of(logits, labels), torch.stack([2 * eighth, eighth]))


def test_the_same_answers_for_all() -> None:
    chosen = choose(EXAMPLES, SETTINGS)
    assert len(chosen) == 6
    assert chosen == choose(EXAMPLES, SETTINGS)
    assert {each.id for each in chosen} < {each.id for each in EXAMPLES}
