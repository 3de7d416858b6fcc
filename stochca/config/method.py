"""A method: one value for each choice."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from stochca.config.options import Adapter, Attention, Average, Options, Penalty, Phases
from stochca.config.plain import AllWeights, NoAverage, SelfAttention, SinglePhase
from stochca.config.registry import names_of
from stochca.config.training import Training, require


@dataclass(frozen=True)
class Method:
    """One value per choice; what is not set stays as in plain fine-tuning.

    Raises:
        ValueError: the choices contradict each other; the sentence says why.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}
    attention: Attention = field(default_factory=SelfAttention)
    adapter: Adapter = field(default_factory=AllWeights)
    phases: Phases = field(default_factory=SinglePhase)
    average: Average = field(default_factory=NoAverage)
    penalties: tuple[Penalty, ...] = ()  # terms added to the loss
    training: dict[str, Any] = field(default_factory=dict)  # overrides in params.yaml; `fit` has its own

    def __post_init__(self) -> None:
        names = [penalty.name for penalty in self.penalties]
        require(len(set(names)) == len(names), f"penalties lists one twice: {', '.join(names)}")
        for part in self.parts:
            require(
                self.adapter.changes_backbone or not part.needs_changing_backbone,
                f"{part.choice} {part.name!r} with adapter {self.adapter.name!r} makes no sense: "
                f"{part.needs_changing_backbone}; leave {part.choice} out, or use adapter "
                f"{names_of('adapter', lambda adapter: adapter.changes_backbone)}",
            )
            part.check(self)

    @property
    def parts(self) -> tuple[Options, ...]:
        """Everything that was chosen, the penalties one by one."""
        return self.attention, self.adapter, self.phases, self.average, *self.penalties

    def check_training(self, settings: Training, *, micro_batch: int, refit: bool) -> None:
        """Raise ValueError where a part can't be trained so; see `Options.check_training`."""
        ends_early = f"training.patience {settings.patience} ends training by the validation score"
        require(
            settings.patience is None or not refit,
            f"{ends_early}, of which refit leaves none; set one of them to null or false",
        )
        for part in self.parts:
            require(
                settings.patience is None or not part.needs_whole_schedule,
                f"{ends_early}, but {part.choice} {part.name!r} needs the whole schedule; set "
                "training: {patience: null} for this method",
            )
            part.check_training(settings, micro_batch=micro_batch, refit=refit)
