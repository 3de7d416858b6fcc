"""The example in a folder of its own, with a tiny model and conversations of words."""

from pathlib import Path
from typing import Any

import yaml

from examples.language.paths import HERE
from tests.examples.language.tiny import save_backbone, write_conversations
from tests.imports import ROOT

STEPS = 12


def params() -> dict[str, Any]:
    """The example's own, made tiny."""
    raw: dict[str, Any] = yaml.safe_load((ROOT / HERE / "params.yaml").read_text())
    raw["backbone"].update(model="folder:tiny", sha256=None)
    raw["data"].update(source="jsonl", sha256=None, system=None, root="conversations", test=0.25)
    raw["training"].update(steps=STEPS, checkpoints=3, precision="fp32")
    raw["methods"]["lora"].update(rank=2)
    raw["compare"].update(answers=8, generated=4, new_tokens=4)
    raw["pretune"].update(steps=4)
    return raw


def make_workspace(folder: Path, raw: dict[str, Any] | None = None) -> Path:
    """Write what the stages start from into `folder`, an empty one."""
    save_backbone(folder / "tiny")
    write_conversations(folder / "conversations")
    write_params(folder, raw or params())
    return folder


def write_params(folder: Path, raw: dict[str, Any]) -> None:
    (folder / HERE).mkdir(parents=True, exist_ok=True)
    (folder / HERE / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
