"""TOAST and StochCA for decoder-only language models of `transformers` that share LLaMA's layout."""

from importlib.util import find_spec

from stochca.errors import UserError

if find_spec("transformers") is None:
    raise UserError(
        "stochca.language needs the package transformers; install it with: pip install 'stochca[language]'"
    )

from stochca.language.stochca import StochCA
from stochca.language.toast import TOAST

__all__ = ["TOAST", "StochCA"]
