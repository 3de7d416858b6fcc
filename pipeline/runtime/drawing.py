"""matplotlib as every picture here uses it: without a screen, and with names drawn as they are written."""

import matplotlib.pyplot as plt

plt.switch_backend("Agg")
plt.rcParams["text.parse_math"] = False  # a class may be called $5_to_$10

__all__ = ["plt"]
