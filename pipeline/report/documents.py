"""The templates of what people read: the page, and tables in Markdown and LaTeX."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
SPECIAL |= {character: f"\\{character}" for character in "&%$#_{}"}
OPTIONS: dict[str, Any] = {
    "loader": PackageLoader("pipeline.report"),
    "undefined": StrictUndefined,
    "trim_blocks": True,
    "lstrip_blocks": True,
}


def escape(text: object) -> str:
    """Text for LaTeX, every character of it printed as it is."""
    return "".join(SPECIAL.get(character, character) for character in str(text))


def in_code(text: str) -> str:
    """Any text as code of Markdown, in which no character has a meaning."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


TEMPLATES = Environment(autoescape=lambda name: (name or "").endswith(".html"), **OPTIONS)
TEMPLATES.filters["cell"] = lambda text: text.replace("|", r"\|")  # of a Markdown table
TEMPLATES.filters["code"] = in_code
LATEX = Environment(
    **OPTIONS,
    finalize=escape,  # of whatever a template prints
    keep_trailing_newline=True,
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
)
