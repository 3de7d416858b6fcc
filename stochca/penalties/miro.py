"""MIRO (Cha et al., ECCV 2022): the mutual information with the pretrained features is kept."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stochca._typing import TimmModule
from stochca.config.penalties.miro import Miro
from stochca.data.examples import Examples
from stochca.penalties.term import Batch, Start, Term
from stochca.timm_models.families import blocks_of
from stochca.timm_models.recording import Records, records_of

FLOOR = 1e-5  # added to the variances
START = 0.1  # of the variances


class SharedInformation(Term):
    """MIRO: λ/2 Σ_layers mean[(f − f₀)²/σ² + log σ²]; the encoder of the mean is the identity (equation 4).

    The layers are the patch embedding and the last block of each quarter; σ² is one value per channel.
    """

    def __init__(self, config: Miro, student: TimmModule, start: Start, examples: Examples) -> None:
        super().__init__(config, student, start, examples)
        depth = len(blocks_of(student))
        self.layers = sorted({max(0, round(depth * quarter / 4) - 1) for quarter in (1, 2, 3, 4)})
        raw = torch.tensor(START - FLOOR).expm1().log()  # softplus of it is the start
        image, _ = examples.train[0]
        pixels = examples.preprocessing.evaluation()(image).to(next(student.parameters()).device)
        layers = self._layers(records_of(start.model, pixels.unsqueeze(0)))  # their widths may differ
        self.raw = nn.ParameterList(
            nn.Parameter(raw.to(pixels).expand(layer.shape[-1]).clone()) for layer in layers
        )

    def __call__(self, batch: Batch) -> Tensor:
        terms = []
        layers = zip(self._layers(batch.student), self._layers(batch.start), self.raw, strict=True)
        for now, then, raw in layers:
            variance = functional.softplus(raw) + FLOOR
            terms.append(((now - then).square() / variance + variance.log()).mean())
        return self.config.weight * torch.stack(terms).sum() / 2

    def _layers(self, records: Records) -> list[Tensor]:
        assert records.embedding is not None
        return [records.embedding, *(records.blocks[i] for i in self.layers)]

    def modules(self) -> dict[str, tuple[nn.Module, float]]:
        return {"variances": (self.raw, self.config.lr_scale)}
