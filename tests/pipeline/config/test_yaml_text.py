"""Numbers are what DVC takes them for, whose library is ruamel.yaml."""

import math
import re

import pytest
import yaml
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError

from pipeline.config.params import PARAMS_FILE, parse_params
from pipeline.config.yaml_text import read_yaml
from stochca.errors import UserError

NUMBERS = """1e-5 1E5 1.0e-5 1e+5 -1e-3 1.e5 12e03 .5 5. +.5 -0.25 1_0.5 .inf -.inf +.INF
0 -0 +1 7 010 08 -010 0o10 0x1F 0b11 -0x1F 1_000 9223372036854775807"""
TEXTS = "1e 0o9 _1 - 1-2 1e5x 0x 1.5.2 e5 12:30 1:30:00.5 on yes inf nan e-5 --1 1e-5-2 2024"


@pytest.mark.parametrize("text", [*NUMBERS.split(), *TEXTS.split()])
def test_dvc_reads_the_same(text: str) -> None:
    for content in (text, f"{{low: {text}, high: 1}}", f"[1, {text}]"):
        assert repr(read_yaml(content)) == repr(_plain(YAML(typ="safe", pure=True).load(content)))


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, dict) else value


def test_what_is_no_number_to_dvc() -> None:
    assert read_yaml(".5e3") == 500  # text to DVC, but a number to whoever writes it
    assert math.isnan(read_yaml(".nan"))
    assert read_yaml("[true, No, 'x']") == ["true", "No", "x"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: 1\nb: 2\na: 3", "a stands there twice, in the lines 1 and 3"),
        ("b:\n  c: 1\n  d: 1\n  c: 1", "c stands there twice, in the lines 2 and 4"),
        ("[{x: 1, x: 2}]", "x stands there twice, in the lines 1 and 1"),
    ],
)
def test_a_key_that_stands_twice_is_refused_as_dvc_does(text: str, named: str) -> None:
    with pytest.raises(DuplicateKeyError):
        YAML(typ="safe", pure=True).load(text)
    with pytest.raises(UserError, match=f"^it can't be read as YAML: {named}; keep one$"):
        parse_params(text, "it")


def test_what_is_merged_may_be_replaced() -> None:
    text = "a: &a {x: 1, y: 1}\nb: {<<: *a, x: 2}\n1: a\n'1': b"
    assert read_yaml(text) == _plain(YAML(typ="safe", pure=True).load(text))
    assert read_yaml(text)["b"] == {"x": 2, "y": 1}


TEXT = PARAMS_FILE.read_text()


def with_setting(key: str, value: str) -> str:
    text, count = re.subn(rf"(?m)^(  {key}:) .*$", rf"\1 {value}", TEXT)
    assert count
    return text


def test_a_rate_is_a_number_wherever_it_stands() -> None:
    for lr in ("{low: 1e-5, high: 1e-3}", "[1e-5, 1E-4]"):
        tune = parse_params(with_setting("lr", lr).replace(f"lr: {lr}", "lr: 3e-5", 1), "it").tune
        assert tune.lr is not None
    weights = parse_params(with_setting("class_weights", "{a: 1e-1}"), "it").training.class_weights
    assert weights == {"a": 0.1}


@pytest.mark.parametrize("seeds", ["[1e1]", "[0, 1.0]"])
def test_seeds_are_written_as_they_are_named(seeds: str) -> None:
    with pytest.raises(UserError, match=r"protocol.seeds.\d.* without a point or an e, found 1"):
        parse_params(with_setting("seeds", seeds), "it")
    assert yaml.safe_load(TEXT)["protocol"]["seeds"] == parse_params(TEXT, "it").protocol.seeds
