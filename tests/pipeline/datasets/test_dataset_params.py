import pytest

from tests.pipeline.sections import dataset_section


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"name": "torchvision"}, "name torchvision needs a source, for example source: Food101"),
        ({"name": "huggingface", "source": ""}, "needs a source, for example source: OWNER/NAME"),
        ({"name": "cub_200_2011", "source": "x"}, "name cub_200_2011 takes no source, found 'x'"),
        ({"name": "fgvc_aircraft", "source": "model"}, "must be one of variant, family, manufacturer"),
        ({"name": "torchvision", "source": "DTD", "label_column": "a"}, "takes no label_column"),
        ({"name": "huggingface", "source": "a/b", "labels": "a.csv"}, "name huggingface takes no labels"),
        ({"name": "openmoji", "group_column": "a"}, "name openmoji takes no group_column; remove it"),
    ],
)
def test_sources_that_make_no_sense_are_refused(section: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataset_section(**section)


def test_sources_are_taken_where_they_mean_something() -> None:
    for section in (
        {"name": "torchvision", "source": "Food101"},
        {"name": "huggingface", "source": "uoft-cs/cifar100", "label_column": "fine_label"},
        {"name": "image_folder", "labels": "a.csv", "label_column": "kind", "group_column": "patient"},
        {"name": "fgvc_aircraft"},
        {"name": "fgvc_aircraft", "source": "family"},
        {"name": "nabirds"},
    ):
        assert dataset_section(**section).source == section.get("source")
