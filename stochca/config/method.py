"""A method: one value for each choice."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from stochca.config.adapters import AllWeights
from stochca.config.attention import SelfAttention
from stochca.config.averaging import NoAverage
from stochca.config.options import Adapter, Attention, Average, Penalty, Phases
from stochca.config.phases import SinglePhase
from stochca.config.training import require


@dataclass(frozen=True)
class Method:
    """One value per choice; what is not set stays as in plain fine-tuning.

    Raises:
        ValueError: the choices contradict each other; the sentence says why.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    attention: Attention = field(default_factory=SelfAttention)
    adapter: Adapter = field(default_factory=AllWeights)
    phases: Phases = field(default_factory=SinglePhase)
    average: Average = field(default_factory=NoAverage)
    penalties: tuple[Penalty, ...] = ()  # terms added to the loss
    training: dict[str, Any] = field(default_factory=dict)  # overrides of the common training settings

    def __post_init__(self) -> None:
        if not self.adapter.changes_backbone:
            name = self.adapter.name
            require(
                self.attention.name != "stochca",
                f"attention 'stochca' with adapter {name!r} makes no sense: nothing that attends is trained; "
                "use adapter 'all' or 'lora', or attention 'self'",
            )
            require(
                self.phases.name != "lp_ft",
                f"phases 'lp_ft' with adapter {name!r} makes no sense: its second phase trains the whole "
                "model; use adapter 'all' or 'lora', or phases 'single'",
            )
            require(
                not self.penalties,
                f"penalties with adapter {name!r} make no sense: they hold on to a backbone that stays as it "
                "is; use adapter 'all' or 'lora', or no penalties",
            )
        names = [penalty.name for penalty in self.penalties]
        require(len(set(names)) == len(names), f"penalties lists one twice: {', '.join(names)}")
        require(
            "l2sp" not in names or self.adapter.name != "lora",
            "penalties 'l2sp' with adapter 'lora' makes no sense: it measures from where weights start, and "
            "an adapter's start at random; use adapter 'all', or another penalty",
        )
        if self.average.name == "wise_ft":
            require(
                self.phases.name != "single",
                "average 'wise_ft' with phases 'single' makes no sense: it would go halfway back to a head "
                "of random weights; use phases 'lp_ft', or 'zero_shot' with a CLIP backbone",
            )
            require(
                self.adapter.name in ("all", "head"),
                f"average 'wise_ft' with adapter {self.adapter.name!r} makes no sense: an adapter's weights "
                "between two points are not the model between them; use adapter 'all'",
            )
