"""The words that ROUGE-L compares, in any language; `rouge_score` itself knows those of a-z alone."""

from unicodedata import normalize

import regex
from rouge_score.tokenizers import DefaultTokenizer

# A letter with its marks is a word, for these scripts have no spaces between theirs.
LETTERS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*")
WORDS = regex.compile(r"(?:[\p{L}\p{N}]\p{M}*)+")


class Words:
    """A tokenizer of `rouge_score`: ASCII words become its own English stems, others stay."""

    def __init__(self) -> None:
        self.english = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        spaced = LETTERS.sub(r" \g<0> ", normalize("NFC", text.casefold()))
        return [
            token
            for word in WORDS.findall(spaced)
            for token in (self.english.tokenize(word) if word.isascii() else [word])
        ]
