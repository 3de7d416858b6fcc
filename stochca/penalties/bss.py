"""Batch spectral shrinkage (Chen et al., NeurIPS 2019): small singular values are suppressed."""

import torch
from torch import Tensor

from stochca.penalties.term import Batch, Term


class SmallSingularValues(Term):
    """BSS: η Σ σ² over the k smallest singular values of the features of a batch (B, D) (equation 4)."""

    def __call__(self, batch: Batch) -> Tensor:
        assert batch.student.pooled is not None
        values = torch.linalg.svdvals(batch.student.pooled)
        return self.config.weight * values[-self.config.k :].square().sum()
