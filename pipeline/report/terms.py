"""What the papers call things under each protocol, and which error they print."""

from dataclasses import dataclass

from pipeline.report.intervals import Spread


@dataclass(frozen=True)
class Selection:
    """How the weights whose accuracy is told were chosen."""

    metric: str  # the key in a run's metrics
    name: str
    remark: str = ""  # what keeps it from being compared, if anything

    @property
    def title(self) -> str:
        return f"{self.name} ({self.remark})" if self.remark else self.name


@dataclass(frozen=True)
class Terms:
    """The words of one protocol."""

    target: str  # one column of its table
    targets: str
    selections: tuple[Selection, ...]  # the first one counts
    trial: str = "seed"  # what is repeated
    error: str = "standard deviation"  # what stands behind ±
    unit: str = ""  # behind the name of a target

    @property
    def trials(self) -> str:
        return f"{self.trial}s"

    def error_of(self, spread: Spread) -> float | None:
        """None where nothing was repeated."""
        return spread.standard_error if self.error == "standard error" else spread.std

    def title_of(self, target: str) -> str:
        """``15 %`` for a share of the training images; a domain is its own title."""
        return f"{target}{self.unit}"

    def repeats(self, count: int) -> str:
        """``3 trials``."""
        return f"{count} {self.trial if count == 1 else self.trials}"


def terms_of(protocol: str, metric: str, *, refit: bool = False) -> Terms:
    """The words for `protocol.name` and `protocol.selection`.

    With `refit` the weights are those of the last step.
    """
    if protocol == "leave_one_domain_out":
        selections = (
            Selection(f"test_{metric}", "training-domain validation"),
            Selection(f"test_{metric}_oracle", "oracle", "chosen on the target: not comparable"),
            Selection(f"test_{metric}_last", "last step"),
        )
        return Terms("domain", "domains", selections, "trial", "standard error")
    chosen = Selection(f"test_{metric}", "validation")
    if refit:
        chosen = Selection(f"test_{metric}", "last step", "after training on the validation images too")
    if protocol == "sampling_ratios":
        return Terms("share", "shares of the training images", (chosen,), unit=" %")
    return Terms("target", "targets", (chosen,))
