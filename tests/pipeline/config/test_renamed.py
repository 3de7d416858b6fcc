from pathlib import Path
from typing import Any

import pytest

from pipeline.config.params import load_params
from stochca.errors import UserError
from tests.pipeline.config.test_params import load_edited


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("train",), "workers"),
        (("methods", "lora", "train"), "adapter"),
        (("tune", "method", "train"), "adapter"),
    ],
)
def test_the_sentence_names_the_new_name(path: tuple[str, ...], name: str, tmp_path: Path) -> None:
    def edit(raw: dict[str, Any]) -> None:
        for key in path[:-1]:
            raw = raw[key]
        raw[path[-1]] = raw.pop(name, "head")

    sentence = f"the key '{'.'.join(path)}' is called '{name}' now"
    with pytest.raises(UserError, match=sentence):
        load_edited(edit, tmp_path)


def test_todays_names_are_taken() -> None:
    load_params()
