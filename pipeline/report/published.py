"""Numbers that papers print, to stand beside ours, never among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.report.benchmark_table import PUBLISHED as SOURCE
from pipeline.report.benchmark_table import Block, Cell, Column, TableLine

Protocol = Literal["transfer", "leave_one_domain_out"]


@dataclass(frozen=True)
class Published:
    """Some rows of a paper's table: test accuracy in percent, as printed."""

    protocol: Protocol
    citation: str
    backbone: str
    selection: str
    rows: Mapping[str, Mapping[str, float]]  # by the paper's name of the method, then by dataset.name
    # of leave_one_domain_out: the averages over all domains
    remarks: Mapping[str, str]  # by dataset.name: what keeps its numbers from being compared

    @property
    def title(self) -> str:
        return f"published: {self.citation}, {self.backbone}, {self.selection}"


def _rows(datasets: tuple[str, ...], methods: Mapping[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {name: dict(zip(datasets, numbers, strict=True)) for name, numbers in methods.items()}


DOMAINS = {"pacs": 4, "vlcs": 4, "office_home": 4, "terra_incognita": 4, "domain_net": 6}  # averaged over
DG = tuple(DOMAINS)
RESNET = "ResNet-50 pretrained on ImageNet"
DOMAINBED = "Gulrajani and Lopez-Paz, In Search of Lost Domain Generalization, ICLR 2021"
FGVC = ("cub_200_2011", "nabirds", "flowers_102", "stanford_dogs", "stanford_cars")

PUBLISHED = (
    Published(
        protocol="leave_one_domain_out",
        citation=DOMAINBED,
        backbone=RESNET,
        selection="training-domain validation",
        rows=_rows(DG, {"ERM": (85.5, 77.5, 66.5, 46.1, 40.9)}),
        remarks={},
    ),
    Published(
        protocol="leave_one_domain_out",
        citation="Cha et al., SWAD: Domain Generalization by Seeking Flat Minima, NeurIPS 2021",
        backbone=RESNET,
        selection="training-domain validation",
        rows=_rows(DG, {"SWAD": (88.1, 79.1, 70.6, 50.0, 46.5)}),
        remarks={},
    ),
    Published(
        protocol="leave_one_domain_out",
        citation=DOMAINBED,
        backbone=RESNET,
        selection="oracle",
        rows=_rows(DG, {"ERM": (86.7, 77.6, 66.4, 53.0, 41.3)}),
        remarks={},
    ),
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


def published_blocks(protocol: str, columns: Sequence[Column], datasets: set[str]) -> list[Block]:
    """A block per publication, with its numbers for `datasets` in the columns where they belong."""
    place = "average" if protocol == "leave_one_domain_out" else "all"

    def cell(numbers: Mapping[str, float], column: Column) -> Cell:
        if column.dataset not in datasets & numbers.keys() or column.target != place:
            return Cell(None, missing="not among the numbers that are quoted")
        return Cell(round(numbers[column.dataset] / 100, 6))

    return [
        Block(
            each.title,
            each.selection,
            each.backbone,
            [TableLine(name, [cell(row, column) for column in columns]) for name, row in each.rows.items()],
            SOURCE,
            each.citation,
        )
        for each in _known(protocol, datasets)
    ]


def published_notes(protocol: str, datasets: set[str], backbones: Sequence[str]) -> list[str]:
    """How the runs behind published numbers differ from ours, which have these `backbones`."""
    found = _known(protocol, datasets)
    if not found:
        return []
    theirs = " or ".join(dict.fromkeys(each.backbone for each in found))
    note = (
        f"Published numbers are quoted, not measured here, and not to be ranked with ours: they are of "
        f"{theirs}, ours of {' or '.join(dict.fromkeys(backbones))}; sizes of images and settings differ too."
    )
    remarks = {name: text for each in found for name, text in each.remarks.items() if name in datasets}
    return [note, *(f"{name}: {text}." for name, text in remarks.items())]


def _known(protocol: str, datasets: set[str]) -> list[Published]:
    """What is known of at least one of the datasets under a protocol."""
    return [
        each
        for each in PUBLISHED
        if each.protocol == protocol and any(datasets & row.keys() for row in each.rows.values())
    ]
