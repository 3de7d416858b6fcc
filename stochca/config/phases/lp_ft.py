"""LP-FT."""

from dataclasses import dataclass
from typing import Literal

from stochca.config.options import Phases
from stochca.config.registry import register
from stochca.config.training import require


@dataclass(frozen=True)
class LpFt(Phases):
    """Linear probing, then fine-tuning (Kumar et al., ICLR 2022).

    The head is first fitted to frozen features by logistic regression, its strength `C` chosen on
    the validation split; training then starts from that head.
    """

    reads_features = True
    needs_changing_backbone = "its second phase trains the whole model"
    name: Literal["lp_ft"] = "lp_ft"
    C: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)

    def __post_init__(self) -> None:
        require(
            len(self.C) > 0 and min(self.C) > 0, f"C needs one or more values above 0, found {list(self.C)}"
        )


register(LpFt, "stochca.phases.lp_ft:FittedHead")
