from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from examples.language.text.conversations import Conversation
from examples.language.text.encoding import Encoder, Example
from stochca.errors import UserError
from tests.examples.language.tiny import TEMPLATE, make_tokenizer

TALK = [
    {"role": "user", "content": "word1 word2"},
    {"role": "assistant", "content": "word3"},
    {"role": "user", "content": "word4 word5 word6"},
    {"role": "assistant", "content": " word7 word8 "},
]


def encode(encoder: Encoder, messages: list[dict[str, str]]) -> list[Example]:
    return list(encoder.encode(Conversation(messages, "file, line 3"), "0", "train"))


def read(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens))


def test_each_answer_follows_all_before_it() -> None:
    tokenizer = make_tokenizer()
    first, second = encode(Encoder(tokenizer, 64, None), TALK)
    assert read(tokenizer, first.prompt_tokens) == "<user> word1 word2 <end> <assistant>"
    assert read(tokenizer, first.answer_tokens) == "word3 <end>"
    before = "<user> word1 word2 <end> <assistant> word3 <end> <user> word4 word5 word6 <end> <assistant>"
    assert read(tokenizer, second.prompt_tokens) == before
    assert read(tokenizer, second.answer_tokens) == "word7 word8 <end>"
    assert (second.question, second.answer) == ("word4 word5 word6", "word7 word8")
    assert first.group == second.group == "word1 word2"


def test_the_system_message_is_the_conversations_own_where_it_has_one() -> None:
    tokenizer = make_tokenizer()
    encoder = Encoder(tokenizer, 64, "word9")
    (example,) = encode(encoder, TALK[:2])
    assert read(tokenizer, example.prompt_tokens).startswith("<system> word9 <end> <user>")
    (example,) = encode(encoder, [{"role": "system", "content": "word8"}, *TALK[:2]])
    assert read(tokenizer, example.prompt_tokens).startswith("<system> word8 <end> <user>")


def test_long_prompts_lose_their_beginning() -> None:
    tokenizer = make_tokenizer()
    encoder = Encoder(tokenizer, 8, None)
    first, second = encode(encoder, TALK)
    assert len(first.prompt_tokens) == 5
    assert read(tokenizer, second.prompt_tokens) == "word4 word5 word6 <end> <assistant>"
    assert len(second.prompt_tokens + second.answer_tokens) == 8
    assert encoder.counts == {"prompts_cut": 1}
    assert encoder.first == {"prompts_cut": "file, line 3"}


def test_answers_that_are_empty_or_too_long_are_left_out_and_counted() -> None:
    encoder = Encoder(make_tokenizer(), 8, None)
    assert encode(encoder, [TALK[0], {"role": "assistant", "content": " \n"}]) == []
    assert encode(encoder, [TALK[0], {"role": "assistant", "content": "word1 " * 8}]) == []
    assert encoder.counts == {"answers_empty": 1, "answers_too_long": 1}


def test_a_tokenizer_without_a_chat_template_gets_a_plain_one() -> None:
    tokenizer = make_tokenizer(template=None)
    encoder = Encoder(tokenizer, 64, None)
    assert encoder.has_plain_template
    (example,) = encode(encoder, TALK[:2])
    assert read(tokenizer, example.prompt_tokens) == "User: word1 word2 Assistant:"
    assert read(tokenizer, example.answer_tokens) == "word3 <end>"


def test_a_template_that_says_nothing_of_ends_still_ends_the_answer() -> None:
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    tokenizer = make_tokenizer(template)
    (example,) = encode(Encoder(tokenizer, 64, None), TALK[:2])
    assert read(tokenizer, example.answer_tokens) == "word3 <end>"


@pytest.mark.parametrize("template", [None, "{{ bos_token }} " + TEMPLATE])
def test_prompts_begin_as_the_tokenizer_begins_texts_also_where_they_are_cut(template: str | None) -> None:
    bos = 1

    def encoded(messages: list[dict[str, str]], max_length: int) -> list[Example]:
        tokenizer = make_tokenizer(template)
        tokenizer.bos_token = "<unk>"
        begins = TemplateProcessing(single="<unk> $A", special_tokens=[("<unk>", bos)])
        tokenizer.backend_tokenizer.post_processor = begins
        return encode(Encoder(tokenizer, max_length, None), messages)

    whole, cut = encoded(TALK, 64), encoded(TALK, 9)
    assert [each.prompt_tokens.count(bos) for each in whole + cut] == [1, 1, 1, 1]
    assert len(cut[1].prompt_tokens + cut[1].answer_tokens) == 9
    assert cut[1].prompt_tokens == [bos, *whole[1].prompt_tokens[-5:]]
    assert encoded(TALK[:2], 3) == []  # it leaves no room for a prompt


def test_an_empty_thought_belongs_to_the_prompt_and_one_that_was_thought_to_the_answer() -> None:
    """As of Qwen3: the last answer has a thought, and the prompt an empty one if told to."""
    tokenizer = make_tokenizer(
        "{% for m in messages %}<{{ m.role }}> "
        "{% if m.role == 'assistant' and loop.last and '</think>' not in m.content %}<think> </think> "
        "{% endif %}{{ m.content }} <end> {% endfor %}"
        "{% if add_generation_prompt %}<assistant> "
        "{% if enable_thinking is defined and not enable_thinking %}<think> </think> {% endif %}{% endif %}"
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    encoder = Encoder(tokenizer, 64, None)
    (plain,) = encode(encoder, TALK[:2])
    assert read(tokenizer, plain.prompt_tokens) == "<user> word1 word2 <end> <assistant> <think> </think>"
    assert read(tokenizer, plain.answer_tokens) == "word3 <end>"
    thought = "<think> word9 </think> word3"
    (thinking,) = encode(encoder, [TALK[0], {"role": "assistant", "content": thought}])
    assert read(tokenizer, thinking.prompt_tokens) == "<user> word1 word2 <end> <assistant>"
    assert read(tokenizer, thinking.answer_tokens) == f"{thought} <end>"


def test_a_template_that_refuses_a_conversation() -> None:
    """As Gemma's does."""
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    tokenizer = make_tokenizer(refuses + TEMPLATE)
    assert encode(Encoder(tokenizer, 64, None), TALK)
    with pytest.raises(UserError) as error:
        encode(Encoder(tokenizer, 64, "word9"), TALK)
    assert str(error.value) == (
        "file, line 3: the tokenizer's chat template refuses it (no system role); set data.system to null "
        "if it knows no system message, else mend the conversation or leave it out"
    )
