"""What tells one model from another."""

import pytest
import torch

from stochca.errors import UserError
from stochca.language.identity import check_identity, identity_of, weights_sha256
from tests.stochca.language.tiny import tiny_model


def test_the_sha256_is_of_the_weights_and_not_of_their_precision() -> None:
    model = tiny_model()
    digest = weights_sha256(model)
    assert digest == weights_sha256(tiny_model()) == weights_sha256(tiny_model().to(torch.bfloat16))
    assert digest != weights_sha256(tiny_model(seed=1))
    with torch.no_grad():
        model.model.norm.weight[3] += 0.1
    assert digest != weights_sha256(model)


def test_a_copy_in_fp16_is_refused_and_told_why() -> None:
    """Numbers below 2⁻²⁴ are none there; in bf16 they are."""
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = 2.0**-30
    identity = identity_of(model)
    check_identity(identity, model.to(torch.bfloat16), "the adapter")
    with pytest.raises(UserError, match="use the model that it was made for, loaded as it was then: fp16"):
        check_identity(identity, model.to(torch.float16), "the adapter")
    with pytest.raises(UserError, match=r"use the model that it was made for$"):
        check_identity(identity, tiny_model(seed=1), "the adapter")
