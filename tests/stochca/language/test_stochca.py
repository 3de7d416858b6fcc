"""StochCA for language models against attention that is written out."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from stochca.errors import UserError
from stochca.language import StochCA
from tests.stochca.language.slow_reference import Pass, cross_entropy_by_hand, run
from tests.stochca.language.tiny import FAMILIES, KERNELS, LAYERS, padded, tiny_model, tokens, transformers

DRAWS_SOME = 0  # a seed with which some layers cross-attend, and some don't


def changed(model: Any) -> Any:
    """As training might have changed it, so that it is no longer its teacher."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def trained(family: str = "Llama", prob: Any = 0.5, **options: Any) -> StochCA:
    model = StochCA(tiny_model(family, **options), prob)
    changed(model.student)
    return model


def by_hand(model: StochCA, sequence: Tensor, crossed: list[int]) -> Pass:
    pretrained = copy.copy(model.student)
    pretrained._modules = {**model.student._modules, "model": model.teacher}  # its head plays no part
    return run(model.student, sequence, teacher=run(pretrained, sequence), crossed=crossed)


@pytest.mark.parametrize(("family", "attention"), KERNELS)
@pytest.mark.parametrize("crossed", [[0, 2], [1]])
def test_equals_attention_by_hand(family: str, attention: str, crossed: list[int]) -> None:
    model = trained(family, attention=attention)
    logits = model(tokens(), cross_layers=crossed).logits
    expected = torch.stack([by_hand(model, row, crossed).logits for row in tokens()])
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert (logits - model.student(tokens()).logits).abs().max() > 0.05


def test_loss_and_gradients_equal_those_by_hand() -> None:
    model = trained("Qwen3").train()
    labels = tokens().clone()
    labels[:, :3] = -100
    loss = model(tokens(), labels=labels, cross_layers=[0, 2]).loss
    passes = [by_hand(model, row, [0, 2]) for row in tokens()]
    expected = cross_entropy_by_hand([each.logits for each in passes], list(labels))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    found = {name: p.grad for name, p in model.student.named_parameters()}
    wanted = torch.autograd.grad(expected, list(model.student.parameters()), allow_unused=True)
    for (name, gradient), other in zip(found.items(), wanted, strict=True):
        assert gradient is not None, name
        if other is None:  # keys and values of a layer that cross-attends
            assert any(f"layers.{i}.self_attn.{part}" in name for i in (0, 2) for part in ("k_", "v_")), name
            assert not gradient.any()
        else:
            torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())


@pytest.mark.parametrize("left", [True, False])
def test_padding_changes_nothing(left: bool) -> None:
    model = trained()
    sequences = [tokens(1, length, seed=length)[0] for length in (4, 9, 6)]
    batch, mask = padded(sequences, left)
    logits = model(batch, attention_mask=mask, cross_layers=[0, 1]).logits
    for row, seen, sequence in zip(logits, mask.bool(), sequences, strict=True):
        torch.testing.assert_close(row[seen], by_hand(model, sequence, [0, 1]).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["Llama", "Gemma3"])
def test_packed_documents_stay_apart(family: str) -> None:
    """As a collator that flattens has them: in one sequence, told by positions that begin again."""
    model = trained(family)
    documents = [tokens(1, length, seed=length)[0] for length in (4, 9, 6)]
    positions = torch.cat([torch.arange(len(document)) for document in documents])
    told: list[Any] = []
    model.teacher.layers[1].self_attn.register_forward_pre_hook(
        lambda _, __, arguments: told.append(arguments.get("max_length_q")), with_kwargs=True
    )
    packed: dict[str, Any] = {"position_ids": positions[None], "max_length_q": 9}  # the latter for kernels
    logits = model(torch.cat(documents)[None], cross_layers=[0, 1], logits_to_keep=16, **packed).logits[0]
    expected = torch.cat([by_hand(model, document, [0, 1]).logits for document in documents])
    torch.testing.assert_close(logits, expected[-16:], rtol=1e-4, atol=1e-4)
    assert told[0] == 9


def test_no_output_depends_on_a_later_token() -> None:
    model = trained("Gemma3")
    batch = tokens()
    logits = model(batch, cross_layers=[0, 1, 2]).logits
    for n in range(1, batch.shape[1]):
        other = batch.clone()
        other[:, n] = 3 + other[:, n] % 30
        torch.testing.assert_close(model(other, cross_layers=[0, 1, 2]).logits[:, :n], logits[:, :n])


def test_draws_while_training_alone_and_reproducibly() -> None:
    model = trained().train()
    plain = model.student(tokens()).logits
    draws = [StochCA(tiny_model(), 0.3, generator=torch.Generator().manual_seed(7)).draw() for _ in range(2)]
    assert draws[0] == draws[1]
    numbers = torch.rand(200, LAYERS, generator=torch.Generator().manual_seed(7))
    seeded = StochCA(tiny_model(), [0.1, 0.5, 1.0], generator=torch.Generator().manual_seed(7))
    expected = [[i for i, p in enumerate((0.1, 0.5, 1.0)) if row[i] < p] for row in numbers]
    assert [seeded.draw() for _ in range(200)] == expected
    outcomes = [model(tokens()).logits for _ in range(20)]
    assert any((logits - plain).abs().max() > 0.01 for logits in outcomes)
    assert any(logits.equal(plain) for logits in outcomes)
    model.eval()
    assert all(model(tokens()).logits.equal(plain) for _ in range(5))
    before = model.get_extra_state()
    model(tokens())
    assert model.get_extra_state().equal(before)


def test_never_and_always() -> None:
    never, always = trained(prob=0.0).train(), trained(prob=1.0).train()
    assert never(tokens()).logits.equal(never.student(tokens()).logits)
    assert always(tokens()).logits.equal(always.eval()(tokens(), cross_layers=range(LAYERS)).logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_computes_again_with_the_same_draw(family: str, reentrant: bool) -> None:
    model = trained(family).train()

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model.generator.manual_seed(DRAWS_SOME)
        loss = model(tokens(), labels=tokens()).loss
        model.draw()  # as the next step might, before this one's backward pass
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    model.generator.manual_seed(DRAWS_SOME)
    assert 0 < len(model.draw()) < LAYERS
    plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    checkpointed = gradients()
    assert plain.keys() == checkpointed.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient)


def test_the_student_stays_a_model_of_transformers(tmp_path: Any) -> None:
    model = trained().train()
    model(tokens(), labels=tokens()).loss.backward()
    assert type(model.student) is transformers.LlamaForCausalLM
    model.eval().student.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
    assert again.generate(tokens(), **options).equal(model.generate(tokens(), **options))


def test_the_state_goes_on_where_it_was() -> None:
    model = trained()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = [model.draw() for _ in range(20)]
    other = StochCA(tiny_model(), 0.5)
    other.load_state_dict(state)
    assert [other.draw() for _ in range(20)] == expected
    assert other(tokens()).logits.equal(model(tokens()).logits)
    beside_another = StochCA(tiny_model(seed=1), 0.5)
    with pytest.raises(UserError, match="beside another teacher"):
        beside_another.load_state_dict(state)
    del state["_extra_state"]
    beside_another.load_state_dict(state, strict=False)
    assert beside_another(tokens()).logits.equal(model(tokens()).logits)


def test_the_teacher_is_the_model_as_it_was_or_another() -> None:
    pretrained = tiny_model()
    model = StochCA(pretrained)
    changed(pretrained)
    for name, parameter in tiny_model().model.named_parameters():
        assert model.teacher.get_parameter(name).equal(parameter)
    given = StochCA(changed(tiny_model()), teacher=tiny_model())
    assert given(tokens(), cross_layers=[1]).logits.equal(model(tokens(), cross_layers=[1]).logits)
    with pytest.raises(UserError, match="the teacher of a StochCA can't be replaced"):
        given.teacher = pretrained  # type: ignore[misc]
    given.teacher.train()  # as an owner does that trains all it has
    given(tokens(), cross_layers=[1])
    assert not any(part.training for part in given.teacher.modules())
    assert model.to(torch.bfloat16).teacher.dtype == torch.bfloat16


def test_what_it_does_not_take() -> None:
    model = tiny_model()
    with pytest.raises(UserError, match="the model itself"):
        StochCA(model, teacher=model)
    with pytest.raises(UserError, match="the shape of embed_tokens"):
        StochCA(model, teacher=tiny_model(vocab_size=41))
    for settings in (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}},
        {"num_attention_heads": 2, "num_key_value_heads": 1},
    ):
        name = next(iter(settings))
        with pytest.raises(UserError, match=f"config.{name} is .* in the teacher, .* in the student"):
            StochCA(model, teacher=tiny_model(**settings))
    with pytest.raises(UserError, match="prob must be between 0 and 1"):
        StochCA(model, 1.5)
    with pytest.raises(UserError, match=r"cross_layers \[3\] don't exist"):
        StochCA(model)(tokens(), cross_layers=[3])
    cache = model(tokens(), use_cache=True).past_key_values
    with pytest.raises(UserError, match="has not seen the tokens"):
        StochCA(model)(tokens(), past_key_values=cache, cross_layers=[1])
