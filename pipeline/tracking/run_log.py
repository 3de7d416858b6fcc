"""What a stage can tell the MLflow run that it is; `Outbox` does it here, `Courier` in another process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class RunLog(Protocol):
    """Adding never fails for the server's sake, nor does `send`."""

    run_id: str

    @property
    def artifacts(self) -> Path:
        """A folder for files to upload, which is there."""

    def add_params(self, values: Mapping[str, Any]) -> None:
        """Params of the run; those from before an interruption stay, for MLflow refuses changes."""

    def add_tags(self, values: Mapping[str, str]) -> None:
        """Tags of the run; later ones replace earlier ones."""

    def add_metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Metrics of a step; a step that MLflow has already is not sent again."""

    def add_model(self, model: Path, example: np.ndarray, backbone: Path | None = None) -> None:
        """A trained model's folder, with uint8 images (B, height, width, 3) as an example of its input.

        With an adapter's goes its backbone's, without which it is worth nothing elsewhere.
        """

    def add_pictures(
        self,
        events: Sequence[Mapping[str, Any]],
        labels: np.ndarray,
        predictions: np.ndarray,
        classes: Sequence[str],
    ) -> None:
        """Learning curves of a log's events, and the confusion matrix of labels and predictions, int (N,)."""

    def send(self, *, now: bool = False) -> bool:
        """Send what is waiting, or after a lost server's pause, which `now` ends; True when all is there."""
