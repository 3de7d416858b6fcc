"""Messages become tokens: a prompt by the tokenizer's chat template, and the answer that is learned."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import TemplateError

from examples.language.text.conversations import Conversation, Message
from examples.language.text.splitting import beginning
from stochca.errors import UserError

# For tokenizers without a chat template, as those of models that were not tuned to chat.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
IGNORED = -100  # the label of tokens that are not learned


@dataclass(frozen=True)
class Example:
    """A prompt and its answer; of a conversation with several answers each is one, after all before it."""

    id: str
    split: str  # train | test
    group: str  # what its conversation begins with: answers that share it are no independent ones
    question: str  # the last message before the answer
    answer: str
    prompt_tokens: list[int]
    answer_tokens: list[int]  # with the token that ends an answer

    to_dict = asdict


class Encoder:
    """Encodes conversations, and counts what it cut or left out.

    Args:
        tokenizer: of `transformers`; one without a chat template gets a plain one.
        max_length: tokens of a prompt and its answer.
        system: what every prompt begins with, unless the conversation says it itself; None: nothing.
    """

    def __init__(self, tokenizer: Any, max_length: int, system: str | None) -> None:
        self.tokenizer, self.max_length, self.system = tokenizer, max_length, system
        self.has_plain_template = tokenizer.chat_template is None
        if self.has_plain_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        bos = tokenizer.bos_token_id
        # What every text began with that the model was trained on, and no prompt loses.
        self.start = [bos] if bos is not None and tokenizer("")["input_ids"][:1] == [bos] else []
        if self.has_plain_template and self.start:
            tokenizer.chat_template = "{{ bos_token }}" + PLAIN_TEMPLATE
        self.counts: Counter[str] = Counter()  # prompts_cut, answers_too_long, answers_empty
        self.first: dict[str, str] = {}  # where each was found first

    def encode(self, conversation: Conversation, id: str, split: str) -> Iterator[Example]:
        """An example for each answer that is not empty and fits.

        Raises:
            UserError: the chat template refuses the conversation.
        """
        messages, group = conversation.messages, beginning(conversation)
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        for place, message in enumerate(messages):
            if message["role"] != "assistant" or place == 0:
                continue
            if not message["content"].strip():
                self._count("answers_empty", conversation)
                continue
            try:
                prompt, answer = self._tokens(messages[:place], message)
            except TemplateError as error:
                raise UserError(
                    f"{conversation.place}: the tokenizer's chat template refuses it ({error}); set "
                    "data.system to null if it knows no system message, else mend the conversation or leave "
                    "it out"
                ) from None
            start = self.start if prompt[:1] == self.start else []
            if len(start + answer) >= self.max_length:
                self._count("answers_too_long", conversation)
                continue
            prompt = prompt[len(start) :]
            room = self.max_length - len(start + answer)
            if len(prompt) > room:
                self._count("prompts_cut", conversation)
            question = messages[place - 1]["content"]
            answered = message["content"].strip()
            yield Example(f"{id}-{place}", split, group, question, answered, start + prompt[-room:], answer)

    def _tokens(self, before: list[Message], answer: Message) -> tuple[list[int], list[int]]:
        content = answer["content"].strip()
        # Of a model that may think first, an answer without a thought follows a prompt that says so (Qwen3).
        for thinks in (False, True):
            prompt = self._text(before, enable_thinking=thinks, add_generation_prompt=True)
            whole = self._text([*before, {**answer, "content": content}], enable_thinking=thinks)
            if whole.startswith(prompt):
                rest = whole.removeprefix(prompt)
                break
        else:  # a template may treat the answer in a way of its own; it then is what it is, and ends
            rest = content
        end = self.tokenizer.eos_token_id
        tokens = self.tokenizer(rest, add_special_tokens=False)["input_ids"]
        if self.has_plain_template or end not in tokens:
            tokens = self.tokenizer(rest.rstrip(), add_special_tokens=False)["input_ids"] + [end]
        tokens = tokens[: tokens.index(end) + 1]
        return self.tokenizer(prompt, add_special_tokens=False)["input_ids"], tokens

    def _text(self, messages: list[Message], **options: Any) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **options))

    def _count(self, what: str, conversation: Conversation) -> None:
        self.counts[what] += 1
        self.first.setdefault(what, conversation.place)
