"""The table of families in docs/families.md, from what the tests' tiny models can do.

python -m tests.stochca.families.table          # print it
python -m tests.stochca.families.table --write  # put it into docs/families.md
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stochca
from tests.stochca.families.cases import CASES, Case, images

PAGE = Path("docs/families.md")
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"

METHODS: dict[str, Callable[[Any], Any]] = {"StochCA": stochca.StochCA}


def table() -> str:
    """One row per family: its classes, which methods work on all of its variants, and an example."""
    families: dict[str, list[Case]] = {}
    for case in CASES.values():
        families.setdefault(case.family, []).append(case)
    rows = [
        ["Family", "timm class", *METHODS, "Example"],
        ["---"] * (3 + len(METHODS)),
        *(
            [
                family,
                f"`{type(cases[0].model()).__name__}`",
                *("yes" if all(works(wrap, case) for case in cases) else "no" for wrap in METHODS.values()),
                f"`{cases[0].example}`",
            ]
            for family, cases in families.items()
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def works(wrap: Callable[[Any], Any], case: Case) -> bool:
    """Whether the method takes the model, and its loss reaches parameters in training mode."""
    try:
        model = wrap(case.model()).train()
    except stochca.UserError:
        return False
    model(images()).square().sum().backward()
    return any(parameter.grad is not None for parameter in model.parameters())


def in_page(page: str) -> str:
    """The table that stands between the page's markers."""
    return page.split(BEGIN)[1].split(END)[0].strip()


def main() -> None:
    if "--write" in sys.argv[1:]:
        page = PAGE.read_text()
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")
    else:
        print(table())


if __name__ == "__main__":
    main()
