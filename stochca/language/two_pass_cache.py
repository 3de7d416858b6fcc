"""Keys and values of both passes of TOAST, as `generate` keeps them."""

from typing import Any

import torch
from transformers import DynamicCache


class TwoPassCache(DynamicCache):
    """The cache of the second pass, with that of the first beside it; what is done to one is done to both.

    Args:
        config: of the model; layers with a sliding window then keep no more than that.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.first = DynamicCache(config=config)

    def reset(self) -> None:
        super().reset()
        self.first.reset()

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        super().reorder_cache(beam_idx)
        self.first.reorder_cache(beam_idx)

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        self.first.crop(tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.first.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self.first.batch_select_indices(indices)

    def activate_past_recording(self) -> None:
        super().activate_past_recording()
        self.first.activate_past_recording()
