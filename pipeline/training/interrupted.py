"""Why a training, a pre-tuning or a search does not go on where another of its name has come to."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.runtime.exclusive import Held
from pipeline.runtime.files import write_text
from pipeline.tracking.labels import flatten
from pipeline.tracking.run_folder import RUN, RunFolder, held
from stochca.compute.checkpoint import CHECKPOINT

DECIDES = "decides.json"
SAID = {
    "code": "the code",
    "dataset": "the images",
    "classes": "the classes",
    "backbone": "the backbone",
    "teacher": "the teacher",
    "examples": "the examples",  # of text
    "decoders": "the decoders",
    "num_workers": "workers.num_workers",
}
SPEED = ("training.workers", "num_workers", "device")  # tags of a run: what it is only faster or slower with


def why_anew(folder: Path, decides: Mapping[str, Any], mark: str = CHECKPOINT) -> str | None:
    """What has changed since one of this name was interrupted, where that is why it starts over.

    What decides is written into `folder`, for the next to compare itself with.

    Args:
        folder: the run's, which is named after its training and a digest of `decides`, or after that alone.
        decides: all that decides the result.
        mark: the file that is there, or the files by a pattern, where one has begun.
    """
    goes_on = any(folder.glob(mark))
    write_text(folder / DECIDES, json.dumps(decides, sort_keys=True))
    if goes_on:
        return None
    name, dash, _ = folder.name.rpartition("-")
    name += dash
    others = [
        other / DECIDES
        for other in folder.parent.glob(f"{name}*")
        if re.fullmatch(r"[0-9a-f]{16}", other.name.removeprefix(name))
        and other != folder
        and any(other.glob(mark))
        and not RunFolder(other).has_finished
        and (other / DECIDES).exists()
    ]
    if not others:
        return None
    last = max(others, key=lambda path: path.stat().st_mtime)
    try:
        before = json.loads(last.read_text(encoding="utf-8"))
    except json.JSONDecodeError:  # a power cut has left nothing of it
        return None
    changed = _differences(before, json.loads(json.dumps(decides)))
    return f"starts over: since it was interrupted, {', '.join(changed)} changed" if changed else None


def why_timed_anew(folder: Path, tags: Mapping[str, str]) -> str | None:
    """What the speed depends on has changed since the run of `folder` finished, where that is so.

    Its checkpoint is removed then: its seconds would stand beside settings that they were not measured with.

    Args:
        tags: those that the run would have now, of which some may be known only later.
    """
    run = RunFolder(folder)
    if not (run.has_finished and run.goes_on_from):
        return None
    before = run.read(RUN)["tags"]
    changed = [_said(name) for name in SPEED if name in tags and before.get(name, tags[name]) != tags[name]]
    if not changed:
        return None
    with suppress(Held), held(folder):  # else its process has not ended yet
        run.discard_rest()
    return f"had finished before, and starts over to be timed: since then, {', '.join(changed)} changed"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = flatten(before), flatten(now)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return sorted({_said(name) for name in names})


def _said(name: str) -> str:
    section, _, rest = name.partition(".")
    return f"the version of {rest}" if section == "versions" else SAID.get(section, name)
