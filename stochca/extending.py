"""Everything that a part of your own needs, from one place (docs/extending.md walks through examples)."""

from stochca._typing import TimmModule
from stochca.adapters.adaptation import Adaptation, head_modules
from stochca.adapters.adapted import AdaptedModel, Around
from stochca.averaging.averaging import Averaging, Evaluate, Weights
from stochca.compute.checkpoint import cloned
from stochca.config import Adapter, Average, Penalty, Phases, register
from stochca.config.training import require
from stochca.data.examples import Examples
from stochca.errors import UserError
from stochca.penalties.term import Batch, Start, Term
from stochca.phases.first_phase import FirstPhase

__all__ = [
    "Adaptation",
    "AdaptedModel",
    "Adapter",
    "Around",
    "Average",
    "Averaging",
    "Batch",
    "Evaluate",
    "Examples",
    "FirstPhase",
    "Penalty",
    "Phases",
    "Start",
    "Term",
    "TimmModule",
    "UserError",
    "Weights",
    "cloned",
    "head_modules",
    "register",
    "require",
]
