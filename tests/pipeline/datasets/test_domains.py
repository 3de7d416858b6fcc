"""What holds for all benchmarks of domain generalization."""

import os
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from pipeline.config.datasets import registered
from pipeline.config.sections import Target
from pipeline.datasets import domain_net, office_home, pacs, terra_incognita, vlcs
from pipeline.datasets.domains import class_folders
from stochca.errors import UserError
from tests.pipeline.datasets.domain_trees import draw

BENCHMARKS = {
    "pacs": pacs,
    "vlcs": vlcs,
    "office_home": office_home,
    "terra_incognita": terra_incognita,
    "domain_net": domain_net,
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_params_may_name_is_what_there_is(name: str) -> None:
    module = BENCHMARKS[name]
    assert registered(name).module == module.__name__
    assert registered(name).domains == tuple(module.FACTS.images)
    for domain in module.FACTS.images:
        TypeAdapter(Target).validate_python(domain)


def test_files_and_folders_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    draw(tmp_path, "b/2.jpg", "b/1.JPEG", "a/3.png", ".hidden/4.jpg", "b/.5.jpg", "b/c/6.jpg", "7.jpg")
    (tmp_path / "b/list.txt").touch()
    (tmp_path / "empty").mkdir()
    assert [(found.class_name, found.place, found.names) for found in class_folders(tmp_path, "photo")] == [
        ("a", "photo/a", ["3.png"]),
        ("b", "photo/b", ["1.JPEG", "2.jpg"]),
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_can_not_be_read(tmp_path: Path) -> None:
    draw(tmp_path, "a/1.jpg")
    (tmp_path / "a").chmod(0)
    try:
        with pytest.raises(UserError, match="can't be read: Permission denied"):
            class_folders(tmp_path, "photo")
    finally:
        (tmp_path / "a").chmod(0o755)
