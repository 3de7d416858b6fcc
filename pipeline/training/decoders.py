"""The pre-tuned decoders that TOAST starts from, and whether they are for this backbone."""

import json
from pathlib import Path

from pipeline.runtime.files import sha256
from stochca.backbones.card import BackboneCard
from stochca.config import Method
from stochca.errors import UserError

DECODERS = "decoders.safetensors"
CARD = "card.json"


def decoders_sha256(method: Method, backbone: BackboneCard) -> str | None:
    """The sha256 of the file that the method's decoders are read from; None: it reads none.

    Raises:
        UserError: the file or its card is missing or damaged, or the decoders are for another backbone.
    """
    decoders = getattr(method.adapter, "decoders", None)
    if decoders is None:
        return None
    path = Path(decoders)
    try:
        card = json.loads((path.parent / CARD).read_text())
        found = sha256(path)
        expected, theirs = card["decoders_sha256"], card["backbone_sha256"]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; pre-tune decoders first: dvc repro pretune") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path.parent} is damaged ({error}); run: dvc repro --force pretune") from None
    if found != expected:
        raise UserError(
            f"{path} is not what {CARD} describes: its sha256 is {found}, not {expected}; run: dvc repro "
            "--force pretune"
        )
    if theirs != backbone.weights_sha256:
        raise UserError(
            f"{path} was pre-tuned for the backbone with the sha256 {theirs}, but that of data/backbone is "
            f"{backbone.weights_sha256}; run: dvc repro pretune"
        )
    return found
