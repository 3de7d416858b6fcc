"""Champion against challenger: the alias `champion` only moves to a model that is better beyond noise."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipeline.config.params import Params
from pipeline.config.sections import Compare
from pipeline.images.prepared import Prepared, load_prepared
from pipeline.images.seen_images import FILE, read_seen, was_seen
from pipeline.registry.challenger import choose
from pipeline.registry.decision import AGAINST, Decision, conclude, record
from pipeline.registry.versions import (
    CHALLENGER,
    CHAMPION,
    ROLLED_BACK,
    can_be_registered,
    crown,
    register,
    version_called,
    version_of,
)
from pipeline.report.results import check_same_inputs, read_runs
from pipeline.report.statistics import paired_bootstrap
from pipeline.runtime.paths import BACKBONE
from pipeline.tracking.server import connect
from pipeline.training.registered_model import load_version, registry_errors
from pipeline.training.saved_model import TrainedModel
from stochca.backbones.card import CARD_FILE, BackboneCard
from stochca.compute.devices import default_device
from stochca.errors import UserError
from stochca.evaluation import predict

CARD = BACKBONE / CARD_FILE


@dataclass(frozen=True)
class Contender:
    """A registered version, its model, and the hashes of the images that it has seen."""

    version: ModelVersion
    model: TrainedModel
    seen: np.ndarray

    @property
    def title(self) -> str:
        tags = self.version.tags
        return f"version {self.version.version} ({tags.get('method', '?')}, seed {tags.get('seed', '?')})"


def promote(params: Params) -> Decision:
    """Register the challenger, compare it with the champion on today's test images, and move the alias.

    Running it again changes nothing more.

    Raises:
        UserError: runs are missing or not of one kind, MLflow can't be reached, or lacks a model.
    """
    connect(params.tracking.experiment)
    runs = read_runs(params.protocol)
    prepared = load_prepared()
    backbone = BackboneCard.from_file(CARD)
    check_same_inputs(params.protocol, runs, prepared.fingerprint, backbone.to_dict())
    run = choose(params, runs)
    client, name = MlflowClient(), params.promotion.model
    with registry_errors():
        version = register(client, name, run)
        champion = version_called(client, name, CHAMPION)
        if champion is not None and str(champion.version) == str(version.version):
            return Decision(False, f"version {version.version} is the champion already; nothing to do")
        client.set_registered_model_alias(name, CHALLENGER, version.version)
        decision = decide(
            _contender(client, version),
            None if champion is None else _contender(client, champion),
            prepared,
            params.compare,
        )
        record(client, version, decision)
        if decision.promoted:
            crown(client, name, str(version.version))
        conclude(client, version, decision, champion)  # last: what is concluded is not decided again
    return decision


def is_decided(params: Params) -> bool:
    """Whether there is a champion, and no model that could challenge it but has not yet.

    Raises:
        UserError: runs are missing, or MLflow can't be reached.
    """
    connect(params.tracking.experiment)
    client, name = MlflowClient(), params.promotion.model
    with registry_errors():
        champion = version_called(client, name, CHAMPION)
    if champion is None:
        return False
    runs = read_runs(params.protocol)
    try:
        run = choose(params, runs)
    except UserError:  # none of what params.yaml trains can
        return True
    with registry_errors():
        version = version_of(client, name, run.description["mlflow_run_id"])
        if version is None:
            return not can_be_registered(client, run)
    return str(champion.version) in (str(version.version), version.tags.get(AGAINST))


def decide(
    challenger: Contender, champion: Contender | None, prepared: Prepared, compare: Compare
) -> Decision:
    """Whether the challenger should be the champion.

    Both classify the test images, each with its own preprocessing; classes are the same if their names
    are. Images that either of them was trained or selected on are left out.
    """
    if champion is None:
        return Decision(True, f"{challenger.title} is the first model: it is the champion")
    if ROLLED_BACK in challenger.version.tags:
        return Decision(
            False,
            f"{challenger.title} was rolled back; {champion.title} stays the champion until another model is "
            f"better or you say: stochca rollback --to {challenger.version.version}",
        )
    if challenger.model.card["weights_sha256"] == champion.model.card["weights_sha256"]:
        return Decision(
            False, f"{challenger.title} has the weights of the champion, {champion.title}; nothing to do"
        )
    test = prepared.images("test")
    fair = ~(was_seen(test, champion.seen) | was_seen(test, challenger.seen))
    left_out = f"; {(~fair).sum()} that a model had seen in training or validation were left out"
    if fair.all():
        left_out = ""
    if not fair.any():
        return Decision(
            False,
            f"{challenger.title} can't be compared with the champion, {champion.title}: no test image is left"
            f"{left_out}",
        )
    difference = paired_bootstrap(
        [_correct(challenger.model, prepared)[fair]],
        [_correct(champion.model, prepared)[fair]],
        samples=compare.bootstrap_samples,
        confidence=compare.confidence,
    )
    promoted = difference.low > 0
    verdict = {"within the noise": "not better beyond the noise"}.get(difference.verdict, difference.verdict)
    low, mean, high = (f"{100 * share:+.1f}" for share in (difference.low, difference.mean, difference.high))
    return Decision(
        promoted,
        f"{challenger.title} is {verdict} than the champion, {champion.title}: {mean} points of test "
        f"accuracy ({100 * compare.confidence:g} % interval {low} to {high}) on {fair.sum()} images"
        f"{left_out}; {'it is the new champion' if promoted else 'the champion stays'}",
        difference=difference,
        test_images=int(fair.sum()),
        left_out=int((~fair).sum()),
        champion=str(champion.version.version),
        challenger=str(challenger.version.version),
    )


def _correct(model: TrainedModel, prepared: Prepared) -> np.ndarray:
    """Which test images a model gets right, by the names of the classes: bool (N,)."""
    device = default_device()
    logits, labels = predict(
        model.model.to(device), prepared.images("test"), model.preprocessing, device=device
    )
    names = np.array(model.classes, object)[logits.argmax(dim=1).numpy()]
    return names == np.array(prepared.classes, object)[labels.numpy()]


def _contender(client: MlflowClient, version: ModelVersion) -> Contender:
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = client.download_artifacts(version.run_id, f"results/{FILE}", folder)
        except (MlflowException, OSError):
            raise UserError(
                f"the run {version.run_id} of version {version.version} of {version.name} has no "
                f"results/{FILE}, so that no one knows which test images it has seen; train it again, or "
                "choose another champion: stochca rollback --to VERSION"
            ) from None
        seen = read_seen(Path(file))
    return Contender(version, load_version(version), seen)
