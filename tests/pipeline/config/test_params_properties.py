"""Whatever stands in params.yaml, it is read, or refused in one sentence."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.params import Params, parse_params
from stochca.errors import UserError
from tests.imports import ROOT

SHIPPED = yaml.safe_load((ROOT / "params.yaml").read_text())


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything in a nest, the nest's own excepted."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["stochca", "swad", "tuned", "../x", "--help", "<b>", "\x1b[31m", "!!python/object", "0"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def read(text: str) -> Params | None:
    try:
        return parse_params(text, "params.yaml")
    except UserError as error:
        sentence = str(error)
        assert sentence.startswith("params.yaml")
        assert "Traceback" not in sentence
        assert "pydantic" not in sentence
        return None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(place=st.sampled_from(sorted(places(SHIPPED), key=str)), value=VALUES)
def test_any_value_anywhere(place: tuple[Any, ...], value: Any) -> None:
    raw = copy.deepcopy(SHIPPED)
    target = raw
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    read(yaml.safe_dump(raw))


@settings(max_examples=40, deadline=None)
@given(start=st.integers(0, 12_000), length=st.integers(0, 200), text=st.text(max_size=20))
def test_any_text(start: int, length: int, text: str) -> None:
    whole = (ROOT / "params.yaml").read_text()
    read(whole[:start] + text + whole[start + length :])


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/module:os"]
)
def test_tags_never_run_anything(tag: str) -> None:
    with pytest.raises(UserError, match="can't be read as YAML: could not determine a constructor"):
        parse_params(f"training: {tag}\n", "params.yaml")
