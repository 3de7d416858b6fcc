"""L2-SP (Li et al., ICML 2018): the weights stay near those of pretraining."""

import torch
from torch import Tensor

from stochca._typing import TimmModule
from stochca.config.penalties.l2sp import L2Sp
from stochca.data.examples import Examples
from stochca.penalties.term import Batch, Start, Term
from stochca.timm_models.families import head_parameters


class StartingPoint(Term):
    """L2-SP: β/2 ‖w − w₀‖² over the backbone + β_head/2 ‖w_head‖² (equation 3)."""

    replaces_weight_decay = True

    def __init__(self, config: L2Sp, student: TimmModule, start: Start, examples: Examples) -> None:
        super().__init__(config, student, start, examples)
        head = head_parameters(student)
        before = dict(start.model.named_parameters())
        self.head = [parameter for parameter in student.parameters() if id(parameter) in head]
        self.backbone = [
            (parameter, before[name])
            for name, parameter in student.named_parameters()
            if id(parameter) not in head
        ]

    def __call__(self, batch: Batch) -> Tensor:
        distance = torch.stack([(now - then).square().sum() for now, then in self.backbone]).sum()
        norm = torch.stack([parameter.square().sum() for parameter in self.head]).sum()
        return (self.config.weight * distance + self.config.head_weight * norm) / 2
