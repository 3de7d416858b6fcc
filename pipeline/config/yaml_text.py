"""YAML as params.yaml has it: numbers as DVC reads them, true and its like as text, and each key once.

PyYAML reads YAML 1.1, in which 1e-5 is text, 010 is eight and 12:30 is 750. DVC reads 1.2, and makes names
of stages of it.
"""

import re
from typing import Any

import yaml

_INT = re.compile(r"[-+]?(?:[0-9][0-9_]*|0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)$")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$"
    r"|\.(?:nan|NaN|NAN)$"
)
_OWN = ("bool", "int", "float")  # fields that are booleans read text, and numbers refuse it


class Loader(yaml.SafeLoader):
    """Resolves numbers by the rules of YAML 1.2, and no booleans; refuses a key that stands there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """PyYAML lets the last count, unnoticed. What `<<` brings along may be replaced."""
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in lines:
                raise yaml.YAMLError(
                    f"{key.value} stands there twice, in the lines {lines[name]} and {line}; keep one"
                )
            lines[name] = line
        return super().construct_mapping(node, deep)


Loader.yaml_implicit_resolvers = {
    first: [each for each in resolvers if each[0].removeprefix("tag:yaml.org,2002:") not in _OWN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _whole_number(loader: Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 0) if re.match(r"[-+]?0[box]", text) else int(text)


Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def read_yaml(text: str) -> Any:
    """Raises `yaml.YAMLError`."""
    return yaml.load(text, Loader)
