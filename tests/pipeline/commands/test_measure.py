from typing import Any

import pytest

from pipeline.commands import measure
from pipeline.config.params import Params
from pipeline.config.presets import find_preset
from stochca.errors import UserError


def params(architecture: str = "vit_tiny_patch16_224", **changes: Any) -> Params:
    """The default with a tiny transformer."""
    default = find_preset("default").params()
    tiny = default.backbone.model_copy(update={"name": architecture})
    return default.model_copy(update={"backbone": tiny, "image_size": 32, **changes})


def test_what_takes_longer_is_measured_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BUDGET", 0.5)
    small, large = measure.measure(params()), measure.measure(params(image_size=192))
    assert small.blocks == large.blocks == 12
    assert 0 < small.forward_image < small.train_image
    assert small.step > 0
    # 36 times the patches, 145 tokens instead of 5: the factor on an idle machine is about 20.
    assert large.train_image > 3 * small.train_image
    assert large.forward_image > 3 * small.forward_image


@pytest.mark.parametrize(
    ("architecture", "blocks"), [("swin_tiny_patch4_window7_224", 12), ("coatnet_0_rw_224", 9)]
)
def test_hierarchical_models_are_measured(
    architecture: str, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "BUDGET", 0.0)
    assert measure.measure(params(architecture, image_size=64)).blocks == blocks


def test_a_backbone_that_does_not_fit_is_a_sentence() -> None:
    with pytest.raises(UserError, match="image_size 33 is no multiple of the patch size 16"):
        measure.measure(params(image_size=33))


def test_calls_are_timed_within_a_budget() -> None:
    """The first call sets things up: it counts only where it is the only one."""
    import time

    import torch

    durations = iter([0.2, 0.01, 0.01, 0.01, 0.01, 0.01, *[0.2] * 100])
    cpu = torch.device("cpu")
    assert measure._seconds(lambda: time.sleep(next(durations)), cpu, 0.3) < 0.15
    assert measure._seconds(lambda: time.sleep(0.05), cpu, 0.0) >= 0.05
