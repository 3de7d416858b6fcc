"""What MLflow serves: pictures in, class probabilities out. Needs timm, torch and safetensors alone.

A model with an adapter comes with its backbone, and with the package stochca, which knows how to join them;
and with the folder of extensions, where one of them makes the adapter.

Logged as code beside the weights, so that loading a model never unpickles anything.
"""

import json
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

LONGEST = 100  # times the short side; as training images, which says pipeline/images/decoding.py


class ImageClassifier(mlflow.pyfunc.PythonModel):
    """uint8 RGB images (B, height, width, 3) to probabilities (B, classes)."""

    def load_context(self, context: Any) -> None:
        with suppress(ImportError):
            import stochca  # noqa: F401 (lets timm import beside a CPU-only torch)
        import timm
        from safetensors.torch import load_file
        from timm.data import create_transform

        folder = Path(context.artifacts["model"])
        card = json.loads((folder / "model.json").read_text())
        self.classes: list[str] = card["classes"]
        if card["adapter"] is not None:
            from stochca.adapters.adapted import load_adapted

            sys.path.insert(0, str(folder))  # with extensions/
            import_module(card.get("adapter_module") or "stochca.config")
            self.model = load_adapted(
                folder / "adapter.safetensors",
                card["adapter"],
                folder / "backbone",
                num_classes=len(self.classes),
            )
        else:
            self.model = timm.create_model(
                card["architecture"],
                img_size=card["image_size"],
                num_classes=len(self.classes),
                **card["options"],
            )
            self.model.load_state_dict(load_file(folder / "model.safetensors"))
        self.model.eval()
        self.transform = create_transform(
            card["image_size"],
            crop_pct=card["crop_pct"],
            crop_mode=card["crop_mode"],
            interpolation=card["interpolation"],
            mean=card["mean"],
            std=card["std"],
        )

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        import torch
        from PIL import Image

        pixels_BHW3 = np.asarray(model_input, np.uint8)
        _, height, width, _ = pixels_BHW3.shape
        if max(height, width) > LONGEST * min(height, width):
            raise ValueError(f"{width} x {height} pixels are more than {LONGEST} times as long as wide")
        if pixels_BHW3.max(initial=0) <= 1:  # MLflow has cut fractions of 1 down to nothing by now
            raise ValueError("no pixel is above 1: give whole numbers from 0 to 255, not shares of 1")
        images = [self.transform(Image.fromarray(pixels_HW3)) for pixels_HW3 in pixels_BHW3]
        with torch.inference_mode():
            return self.model(torch.stack(images)).softmax(dim=1).numpy()


mlflow.models.set_model(ImageClassifier())
