"""The table of families in docs/families.md, from what the tests' tiny models can do.

python -m tests.stochca.timm_models.families.table          # print it
python -m tests.stochca.timm_models.families.table --write  # put it into docs/families.md
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import stochca
from stochca._typing import TimmModule
from stochca.config import Lora, Method, build
from stochca.timm_models.families import head_modules
from stochca.training.composition import compose
from tests.stochca.timm_models.families.cases import CASES, Case, images

PAGE = Path("docs/families.md")
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"


def _lora(model: TimmModule) -> nn.Module:
    train = Lora(rank=2)
    build(train).check(model)
    return compose(Method(adapter=train), model)[0]


METHODS: dict[str, Callable[[TimmModule], nn.Module]] = {
    "StochCA": stochca.StochCA,
    "LoRA": _lora,
    "VPT": stochca.VPT,
    "TOAST": stochca.TOAST,
}
# Every case: tests/pipeline/commands/test_export.py makes graphs of them all, and compares what they give.
EXPORT = "ONNX, any batch size"


def table() -> str:
    """One row per family: its classes, which methods work on all of its variants, exports, and an example."""
    families: dict[str, list[Case]] = {}
    for case in CASES.values():
        families.setdefault(case.family, []).append(case)
    rows = [
        ["Family", "timm class", *METHODS, EXPORT, "Example"],
        ["---"] * (4 + len(METHODS)),
        *(
            [
                family,
                f"`{type(cases[0].model()).__name__}`",
                *("yes" if all(works(wrap, case) for case in cases) else "no" for wrap in METHODS.values()),
                "yes",
                f"`{cases[0].example}`",
            ]
            for family, cases in families.items()
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def works(wrap: Callable[[TimmModule], nn.Module], case: Case) -> bool:
    """Whether the method takes the model, what learns gets gradients, and changes of it show."""
    torch.manual_seed(0)
    student = case.model()
    head = {id(parameter) for module in head_modules(student) for parameter in module.parameters()}
    try:
        model = wrap(student).train()
    except stochca.UserError:
        return False
    model(images()).square().sum().backward()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    reached = any(p.grad is not None and p.grad.any() for p in learning if id(p) not in head)
    model.eval()
    with torch.no_grad():
        before = model(images())
        for parameter in learning:
            if id(parameter) not in head:
                parameter.add_(0.3 * torch.randn_like(parameter))
        return reached and not torch.equal(model(images()), before)


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
