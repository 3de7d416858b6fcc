import pytest

from pipeline.config.datasets import Facts
from pipeline.datasets import (
    cub_200_2011,
    fgvc_aircraft,
    flowers_102,
    nabirds,
    stanford_cars,
    stanford_dogs,
)


@pytest.mark.parametrize(
    ("facts", "images"),
    [
        (cub_200_2011.FACTS, 11_788),
        (stanford_cars.FACTS, 16_185),
        (fgvc_aircraft.FACTS, 10_000),
        (stanford_dogs.FACTS, 20_580),
        (flowers_102.FACTS, 8_189),
        (nabirds.FACTS, 48_562),
    ],
)
def test_splits_add_up_to_what_is_published(facts: Facts, images: int) -> None:
    assert sum(facts.images.values()) == images
    assert facts.url.startswith("http")
