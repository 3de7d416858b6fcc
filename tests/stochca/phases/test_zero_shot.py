import pytest
import torch
from torch.nn import functional

from stochca.config import Method, WiseFt, ZeroShot
from stochca.data.examples import Examples
from stochca.errors import UserError
from stochca.phases.first_phase import ClassTexts
from stochca.phases.zero_shot import NamedClasses
from stochca.training.fit import fit
from stochca.training.inputs import Inputs
from tests.stochca.tiny import CLASSES, PREPROCESSING, ColouredSquares, tiny_vit
from tests.stochca.training.test_fit import settings

CPU = torch.device("cpu")


def class_texts(classes: int = CLASSES, space: int = 6, features: int = 16) -> ClassTexts:
    generator = torch.Generator().manual_seed(2)
    texts, projection, bias = (
        torch.randn(*shape, generator=generator) for shape in ((classes, space), (space, features), (space,))
    )
    return ClassTexts(texts, projection, bias, scale=20.0)


def make_head(student: torch.nn.Module, given: ClassTexts, images: ColouredSquares) -> str:
    examples = Examples(images, images, PREPROCESSING, CPU)
    return NamedClasses(ZeroShot()).run(student, examples, given, refit=False)


def clip_logits(student: torch.nn.Module, given: ClassTexts, images: torch.Tensor) -> torch.Tensor:
    """scale · cosine of the image's and the class's features: CLIP's own definition."""
    student.eval()
    hidden = student.forward_head(student.forward_features(images), pre_logits=True)  # type: ignore[operator]
    seen = hidden @ given.projection.T + given.bias
    return given.scale * functional.cosine_similarity(seen[:, None], given.texts[None], dim=-1)


def test_the_head_predicts_what_clip_predicts() -> None:
    student, given = tiny_vit(), class_texts()
    images = ColouredSquares(40)
    note = make_head(student, given, images)
    transform = PREPROCESSING.evaluation()
    batch = torch.stack([transform(images[i][0]) for i in range(40)])
    expected = clip_logits(student, given, batch)
    found = student(batch)
    # The same up to a positive factor per image, which is about 1.
    factor = found / expected
    torch.testing.assert_close(factor, factor.mean(dim=1, keepdim=True).expand_as(factor), rtol=1e-3, atol=0)
    assert factor.min() > 0
    assert factor.mean().item() == pytest.approx(1, abs=0.05)
    accuracy = (expected.argmax(dim=1) == torch.tensor(images.labels)).double().mean().item()
    assert (
        note == f"the head was made from the names of the classes: accuracy {accuracy:.3f} without training"
    )


def test_training_starts_from_that_head() -> None:
    """WiSE-FT with alpha 0 keeps what the first phase has left."""
    found, expected, given = tiny_vit(), tiny_vit(), class_texts()
    validation = ColouredSquares(30, seed=1)
    fitted = fit(
        Inputs(
            found,
            ColouredSquares(40),
            validation,
            method=Method(phases=ZeroShot(), average=WiseFt(alpha=0.0)),
            settings=settings(drop_path=0.0),
            preprocessing=PREPROCESSING,
            class_texts=given,
        ),
        device=CPU,
    )
    make_head(expected, given, validation)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value)
    assert fitted.notes[0].startswith("the head was made from the names of the classes")
    assert fitted.notes[1] == "WiSE-FT kept alpha 0."


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "phases zero_shot needs the text features of the classes"),
        (class_texts(classes=4), "4 texts of 6 numbers .* don't suit a head from 16 features to 3 classes"),
        (class_texts(features=8), "a projection from 8 to 6 don't suit a head from 16 features"),
    ],
)
def test_texts_that_do_not_suit_are_refused(given: ClassTexts | None, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        fit(
            Inputs(
                tiny_vit(),
                ColouredSquares(8),
                ColouredSquares(8),
                method=Method(phases=ZeroShot()),
                settings=settings(),
                preprocessing=PREPROCESSING,
                class_texts=given,
            ),
            device=CPU,
        )
