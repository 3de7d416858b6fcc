"""The files of a TOAST: its adapter, and the pre-tuned decoders that others start from.

Each says which model it was made for. A file is written under another name first, so that none is there by
half.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stochca.compute.checkpoint import save_weights
from stochca.errors import UserError, one_line
from stochca.language.identity import check_identity, identity_of
from stochca.language.support import LanguageModel

TENSORS, CARD = "adapter.safetensors", "adapter.json"
MADE_FOR = "made_for"  # the key of the safetensors file's metadata, and of the card


def write_tensors(path: Path, tensors: dict[str, Tensor], made_for: dict[str, Any]) -> None:
    """Write a safetensors file that knows the model it was made for, as `identity_of` describes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, tensors, {MADE_FOR: json.dumps(made_for)})


def read_tensors(path: Path, model: LanguageModel, advice: str) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote for this model.

    Raises:
        UserError: the file is missing, damaged or made for another model; the sentence ends with `advice`.
    """
    try:
        with safe_open(path, framework="pt") as file:
            made_for = json.loads((file.metadata() or {})[MADE_FOR])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {advice}") from None
    except KeyError:
        raise UserError(f"{path} does not say which model it was made for; {advice}") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} can't be read ({one_line(error)}); {advice}") from None
    check_identity(made_for, model, str(path))
    return tensors


def write_adapter(
    folder: Path, tensors: dict[str, Tensor], options: dict[str, Any], model: LanguageModel
) -> None:
    """Write the folder of an adapter; `options` make the same one around another copy of the model."""
    made_for = identity_of(model)
    write_tensors(folder / TENSORS, tensors, made_for)
    partial = folder / f"{CARD}.partial"
    partial.write_text(json.dumps({**options, MADE_FOR: made_for}, indent=2) + "\n")
    partial.replace(folder / CARD)


def read_adapter(folder: Path, model: LanguageModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and options that `write_adapter` was given.

    Raises:
        UserError: the folder is incomplete or damaged, or was made for another model.
    """
    advice = "save the adapter again, with save_pretrained"
    card = folder / CARD
    try:
        options = json.loads(card.read_text())
        del options[MADE_FOR]
    except FileNotFoundError:
        raise UserError(f"{card} is missing, without which {folder} is no adapter; {advice}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{card} describes no adapter ({one_line(error)}); {advice}") from None
    return read_tensors(folder / TENSORS, model, advice), options
