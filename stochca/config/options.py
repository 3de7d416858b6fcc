"""What every value of a choice is: a frozen dataclass with a name, whose options are checked.

Class attributes say what others have to know of a part, so that nothing asks for one by its name.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from stochca.config.training import Training, require


@dataclass(frozen=True)
class Options:
    """A name in params.yaml, and the options beside it; other options are refused."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "allow_inf_nan": False}
    choice: ClassVar[str]  # the key in params.yaml
    code_base: ClassVar[str]  # what the code that carries it out is below, MODULE:CLASS
    # Why it makes no sense where the backbone stays as it is; empty where it does.
    needs_changing_backbone: ClassVar[str] = ""
    needs_whole_schedule: ClassVar[bool] = False  # whether what it does comes out only if all steps are taken
    name: str = ""

    def check(self, method: Any) -> None:
        """Raise ValueError where another choice of `method`, a `Method`, contradicts this one."""

    def check_training(self, settings: Training, *, micro_batch: int, refit: bool) -> None:
        """Raise ValueError where it can't be trained with these settings.

        `micro_batch` is how many images one forward pass of a process takes; with `refit` there are no
        validation images to choose by.
        """


@dataclass(frozen=True)
class Attention(Options):
    """How the blocks attend while training."""

    choice = "attention"
    code_base = "stochca.attention.attending:Attending"


@dataclass(frozen=True)
class Adapter(Options):
    """What learns."""

    choice = "adapter"
    code_base = "stochca.adapters.adaptation:Adaptation"
    changes_backbone: ClassVar[bool] = True  # whether the backbone's own weights end up different
    adds_weights: ClassVar[bool] = False  # whether weights learn that neither backbone nor head has

    @property
    def trains_head_alone(self) -> bool:
        return not self.changes_backbone and not self.adds_weights

    def check_training(self, settings: Training, *, micro_batch: int, refit: bool) -> None:
        require(
            settings.layer_decay is None or self.changes_backbone or not self.adds_weights,
            f"training.layer_decay {settings.layer_decay} means nothing with adapter {self.name!r}, which "
            "freezes the layers that it counts; set it to null",
        )


@dataclass(frozen=True)
class Phases(Options):
    """What happens before the training loop."""

    choice = "phases"
    code_base = "stochca.phases.first_phase:FirstPhase"
    makes_head: ClassVar[bool] = True  # whether training starts from a head that was made, not a random one
    reads_features: ClassVar[bool] = False  # whether all training and validation images are looked at for it
    needs_class_texts: ClassVar[bool] = False  # whether it takes what a text encoder makes of the classes


@dataclass(frozen=True)
class Average(Options):
    """Which weights are kept."""

    choice = "average"
    code_base = "stochca.averaging.averaging:Averaging"


@dataclass(frozen=True)
class Penalty(Options):
    """A term added to the loss."""

    choice = "penalties"
    code_base = "stochca.penalties.term:Term"
    needs_changing_backbone = "it holds on to a backbone that stays as it is"
    asks_pretrained: ClassVar[bool] = False  # whether the pretrained model sees every batch too
    needs_source_head: ClassVar[bool] = False  # whether it takes the classifier of the pretraining
