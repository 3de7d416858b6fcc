"""What a name in params.yaml stands for; `stochca.extending` adds to it."""

from stochca.config.adapters import AllWeights, HeadAlone, Lora, Toast, ToastLite, Vpt
from stochca.config.attention import SelfAttention, StochasticCrossAttention
from stochca.config.averaging import Ema, NoAverage, Swa, Swad, WiseFt
from stochca.config.options import Options
from stochca.config.penalties import Bss, CoTuning, Delta, L2Sp, Miro
from stochca.config.phases import LpFt, SinglePhase, ZeroShot

CHOICES: dict[str, dict[str, type[Options]]] = {
    "attention": {"self": SelfAttention, "stochca": StochasticCrossAttention},
    "adapter": {
        "all": AllWeights,
        "head": HeadAlone,
        "lora": Lora,
        "vpt": Vpt,
        "toast": Toast,
        "toast_lite": ToastLite,
    },
    "phases": {"single": SinglePhase, "lp_ft": LpFt, "zero_shot": ZeroShot},
    "average": {"none": NoAverage, "ema": Ema, "swa": Swa, "swad": Swad, "wise_ft": WiseFt},
    "penalties": {"l2sp": L2Sp, "delta": Delta, "bss": Bss, "cotuning": CoTuning, "miro": Miro},
}
SEVERAL = ("penalties",)  # choices of which a method may have any number
