"""Stage `prepare`: conversations, split and as tokens, in data/prepared/; with what was cut and left out."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from examples.language.paths import BACKBONE, EXAMPLES, HERE, MANIFEST, PREPARED
from examples.language.settings import Data, Settings, load_settings, settings_kept
from examples.language.text.conversations import Corpus, read_corpus, read_json_lines
from examples.language.text.encoding import Encoder
from examples.language.text.splitting import held_out, without_repeats
from pipeline.runtime.boundary import run
from pipeline.runtime.exclusive import exclusive
from pipeline.runtime.files import replace_folder, sha256, write_json, write_text
from pipeline.runtime.paths import CODE
from pipeline.runtime.wheels import fetch_wheel
from stochca.errors import UserError

SAID = {
    "prompts_cut": "were longer than data.max_length, and lost the beginning of their prompt",
    "answers_too_long": "had an answer that alone is longer than data.max_length, and were left out",
    "answers_empty": "had an empty answer, and were left out",
}


def prepare(settings: Data, tokenizer: Any, target: Path) -> dict[str, Any]:
    """Write the folder `target`, all or nothing; returns its manifest.

    Raises:
        UserError: the conversations can't be had or read, or nothing is left to train on or to hold out.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer has no token that ends an answer (eos_token); take a model whose tokenizer has one"
        )
    corpus = _read(settings)
    conversations = without_repeats(corpus.conversations)
    notes = list(corpus.notes)
    if repeats := len(corpus.conversations) - len(conversations):
        notes.append(
            f"{repeats:,} of {len(corpus.conversations):,} conversations were repeats of others, and left out"
        )
    tests = held_out(conversations, settings.test, settings.split_seed)
    encoder = Encoder(tokenizer, settings.max_length, settings.system)
    if encoder.has_plain_template:
        notes.append("the tokenizer has no chat template; a plain one is used (User: ... Assistant: ...)")
    examples = [
        example
        for number, (conversation, is_test) in enumerate(zip(conversations, tests, strict=True))
        for example in encoder.encode(conversation, f"{number:06}", "test" if is_test else "train")
    ]
    for what, count in encoder.counts.items():
        notes.append(f"{count:,} examples {SAID[what]}, the first of them {encoder.first[what]}")
    splits = Counter(example.split for example in examples)
    for split in ("train", "test"):
        if not splits[split]:
            raise UserError(f"no answer is left in the split {split}: {'; '.join(notes) or 'there was none'}")
    with replace_folder(target) as folder:
        lines = (json.dumps(example.to_dict(), ensure_ascii=False) for example in examples)
        write_text(folder / EXAMPLES, "\n".join(lines) + "\n")
        manifest = {
            "source": settings.source if settings.source != "jsonl" else f"jsonl:{settings.root}",
            "license": corpus.license,
            "conversations": len(conversations),
            "examples": {split: splits[split] for split in ("train", "test")},
            "answer_tokens": {
                split: sum(len(each.answer_tokens) for each in examples if each.split == split)
                for split in ("train", "test")
            },
            "counts": {what: encoder.counts[what] for what in SAID},
            "notes": notes,
            "fingerprint": sha256(folder / EXAMPLES),
        }
        write_json(folder / MANIFEST, manifest)
    return manifest


def _read(settings: Data) -> Corpus:
    if settings.source == "jsonl":
        return read_json_lines(Path(settings.root))
    requirement = settings.source.removeprefix("wheel:")
    elsewhere = f"set data.source to jsonl, and put conversations into {settings.root}"
    wheel = fetch_wheel(requirement, settings.sha256, pinned_by="data.sha256", elsewhere=elsewhere, log=log)
    return read_corpus(wheel, settings.language)


def log(line: str) -> None:
    """A line about the progress of the stage."""
    print(f"prepare: {line}", flush=True)


def main() -> None:
    settings = load_settings()

    def view(all_settings: Settings) -> Data:
        return all_settings.data

    from transformers import AutoTokenizer

    import stochca  # noqa: F401  # before transformers, which it lets import torchvision

    files = (CODE / HERE / "prepare.py", CODE / HERE / "text", Path(settings.data.root))
    with exclusive("language-prepare"), settings_kept(settings, view, "the stage prepare", *files):
        manifest = prepare(settings.data, AutoTokenizer.from_pretrained(BACKBONE), PREPARED)
        for note in manifest["notes"]:
            log(note)
        train, test = (manifest["examples"][split] for split in ("train", "test"))
        log(f"{train:,} answers to learn from and {test:,} held out, in {PREPARED}")


if __name__ == "__main__":
    run(main)
