"""What was decided about a challenger, in words and numbers, and where that is written down."""

from dataclasses import dataclass

from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from pipeline.report.statistics import Difference

HEADING = "## Promotion"
# The tags of a version that was decided about: how, why, and beside which champion.
OUTCOME, REASON, AGAINST = "promotion", "promotion_reason", "promotion_against"


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


def record(client: MlflowClient, version: ModelVersion, decision: Decision) -> None:
    """Write a decision to the challenger's run, and why to its version; an earlier one is replaced."""
    outcome = {OUTCOME: _outcome(decision), REASON: decision.reason}
    note = client.get_run(version.run_id).data.tags.get(MLFLOW_RUN_NOTE, "").partition(HEADING)[0].rstrip()
    for key, value in {**outcome, MLFLOW_RUN_NOTE: f"{note}\n\n{decision.markdown}".lstrip()}.items():
        client.set_tag(version.run_id, key, value)
    if decision.difference is not None:
        for key, number in (
            ("promotion_difference", decision.difference.mean),
            ("promotion_low", decision.difference.low),
            ("promotion_high", decision.difference.high),
        ):
            client.log_metric(version.run_id, key, number)
    client.update_model_version(version.name, version.version, decision.reason)
    client.set_model_version_tag(version.name, version.version, REASON, decision.reason)


def conclude(
    client: MlflowClient, version: ModelVersion, decision: Decision, champion: ModelVersion | None
) -> None:
    """Mark the challenger as decided about beside this champion, once all that follows has been done."""
    against = "none" if champion is None else str(champion.version)
    for key, value in {OUTCOME: _outcome(decision), AGAINST: against}.items():
        client.set_model_version_tag(version.name, version.version, key, value)


def _outcome(decision: Decision) -> str:
    return "promoted" if decision.promoted else "refused"
