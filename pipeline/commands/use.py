"""`stochca use NAME` and `stochca presets`: a preset becomes params.yaml, and what that takes is said."""

from pathlib import Path

from pipeline.config.datasets import registered
from pipeline.config.params import PARAMS_FILE
from pipeline.config.presets import DEFAULT, FIRST_WORDS, find_preset, preset_names
from pipeline.config.sections import Protocol
from pipeline.runtime.files import replace_file
from stochca.errors import UserError


def use_preset(name: str | None) -> list[str]:
    """Write params.yaml as the preset has it; returns what there is to say, a line each.

    A params.yaml that no preset gives back is kept under another name.

    Raises:
        UserError: there is no such preset, or it breaks a rule. params.yaml is as before.
    """
    preset = find_preset(name)
    params = preset.params()
    lines = [f"{PARAMS_FILE} is now the preset {preset.name}: {preset.title}", f"  from: {preset.source}"]
    lines += [f"  note: {note}" for note in preset.notes]
    if kept := keep_edited():
        lines.append(f"  your own {PARAMS_FILE} is kept as {kept}")
    with replace_file(PARAMS_FILE) as temporary:
        temporary.write_text(preset.text)
    root = Path(params.dataset.root)
    facts = registered(params.dataset.name).facts
    if facts is not None:
        if not root.expanduser().is_dir():
            what = f"{facts.described}; put the archives, or what they hold, into {root}/"
            lines.append(f"  to download: {what}")
        lines.append(f"  license of the images: {facts.license}")
    return lines


def edited() -> bytes | None:
    """What is in a params.yaml that is not just as its preset wrote it."""
    if not PARAMS_FILE.exists():
        return None
    text = PARAMS_FILE.read_bytes()
    return None if text == _as_written(text.decode(errors="replace")).encode() else text


def keep_edited() -> Path | None:
    """Copy a params.yaml that was edited to a name that is free."""
    text = edited()
    if text is None:
        return None
    kept, number = PARAMS_FILE.with_name("params.previous.yaml"), 1
    while kept.exists() and kept.read_bytes() != text:
        number += 1
        kept = PARAMS_FILE.with_name(f"params.previous.{number}.yaml")
    with replace_file(kept) as temporary:
        temporary.write_bytes(text)
    return kept


def _as_written(text: str) -> str:
    """What the preset that a params.yaml names, or the default, gives now."""
    first = text.partition("\n")[0]
    name = first.removeprefix(FIRST_WORDS).partition(":")[0] if first.startswith(FIRST_WORDS) else DEFAULT
    try:
        return find_preset(name).text
    except UserError:
        return ""


def preset_table() -> list[str]:
    """Name, dataset, protocol, number of runs and title of every preset, a line each, under headings."""
    rows = [("name", "dataset", "protocol", "runs", "what")]
    for name in preset_names():
        preset = find_preset(name)
        values = preset.values
        protocol = Protocol.model_validate(values["protocol"])
        rows.append((name, str(values["dataset"]["name"]), protocol.name, str(protocol.runs), preset.title))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
