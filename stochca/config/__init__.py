"""A fine-tuning method is a composition of independent choices (see the table in README.md).

>>> Method()                                                   # plain fine-tuning
>>> Method(attention=StochasticCrossAttention(prob=0.1))       # StochCA
>>> Method(attention=StochasticCrossAttention(), average=Swad())  # a combination
>>> Method(adapter=Lora(rank=4), phases=LpFt())                     # another

Nothing here imports torch, so that params.yaml is read at once.
"""

from stochca.config.adapters import AllWeights, HeadAlone, Lora, Toast, ToastLite, Vpt
from stochca.config.attention import Schedule, SelfAttention, StochasticCrossAttention
from stochca.config.averaging import Ema, NoAverage, Swa, Swad, WiseFt
from stochca.config.choices import CHOICES, SEVERAL
from stochca.config.method import Method
from stochca.config.options import Adapter, Attention, Average, Options, Penalty, Phases
from stochca.config.penalties import Bss, CoTuning, Delta, L2Sp, Miro
from stochca.config.phases import LpFt, SinglePhase, ZeroShot

__all__ = [
    "CHOICES",
    "SEVERAL",
    "Adapter",
    "AllWeights",
    "Attention",
    "Average",
    "Bss",
    "CoTuning",
    "Delta",
    "Ema",
    "HeadAlone",
    "L2Sp",
    "Lora",
    "LpFt",
    "Method",
    "Miro",
    "NoAverage",
    "Options",
    "Penalty",
    "Phases",
    "Schedule",
    "SelfAttention",
    "SinglePhase",
    "StochasticCrossAttention",
    "Swa",
    "Swad",
    "Toast",
    "ToastLite",
    "Vpt",
    "WiseFt",
    "ZeroShot",
]
