"""What a stage that trains or answers begins with: the backbone, the examples, the machine."""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from examples.language.paths import BACKBONE, PREPARED
from examples.language.settings import digests_of_data
from examples.language.text.batches import read_examples
from examples.language.text.encoding import Example
from stochca.compute.devices import default_device
from stochca.compute.precision import resolve_precision


@dataclass(frozen=True)
class Inputs:
    """Loaded once for a stage."""

    model: Any  # of `transformers`, in single precision, on the CPU
    tokenizer: Any
    train: list[Example]
    test: list[Example]
    device: torch.device
    precision: str
    decides: dict[str, Any]  # of the weights that are trained from here


def load_inputs(precision: str) -> Inputs:
    """Raises `UserError` where the stage prepare has not run."""
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    train, test = (read_examples(PREPARED, split) for split in ("train", "test"))
    device = default_device()
    resolved = resolve_precision(precision, device)
    return Inputs(
        transformers.AutoModelForCausalLM.from_pretrained(BACKBONE, dtype=torch.float32),
        transformers.AutoTokenizer.from_pretrained(BACKBONE),
        train,
        test,
        device,
        resolved,
        {**digests_of_data(decoders=False), "device": device.type, "precision": resolved},
    )
