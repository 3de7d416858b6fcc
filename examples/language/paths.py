"""Where everything lies, seen from the project's folder; dvc.yaml names the same places."""

from pathlib import Path

HERE = Path("examples/language")
PARAMS_FILE = HERE / "params.yaml"

BACKBONE = HERE / "data" / "backbone"
PREPARED = HERE / "data" / "prepared"
PRETUNED = HERE / "data" / "pretuned"
MODELS = HERE / "models"
RESULTS = HERE / "results"
REPORTS = HERE / "reports"

CARD = "card.json"  # of the backbone: where it came from
EXAMPLES = "examples.jsonl"  # prompts and answers as tokens
MANIFEST = "manifest.json"  # what was read, cut and left out
DECODERS = "decoders.safetensors"
OUTCOME = "outcome.json"  # of a run: its numbers and its answers
