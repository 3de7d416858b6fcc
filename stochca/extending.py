"""Everything that a part of your own needs, from one place (docs/extending.md walks through examples)."""

from stochca._typing import TimmModule as TimmModule
from stochca.adapters.adaptation import Adaptation as Adaptation
from stochca.adapters.adapted import AdaptedModel as AdaptedModel
from stochca.adapters.adapted import Around as Around
from stochca.averaging.averaging import Averaging as Averaging
from stochca.averaging.averaging import Evaluate as Evaluate
from stochca.averaging.averaging import Weights as Weights
from stochca.compute.checkpoint import cloned as cloned
from stochca.config import Adapter as Adapter
from stochca.config import Average as Average
from stochca.config import Penalty as Penalty
from stochca.config import Phases as Phases
from stochca.config import register as register
from stochca.config.training import Training as Training
from stochca.config.training import require as require
from stochca.data.examples import Examples as Examples
from stochca.errors import UserError as UserError
from stochca.penalties.term import Batch as Batch
from stochca.penalties.term import Start as Start
from stochca.penalties.term import Term as Term
from stochca.phases.first_phase import FirstPhase as FirstPhase
from stochca.timm_models.families import head_modules as head_modules
