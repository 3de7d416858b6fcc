"""Numbers that papers print, to stand beside ours, never among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.report.benchmark_table import PUBLISHED as SOURCE
from pipeline.report.benchmark_table import Block, Cell, Column


@dataclass(frozen=True)
class Published:
    """Some rows of a paper's table: test accuracy in percent, as printed."""

    protocol: Literal["transfer", "leave_one_domain_out"]
    citation: str
    backbone: str
    selection: str
    rows: Mapping[str, Mapping[str, float]]  # by the paper's name of the method, then by dataset.name
    # of leave_one_domain_out: the averages over all domains
    # by dataset.name: what keeps its numbers from being compared
    remarks: Mapping[str, str] = field(default_factory=dict)


def _rows(datasets: tuple[str, ...], methods: Mapping[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {name: dict(zip(datasets, numbers, strict=True)) for name, numbers in methods.items()}


DOMAINS = {"pacs": 4, "vlcs": 4, "office_home": 4, "terra_incognita": 4, "domain_net": 6}  # averaged over
DOMAINBED = "Gulrajani and Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021"
FGVC = ("cub_200_2011", "nabirds", "flowers_102", "stanford_dogs", "stanford_cars")


def _of_domains(citation: str, selection: str, method: str, *numbers: float) -> Published:
    rows = _rows(tuple(DOMAINS), {method: numbers})
    return Published("leave_one_domain_out", citation, "ResNet-50 pretrained on ImageNet", selection, rows)


PUBLISHED = (
    _of_domains(DOMAINBED, "training-domain validation", "ERM", 85.5, 77.5, 66.5, 46.1, 40.9),
    _of_domains(
        "Cha et al., SWAD: Domain Generalization by Seeking Flat Minima, NeurIPS 2021",
        *("training-domain validation", "SWAD", 88.1, 79.1, 70.6, 50.0, 46.5),
    ),
    _of_domains(DOMAINBED, "oracle", "ERM", 86.7, 77.6, 66.4, 53.0, 41.3),
    Published(
        protocol="transfer",
        citation="Shi et al., TOAST: Transfer Learning via Attention Steering, arXiv 2305.15542",
        backbone="ViT-B pretrained on ImageNet-1k",
        selection="as its authors chose",
        rows=_rows(
            FGVC,
            {
                "linear probe": (76.8, 47.3, 81.7, 97.7, 60.3),
                "full fine-tuning": (80.5, 60.2, 86.9, 94.7, 83.2),
                "VPT": (76.9, 72.2, 80.6, 97.3, 62.8),
                "LoRA": (82.5, 71.2, 81.2, 97.5, 76.6),
                "TOAST": (85.0, 75.2, 88.7, 97.4, 84.5),
                "TOAST-Lite": (84.5, 76.9, 89.4, 97.4, 82.0),
            },
        ),
        remarks={"stanford_dogs": "its images are part of ImageNet, on which the backbone was pretrained"},
    ),
)


def published(
    protocol: str, columns: Sequence[Column], datasets: set[str], backbones: Sequence[str]
) -> tuple[list[Block], list[str]]:
    """A block per publication, with its numbers for `datasets` in the columns where they belong.

    With notes on how the runs behind them differ from ours, which have these `backbones`.
    """
    place = "average" if protocol == "leave_one_domain_out" else "all"
    found = [
        each
        for each in PUBLISHED
        if each.protocol == protocol and any(datasets & row.keys() for row in each.rows.values())
    ]
    if not found:
        return [], []

    def cell(numbers: Mapping[str, float], column: Column) -> Cell:
        if column.dataset not in datasets & numbers.keys() or column.target != place:
            return Cell(None, missing="not among the numbers that are quoted")
        return Cell(round(numbers[column.dataset] / 100, 6))

    blocks = [
        Block(
            f"published: {each.citation}, {each.backbone}, {each.selection}",
            each.selection,
            each.backbone,
            {name: [cell(row, column) for column in columns] for name, row in each.rows.items()},
            SOURCE,
            each.citation,
        )
        for each in found
    ]
    theirs = " or ".join(dict.fromkeys(each.backbone for each in found))
    note = (
        f"Published numbers are quoted, not measured here, and not to be ranked with ours: they are of "
        f"{theirs}, ours of {' or '.join(dict.fromkeys(backbones))}; sizes of images and settings differ too."
    )
    remarks = {name: text for each in found for name, text in each.remarks.items() if name in datasets}
    return blocks, [note, *(f"{name}: {text}." for name, text in remarks.items())]
