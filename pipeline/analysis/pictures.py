"""The pictures of `stochca analyse`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pipeline.runtime.drawing import plt

MOST_BLOCKS = 6  # whose attention is shown: the last is, and others spread evenly before it


def blocks(analysis: Mapping[str, Any]) -> Figure:
    """Per block: how alike features are to the backbone's, how far its weights went, how often it crossed."""
    counted = bool(analysis["cross_attended"])
    figure, axes = plt.subplots(
        1, 2 + counted, figsize=(4.2 * (2 + counted), 3.6), layout="constrained", squeeze=False
    )
    places = np.arange(len(analysis["weight_distance"]))
    similarity, distance, *rest = axes[0]
    if analysis["cka_class_token"]:
        similarity.plot(places, analysis["cka_class_token"], marker="o", label="class token")
    similarity.plot(places, analysis["cka_patches"], marker="s", label="mean of the patches")
    similarity.set(ylim=(0, 1.03), ylabel="linear CKA with the backbone", title="Features")
    similarity.legend(loc="lower left")
    distance.bar(places, [100 * value for value in analysis["weight_distance"]])
    distance.set(ylabel="distance from the start, % of its length", title="Weights")
    if counted:
        rest[0].bar(places, [100 * value for value in analysis["cross_attended"]], color="tab:green")
        rest[0].set(ylabel="training images that cross-attended, %", title="Cross-attention")
    for one in axes[0]:
        one.set_xlabel("block")
        one.set_xticks(places if len(places) <= 12 else places[::4])
    figure.suptitle(f"{analysis['name']}, {analysis['images']} test images")
    plt.close(figure)
    return figure


def attention(
    images: Sequence[Image.Image], backbone: Sequence[Tensor], model: Sequence[Tensor], tokens: str
) -> Figure:
    """Where a model looks: per image one row for the backbone and one for the trained model.

    Args:
        images: as the model sees them.
        backbone: of each block (images, rows, columns).
        model: likewise.
        tokens: whose attention it is.
    """
    number = min(MOST_BLOCKS, len(model))
    chosen = [(i + 1) * len(model) // number - 1 for i in range(number)]
    figure, axes = plt.subplots(
        2 * len(images),
        1 + number,
        figsize=(1.5 * (1 + number), 3.1 * len(images) + 0.4),
        layout="constrained",
        squeeze=False,
    )
    for row, image in enumerate(images):
        for place, (name, maps) in enumerate((("backbone", backbone), ("trained", model))):
            line = axes[2 * row + place]
            line[0].imshow(image)
            line[0].set_ylabel(name)
            for column, block in enumerate(chosen, start=1):
                # One scale per block and image, so that backbone and trained model can be compared.
                highest = max(float(backbone[block][row].max()), float(model[block][row].max()))
                line[column].imshow(maps[block][row].numpy(), cmap="viridis", vmin=0, vmax=highest)
    for column, block in enumerate(chosen, start=1):
        axes[0][column].set_title(f"block {block}")
    for one in axes.flat:
        one.set(xticks=[], yticks=[])
    figure.suptitle(f"Attention of {tokens}")
    plt.close(figure)
    return figure
