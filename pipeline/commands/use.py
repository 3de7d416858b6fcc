"""`stochca use NAME`: a preset becomes params.yaml, and what that takes and costs is said."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from pipeline.commands.cost import Cost, Speed, cost_of, search_seconds
from pipeline.config.datasets import registered
from pipeline.config.params import PARAMS_FILE, Params
from pipeline.config.presets import DEFAULT, FIRST_WORDS, Preset, find_preset, preset_names
from pipeline.config.sections import Protocol
from pipeline.runtime.files import replace_file
from stochca.errors import UserError


def use_preset(name: str | None) -> tuple[Preset, list[str]]:
    """Write params.yaml as the preset has it; returns the preset, and what there is to say, a line each.

    A params.yaml that no preset gives back is kept under another name.

    Raises:
        UserError: there is no such preset, or it breaks a rule. params.yaml is as before.
    """
    preset = find_preset(name)
    params = preset.params()
    lines = [f"{PARAMS_FILE} is now the preset {preset.name}: {preset.title}", f"  from: {preset.source}"]
    lines += [f"  note: {note}" for note in preset.notes]
    if kept := _keep_edited():
        lines.append(f"  your own {PARAMS_FILE} is kept as {kept}")
    with replace_file(PARAMS_FILE) as temporary:
        temporary.write_text(preset.text)
    root = Path(params.dataset.root)
    facts = registered(params.dataset.name).facts
    if facts is not None and not root.expanduser().is_dir():
        lines.append(f"  to download: {facts.described}; put the archives, or what they hold, into {root}/")
        lines.append(f"  license: {facts.license}")
    return preset, lines


def _keep_edited() -> Path | None:
    """Copy a params.yaml that is not just as its preset wrote it, to a name that is free."""
    if not PARAMS_FILE.exists():
        return None
    text = PARAMS_FILE.read_bytes()
    if text == _as_written(text.decode(errors="replace")).encode():
        return None
    for kept in _free_names():
        if not kept.exists():
            with replace_file(kept) as temporary:
                temporary.write_bytes(text)
            return kept
        if kept.read_bytes() == text:
            return kept
    raise AssertionError("names never end")


def _as_written(text: str) -> str:
    """What the preset that a params.yaml names, or the default, gives now."""
    first = text.partition("\n")[0]
    name = first.removeprefix(FIRST_WORDS).partition(":")[0] if first.startswith(FIRST_WORDS) else DEFAULT
    try:
        return find_preset(name).text
    except UserError:
        return ""


def _free_names() -> Iterator[Path]:
    yield PARAMS_FILE.with_name("params.previous.yaml")
    for number in itertools.count(2):
        yield PARAMS_FILE.with_name(f"params.previous.{number}.yaml")


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


def cost_lines(params: Params, speed: Speed) -> list[str]:
    """What the params will cost on this machine, a line each."""
    protocol = params.protocol
    cost = cost_of(params, speed)
    return [
        f"{cost.runs:,} runs: {_count(len(protocol.methods), 'method')} x "
        f"{_count(len(protocol.targets), 'target')} x {_count(len(protocol.seeds), 'seed')}",
        f"{cost.training_images:,} training images; {_looks(cost)}",
        f"about {hours(cost.seconds)} on {speed.device} ({speed.precision}), measured "
        f"{speed.images_per_second:.3g} training images/s with plain fine-tuning",
        f"the search before it, if you run `make tune`: at most {hours(search_seconds(params, speed))} more",
    ]


def _looks(cost: Cost) -> str:
    evaluations = f"{cost.evaluations:,} evaluations on validation images"
    if cost.evaluated_images is None:
        return f"{evaluations}, whose number is not known yet and is left out of the time below"
    return f"{evaluations}, {cost.evaluated_images:,} images in these, the tests and linear probes"


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def hours(seconds: float) -> str:
    """``25 minutes``, ``3.4 hours``, ``1,200 hours``."""
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} minutes"
    return f"{seconds / 3600:.1f} hours" if seconds < 36_000 else f"{seconds / 3600:,.0f} hours"
