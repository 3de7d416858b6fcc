"""WiSE-FT."""

from dataclasses import dataclass
from typing import Any, Literal

from stochca.config.options import Average
from stochca.config.registry import names_of, register
from stochca.config.training import Training, require, require_each


@dataclass(frozen=True)
class WiseFt(Average):
    """Between the weights at the first step and the fine-tuned ones (Wortsman et al., CVPR 2022).

    `alpha` 0 gives the start, 1 what fine-tuning alone would keep. Of several, the best on the validation
    split is kept. It makes models that hold where images differ from the training images, and needs a head
    that a first phase has made.
    """

    name: Literal["wise_ft"] = "wise_ft"
    alpha: float | tuple[float, ...] = 0.5

    @property
    def alphas(self) -> tuple[float, ...]:
        return self.alpha if isinstance(self.alpha, tuple) else (self.alpha,)

    def __post_init__(self) -> None:
        require(self.alphas != (), "alpha must be one value or more, found none")
        require_each(self, lambda alpha: 0 <= alpha <= 1, "between 0 and 1", "alpha")

    def check(self, method: Any) -> None:
        require(
            method.phases.makes_head,
            f"average 'wise_ft' with phases {method.phases.name!r} makes no sense: it would go halfway back "
            f"to a head of random weights; use phases {names_of('phases', lambda phases: phases.makes_head)}",
        )
        require(
            not method.adapter.adds_weights,
            f"average 'wise_ft' with adapter {method.adapter.name!r} makes no sense: an adapter's weights "
            "between two points are not the model between them; use adapter 'all'",
        )

    def check_training(self, settings: Training, *, micro_batch: int, refit: bool) -> None:
        require(
            not refit or len(self.alphas) == 1,
            "average wise_ft chooses among several alpha on validation, of which refit leaves nothing; give "
            "one alpha, or set refit to false",
        )


register(WiseFt, "stochca.averaging.wise_ft:WeightInterpolation")
