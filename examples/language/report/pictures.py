"""The picture of what TOAST's second pass attends to, beside the first."""

import base64
import io
from typing import Any

import numpy as np

from pipeline.runtime.drawing import plt


def draw_steering(steering: dict[str, Any]) -> str:
    """A data URL of a PNG: attention of the answer's tokens in both passes, what changed, and by layer.

    The first token, on which most attention rests and says nothing, is left out of the colours' range.
    """
    tokens = [token.replace("\n", "↵") or "·" for token in steering["tokens"]]
    begins = steering["answer_from"]
    first, second = (np.array(steering[name])[begins:-1] for name in ("first", "second"))
    change = second - first
    largest = max(first[:, 1:].max(), second[:, 1:].max())
    most = max(np.abs(change).max(), 1e-6)
    asked = tokens[begins + 1 :]
    figure, axes = plt.subplots(
        2,
        2,
        figsize=(15, 0.36 * len(asked) + 6.4),
        layout="constrained",
        gridspec_kw={"height_ratios": [1, 1]},
    )
    for axis, values, title, options in (
        (
            axes[0, 0],
            first,
            "Pass 1: where the model looks by itself",
            {"cmap": "Blues", "vmin": 0, "vmax": largest},
        ),
        (axes[0, 1], second, "Pass 2: with the feedback", {"cmap": "Blues", "vmin": 0, "vmax": largest}),
        (axes[1, 0], change, "Pass 2 minus pass 1", {"cmap": "RdBu_r", "vmin": -most, "vmax": most}),
    ):
        image = axis.imshow(values, aspect="auto", interpolation="nearest", **options)
        axis.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8)
        axis.set_yticks(range(len(asked)), asked, fontsize=8)
        axis.set_title(title, fontsize=11)
        axis.set_ylabel("the token that is predicted")
        figure.colorbar(image, ax=axis, fraction=0.03, pad=0.01)
    bars = axes[1, 1]
    bars.bar(range(1, len(steering["by_layer"]) + 1), 100 * np.array(steering["by_layer"]), color="#1d4fd8")
    bars.set_title("Attention that the second pass puts elsewhere, by layer", fontsize=11)
    bars.set_xlabel("layer")
    bars.set_ylabel("% of a token's attention")
    bars.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    plt.close(figure)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
