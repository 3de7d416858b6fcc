"""What a name in params.yaml stands for; `stochca.extending` adds to it."""

from stochca.methods.attention import SelfAttention, StochasticCrossAttention
from stochca.methods.average import Ema, NoAverage, Swa, Swad, WiseFt
from stochca.methods.options import Options
from stochca.methods.penalties import Bss, CoTuning, Delta, L2Sp, Miro
from stochca.methods.phases import LpFt, SinglePhase, ZeroShot
from stochca.methods.train import Lora, Toast, ToastLite, TrainAll, TrainHead, Vpt

CHOICES: dict[str, dict[str, type[Options]]] = {
    "attention": {"self": SelfAttention, "stochca": StochasticCrossAttention},
    "train": {
        "all": TrainAll,
        "head": TrainHead,
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
