"""What tells one model from another."""

import torch

from stochca.language.identity import weights_sha256
from tests.stochca.language.tiny import tiny_model


def test_the_sha256_is_of_the_weights_and_not_of_their_precision() -> None:
    model = tiny_model()
    digest = weights_sha256(model)
    assert digest == weights_sha256(tiny_model()) == weights_sha256(tiny_model().to(torch.bfloat16))
    assert digest != weights_sha256(tiny_model(seed=1))
    with torch.no_grad():
        model.model.norm.weight[3] += 0.1
    assert digest != weights_sha256(model)
