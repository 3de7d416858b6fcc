"""What every trial of a search is asked to do, and the name that the search is found again by."""

import dataclasses
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.params import Params
from pipeline.config.sections import Resources, Tune
from pipeline.runtime.paths import SEARCHES as WORK
from pipeline.search.data import BACKBONE, TrialData
from pipeline.search.space import Values, prob_of
from pipeline.training.digests import code_sha256, digest_of, versions
from stochca.config import Method
from stochca.config.selection import SELECTIONS, Metric, Selection
from stochca.config.timetable import Timetable
from stochca.config.training import Training, deciding_settings

if TYPE_CHECKING:
    import torch

    from stochca.backbones.card import BackboneCard

WHERE_AND_HOW_MANY = {"address", "resources", "concurrent", "max_failures"}  # as in dvc.yaml: no other result


@dataclass(frozen=True)
class Task:
    """What all trials of a search share."""

    tune: Tune
    training: Training
    timetable: Timetable  # of every trial
    data: TrialData
    card: "BackboneCard"
    protocol: str
    target: str
    selection: Selection  # the metric that is searched by
    decides: dict[str, Any]  # all that the result depends on

    @property
    def name(self) -> str:
        """Of the search: a hash of all that decides it."""
        return digest_of(self.decides)

    @property
    def folder(self) -> Path:
        """Where the search keeps its state until it is done; absolute, as Ray wants it."""
        return self.data.project / WORK / self.name

    @property
    def metric(self) -> Metric:
        return SELECTIONS[self.selection]

    @property
    def measured(self) -> str:
        """What the metric is called where it is written down."""
        return f"validation_{self.selection}"

    @property
    def grace(self) -> int:
        """How many evaluations every trial gets before it may be stopped: up to its share of the steps."""
        return self.evaluations(round(self.tune.grace * self.timetable.steps))

    @property
    def rungs(self) -> list[int]:
        """The steps after which trials are compared, evaluations all; the last is the end of training."""
        rungs, number = [], self.grace
        while number < len(self.timetable.evaluations):
            rungs.append(self.timetable.evaluations[number - 1])
            number *= self.tune.reduction
        return [*rungs, self.timetable.steps]

    def evaluations(self, step: int) -> int:
        """How many there are until the first that is not before `step`, with that one."""
        return bisect_left(self.timetable.evaluations, step) + 1

    def method(self, values: Values) -> Method:
        return self.tune.with_prob(prob_of(values))

    def settings(self, values: Values) -> Training:
        """Training settings of a trial, whose checkpoints fall on the rungs."""
        return dataclasses.replace(
            self.training,
            epochs=None,
            steps=self.timetable.steps,  # the same for all seeds, whose splits may differ by an image
            checkpoints=self.training.evaluations,
            workers=loaders_of_trials(self.training, self.tune.resources),
            lr=values.get("lr", self.training.lr),
        )


def device_of_trials(resources: Resources) -> "torch.device":
    """What a trial with these resources computes on; with gpu: 0 Ray leaves the GPUs visible."""
    import torch

    from stochca.compute.devices import default_device

    return default_device() if resources.gpu else torch.device("cpu")


def threads_of_trials(resources: Resources) -> int:
    """Threads that a trial computes with."""
    return max(1, int(resources.cpu))


def loaders_of_trials(training: Training, resources: Resources) -> int:
    """Loader processes within the trial's share of the machine."""
    if training.workers != "auto":
        return int(training.workers)
    return 0 if resources.cpu <= 2 else min(8, int(resources.cpu) - 1)


def decided_by(params: Params) -> dict[str, Any]:
    """What of params.yaml decides the search's result.

    With trials side by side the sampler learns in the order in which they end, whatever the settings.
    """
    return {
        "extensions": params.extensions,
        "tune": params.tune.model_dump(exclude=WHERE_AND_HOW_MANY),
        "training": deciding_settings(params.training_with(params.tune.training)),
        "images": [params.protocol.name, params.search_target],
        "selection": params.protocol.selection,
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
    # Finds what is wrong before Ray starts.
    trials = images_of_trials(prepared, protocol, target, params.tune.seeds)
    for images in trials.values():
        images.check(prepared.classes, params.protocol.selection)
    training = params.training_with(params.tune.training)
    timetable = training.timetable(len(trials[params.tune.seeds[0]].train))
    decides = {
        **decided_by(params),
        # However it was written.
        "tune": params.tune.model_dump(exclude=WHERE_AND_HOW_MANY | {"training"}),
        "training": deciding_settings(training, timetable),
        "gpu": params.tune.resources.gpu > 0,  # a search keeps to one device, and so to one precision
        "backbone": card.to_dict(),
        "dataset": fingerprint,
        "classes": prepared.classes,
        "code": code_sha256("tune"),
        "versions": versions("ray", "optuna"),
    }
    data = TrialData.of(Path.cwd(), card, fingerprint)
    selection = params.protocol.selection
    return Task(params.tune, training, timetable, data, card, protocol, target, selection, decides)
