"""A wrapper in other people's code: what they ask of it is what they would ask of the model inside."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import create_model
from timm.optim import create_optimizer_v2
from torch import nn

import stochca
from stochca._typing import TimmModule
from tests.stochca.timm_models.families.cases import CASES, Case, images
from tests.stochca.timm_models.families.test_adapters import SEQUENCE_CASES

WRAPPERS: dict[str, Callable[[TimmModule], Any]] = {
    "stochca": stochca.StochCA,
    "vpt": stochca.VPT,
    "toast": stochca.TOAST,
}
ADAPTERS = [(name, case) for name in ("vpt", "toast") for case in ("vit", "dinov3", "beit, shared bias")]
EVERYWHERE = [("stochca", case) for case in CASES] + ADAPTERS


def groups(model: TimmModule, inner: TimmModule, **options: Any) -> dict[tuple[float, float], set[str]]:
    """What timm makes of a model: the names that `inner` has for its parameters, by decay and scale."""
    names = {id(parameter): name for name, parameter in inner.named_parameters()}
    found: dict[tuple[float, float], set[str]] = {}
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, **options)
    for group in optimizer.param_groups:
        key = (group["weight_decay"], round(group.get("lr_scale", 1.0), 9))
        found.setdefault(key, set()).update(names.get(id(p), "added") for p in group["params"])
    return found


@pytest.mark.parametrize("layer_decay", [None, 0.7])
@pytest.mark.parametrize(("wrapper", "name"), EVERYWHERE)
def test_parameter_groups_are_those_of_the_bare_model(
    wrapper: str, name: str, layer_decay: float | None
) -> None:
    model = CASES[name].model()
    expected = groups(model, model, layer_decay=layer_decay)
    assert len(expected) > (1 if layer_decay is None else 4)
    wrapped = WRAPPERS[wrapper](model)
    model.requires_grad_(True)  # an adapter froze it
    found = groups(wrapped, model, layer_decay=layer_decay)
    for key, names in found.items():
        assert names - {"added"} == expected.get(key, set())
        if "added" in names:
            assert key[1] == 1.0  # learns as the head does
    assert expected.keys() <= found.keys()


def test_what_must_not_decay_does_not() -> None:
    model = stochca.StochCA(CASES["vit"].model())
    undecayed = groups(model, model.student)[0.0, 1.0]
    assert {"pos_embed", "cls_token", "norm.weight"} <= undecayed
    deep = groups(model, model.student, layer_decay=0.5)
    assert {"cls_token", "pos_embed", "patch_embed.proj.bias"} == deep[0.0, 0.5**4]


@pytest.mark.parametrize(
    "architecture",
    ["vit_base_patch32_clip_quickgelu_224", "vit_base_patch16_siglip_224", "beit_base_patch16_224"],
)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_preprocessing_is_the_models_own(wrapper: str, architecture: str) -> None:
    model = create_model(architecture, depth=1, embed_dim=48, num_heads=2, num_classes=3)
    wrapped = WRAPPERS[wrapper](model)
    found = resolve_data_config({}, model=wrapped)
    assert found == resolve_data_config({}, model=model)
    assert found["mean"] == model.pretrained_cfg["mean"] != timm.data.IMAGENET_DEFAULT_MEAN
    if hasattr(timm.data, "resolve_input_data_config"):
        given = timm.data.resolve_input_data_config(wrapped)
        assert given == timm.data.resolve_input_data_config(model)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_rest_of_what_training_scripts_ask(wrapper: str) -> None:
    model = CASES["vit"].model()
    wrapped = WRAPPERS[wrapper](model)
    for name in ("num_classes", "num_features", "embed_dim", "head_hidden_size", "num_prefix_tokens"):
        assert getattr(wrapped, name) == getattr(model, name)
    assert wrapped.get_classifier() is model.head
    wrapped.set_grad_checkpointing(True)
    assert wrapped.grad_checkpointing is model.grad_checkpointing is True
    wrapped.reset_classifier(7)
    assert wrapped.num_classes == 7
    wrapped.train()(images()).sum().backward()
    assert wrapped.eval()(images()).shape == (2, 7)
    features = wrapped.forward_features(images())
    assert torch.equal(wrapped.forward_head(features), wrapped(images()))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_is_set_under_a_name_of_the_models_is_the_models(wrapper: str) -> None:
    wrapped = WRAPPERS[wrapper](CASES["vit"].model())
    names = wrapped.state_dict().keys()
    wrapped.head = head = nn.Linear(wrapped.num_features, 7)
    assert wrapped.head is wrapped.get_classifier() is head
    assert wrapped.state_dict().keys() == names
    assert wrapped.eval()(images()).shape == (2, 7)
    wrapped.note = "its own"
    assert not hasattr(wrapped.get_submodule(wrapped.wrapped), "note")


def test_features_cross_attend_as_logits_do() -> None:
    model = stochca.StochCA(CASES["vit"].model(), 0.5, teacher=CASES["vit"].model(seed=1))
    for crossed in ([], [1, 2]):
        features = model.forward_features(images(), cross_blocks=crossed)
        assert torch.equal(model.forward_head(features), model(images(), cross_blocks=crossed))
    drawn = [model.forward_features(images()) for _ in range(8)]
    assert not all(torch.equal(features, drawn[0]) for features in drawn)
    assert model.tally.forwards == 8
    assert torch.equal(model.eval().forward_features(images()), model.student.forward_features(images()))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_what_no_model_has_or_a_wrapper_would_have_to_change_is_not_there(wrapper: str) -> None:
    wrapped = WRAPPERS[wrapper](CASES["vit"].model())
    for name in ("nonsense", "forward_intermediates", "prune_intermediate_layers", "blocks", "config"):
        with pytest.raises(
            AttributeError, match=f"'{type(wrapped).__name__}' object has no attribute '{name}'"
        ):
            getattr(wrapped, name)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_copies_and_pickles_answer_too(wrapper: str) -> None:
    wrapped = WRAPPERS[wrapper](CASES["vit"].model())
    for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
        assert other.get_classifier() is not wrapped.get_classifier()
        assert other.num_classes == 5


def test_peft_puts_its_updates_into_a_wrapped_student() -> None:
    peft = pytest.importorskip("peft")
    case: Case = SEQUENCE_CASES["vit"]
    model = stochca.StochCA(case.model(), 1.0)
    tuned = peft.get_peft_model(model, peft.LoraConfig(target_modules=["qkv"], modules_to_save=["head"], r=2))
    before = {name: value.clone() for name, value in model.student.state_dict().items()}
    optimizer = create_optimizer_v2(tuned, "adamw", lr=1e-2)
    for _ in range(2):
        tuned(images()).square().sum().backward()
        optimizer.step()
    changed = {
        name for name, value in model.student.state_dict().items() if not torch.equal(value, before[name])
    }
    assert {name.split(".")[0] for name in changed} == {"blocks", "head"}
    assert all("lora_" in name for name in changed if name.startswith("blocks"))


@pytest.mark.parametrize("name", ["beit", "eva", "swin v2"])
def test_peft_acts_in_every_pass_where_biases_are_beside_their_layer(name: str) -> None:
    peft = pytest.importorskip("peft")
    model = stochca.StochCA(CASES[name].model(), 1.0)
    lora = peft.LoraConfig(target_modules=["qkv"], r=2, init_lora_weights=False)
    tuned = peft.get_peft_model(model, lora).eval()
    evaluated = tuned(images())
    assert not torch.allclose(evaluated, CASES[name].model().eval()(images()), atol=1e-3)
    merged = tuned.merge_and_unload().student
    torch.testing.assert_close(merged(images()), evaluated, rtol=1e-3, atol=1e-4)
