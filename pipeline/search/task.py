"""What every trial of a search is asked to do, and the name that the search is found again by."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import Params
from pipeline.config.sections import Tune
from pipeline.runtime.paths import SEARCHES as WORK
from pipeline.search.data import BACKBONE, TrialData
from pipeline.search.space import Values, prob_of
from pipeline.training.digests import code_sha256, digest_of
from stochca.config import Method, StochasticCrossAttention
from stochca.config.training import Training

if TYPE_CHECKING:
    from stochca.backbones.card import BackboneCard

WHERE_AND_HOW_MANY = {"address", "resources", "concurrent", "max_failures"}  # as in dvc.yaml: no other result


@dataclass(frozen=True)
class Task:
    """What all trials of a search share."""

    tune: Tune
    training: Training
    data: TrialData
    card: "BackboneCard"
    protocol: str
    target: str
    name: str  # of the search: a hash of all that decides it

    @property
    def folder(self) -> Path:
        """Where the search keeps its state until it is done; absolute, as Ray wants it."""
        return self.data.project / WORK / self.name

    @property
    def rungs(self) -> list[int]:
        """The steps after which trials are compared; the last is the end of training."""
        rungs, step = [], self.tune.grace_steps
        while step < self.training.steps:
            rungs.append(step)
            step *= self.tune.reduction
        return [*rungs, self.training.steps]

    def method(self, values: Values) -> Method:
        return dataclasses.replace(self.tune.method, attention=StochasticCrossAttention(prob=prob_of(values)))

    def settings(self, values: Values) -> Training:
        """Training settings of a trial: checkpoints and evaluations fall on the rungs."""
        grace, every = self.tune.grace_steps, self.training.eval_every
        return dataclasses.replace(
            self.training,
            checkpoint_every=grace,
            eval_every=every if grace % every == 0 else grace,
            workers=_workers(self.training, self.tune.resources.cpu),
            lr=values.get("lr", self.training.lr),
        )


def _workers(training: Training, cpus: float) -> int:
    """Loader processes within the trial's share of the machine."""
    if training.workers != "auto":
        return int(training.workers)
    return 0 if cpus <= 2 else min(8, int(cpus) - 1)


def decided_by(params: Params) -> dict[str, Any]:
    """What of params.yaml decides the search's result.

    With trials side by side the sampler learns in the order in which they end, whatever the settings.
    """
    return {
        "tune": params.tune.model_dump(exclude=WHERE_AND_HOW_MANY),
        "training": dataclasses.asdict(params.training_with(params.tune.training)),
        "images": [params.protocol.name, params.search_target],
    }


def plan(params: Params) -> Task:
    """The search that params.yaml asks for, on the data that is there.

    Raises:
        UserError: the backbone or the prepared images are missing or damaged.
    """
    from pipeline.images.prepared import load_prepared
    from pipeline.images.protocol import images_of_trials
    from stochca.backbones.card import CARD_FILE, BackboneCard

    card = BackboneCard.from_file(BACKBONE / CARD_FILE)
    prepared = load_prepared()
    fingerprint = prepared.fingerprint
    protocol, target = params.protocol.name, params.search_target
    images_of_trials(prepared, protocol, target, params.tune.seeds)  # finds what is wrong before Ray starts
    training = params.training_with(params.tune.training)
    decides = {
        **decided_by(params),
        "gpu": params.tune.resources.gpu > 0,  # a search keeps to one device, and so to one precision
        "backbone": card.to_dict(),
        "dataset": fingerprint,
        "code": code_sha256("tune"),
    }
    data = TrialData.of(Path.cwd(), card, fingerprint)
    return Task(params.tune, training, data, card, protocol, target, digest_of(decides))
