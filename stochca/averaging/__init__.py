"""Which weights are kept: the best on validation, or an average of several steps."""

from stochca.averaging.averaging import Averaging, Evaluate, Weights, start_averaging

__all__ = ["Averaging", "Evaluate", "Weights", "start_averaging"]
