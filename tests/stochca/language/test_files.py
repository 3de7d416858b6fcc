"""Adapters and decoders: saved small, and put back on their own model alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stochca.errors import UserError
from stochca.language import TOAST
from stochca.language.identity import weights_sha256
from tests.stochca.language.tiny import LAYERS, WIDTH, lively_toast, tiny_model, tokens


@pytest.mark.parametrize("options", [{}, {"rank": 2, "alpha": 3.0}])
def test_an_adapter_comes_back_without_its_model(tmp_path: Path, options: dict[str, Any]) -> None:
    toast = lively_toast(tiny_model(), **options)
    toast.save_pretrained(tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {"adapter.safetensors", "adapter.json"}
    assert load_file(tmp_path / "adapter" / "adapter.safetensors").keys() == toast.state_dict().keys()
    card = json.loads((tmp_path / "adapter" / "adapter.json").read_text())
    assert card["made_for"]["sha256"] == weights_sha256(toast.backbone)
    again = TOAST.from_pretrained(tiny_model(), tmp_path / "adapter")
    assert again(tokens()).logits.equal(toast(tokens()).logits)
    assert (again.rank, again.alpha) == (options.get("rank"), options.get("alpha", 4.0))


def test_decoders_start_another(tmp_path: Path) -> None:
    toast = lively_toast(tiny_model())
    path = tmp_path / "new" / "decoders.safetensors"
    toast.save_decoders(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = TOAST(tiny_model(), decoders=path)
    assert again(tokens()).logits.equal(toast(tokens()).logits)
    with pytest.raises(UserError, match="hold low-rank updates"):
        TOAST(tiny_model(), rank=2, decoders=str(path)).save_decoders(path)
    with pytest.raises(UserError, match="leave it or decoders out"):
        TOAST(tiny_model(), decoders=path, plain_start=True)


def test_those_of_another_model_are_refused(tmp_path: Path) -> None:
    toast = lively_toast(tiny_model())
    toast.save_pretrained(tmp_path)
    toast.save_decoders(tmp_path / "decoders.safetensors")
    wider = tiny_model(hidden_size=2 * WIDTH)
    deeper = tiny_model(num_hidden_layers=LAYERS + 1)
    for other, sentence in (
        (wider, f"for a model of width {WIDTH} with {LAYERS} layers.*has width {2 * WIDTH}"),
        (deeper, f"{LAYERS + 1} layers"),
        (tiny_model(seed=1), f"whose weights have the sha256 {weights_sha256(tiny_model())}, but"),
    ):
        with pytest.raises(UserError, match=sentence):
            TOAST.from_pretrained(other, tmp_path)
        with pytest.raises(UserError, match=sentence):
            TOAST(other, decoders=tmp_path / "decoders.safetensors")


def test_what_is_missing_or_damaged_is_said_in_a_sentence(tmp_path: Path) -> None:
    model = tiny_model()
    with pytest.raises(UserError, match=r"adapter\.json is missing"):
        TOAST.from_pretrained(model, tmp_path)
    with pytest.raises(UserError, match=r"gone\.safetensors is missing; pre-tune decoders"):
        TOAST(model, decoders=tmp_path / "gone.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match=r"damaged\.safetensors can't be read"):
        TOAST(model, decoders=tmp_path / "damaged.safetensors")
    save_file({"task": torch.zeros(WIDTH)}, tmp_path / "anonymous.safetensors")
    with pytest.raises(UserError, match="does not say which model"):
        TOAST(model, decoders=tmp_path / "anonymous.safetensors")
    lively_toast(model, rank=2).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not fit"):
        TOAST(model, decoders=tmp_path / "adapter.safetensors")
    for card, sentence in (("{", "describes no adapter"), ('{"made_for": {}, "rank_": 2}', "is no TOAST's")):
        (tmp_path / "adapter.json").write_text(card)
        with pytest.raises(UserError, match=sentence):
            TOAST.from_pretrained(model, tmp_path)
    (tmp_path / "adapter.json").write_text('{"made_for": {}, "rank": null, "alpha": 4.0}')
    with pytest.raises(UserError, match=r"adapter\.safetensors does not fit"):
        TOAST.from_pretrained(model, tmp_path)
