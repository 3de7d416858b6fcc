"""Champion against challenger: the alias `champion` only moves to a model that is better beyond noise."""

from dataclasses import dataclass

import numpy as np
from mlflow.entities.model_registry import ModelVersion

from pipeline.config.sections import Compare
from pipeline.images.prepared import Prepared
from pipeline.images.seen_images import was_seen
from pipeline.registry.versions import ROLLED_BACK
from pipeline.report.intervals import Difference, paired_bootstrap
from pipeline.training.saved_model import TrainedModel
from stochca.compute.devices import default_device
from stochca.evaluation import predict

HEADING = "## Promotion"


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


@dataclass(frozen=True)
class Decision:
    """Whether a challenger became the champion, and why."""

    promoted: bool
    reason: str  # a sentence
    difference: Difference | None = None  # of test accuracy to the champion; None: not compared
    test_images: int = 0  # that both classified
    left_out: int = 0  # test images that one of them had been trained or selected on
    champion: str | None = None  # versions
    challenger: str | None = None

    @property
    def outcome(self) -> str:
        return "promoted" if self.promoted else "refused"

    @property
    def markdown(self) -> str:
        """The sentence, under it the numbers as a table."""
        lines = [HEADING, "", f"**{'Promoted' if self.promoted else 'Not promoted'}**: {self.reason}."]
        if self.difference is not None:
            lines += [
                "",
                "| challenger | champion | difference | low | high | p | test images | left out |",
                "|---|---|---|---|---|---|---|---|",
                f"| version {self.challenger} | version {self.champion} | {self.difference.mean:+.4f} "
                f"| {self.difference.low:+.4f} | {self.difference.high:+.4f} | {self.difference.p_value:.4f} "
                f"| {self.test_images} | {self.left_out} |",
            ]
        return "\n".join(lines)


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
        [([_correct(challenger.model, prepared)[fair]], [_correct(champion.model, prepared)[fair]])],
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
