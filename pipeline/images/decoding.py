"""Any image file to a clean RGB picture of a sensible size, and back to bytes."""

import contextlib
import hashlib
import io
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from pipeline.images.levels import Levels, Span, levels_of, to_8_bits

Image.init()  # loads every decoder, so that the tables below are complete

# Pillow opens these only with another program, or knows their names but not their pixels. Inside IPTC it
# opens any image, of whatever size and format.
_NOT_DECODED = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC"}
# Pillow tries them in this order, and some know only after a look inside that a file is not theirs.
_FORMATS = tuple(dict.fromkeys(("JPEG", "PNG", *(name for name in Image.ID if name not in _NOT_DECODED))))
_LOSSY = {"JPEG", "MPO", "JPEG2000", "WEBP", "AVIF"}
EXTENSIONS = frozenset(
    suffix for suffix, name in Image.registered_extensions().items() if name in _FORMATS
)  # lower case, with the dot

TINY = 128  # pixels, longer side: up to here PNG costs little and keeps every pixel
JPEG_QUALITY = 95
# Times the short side. A model sees the short side at its own size, and the long one is resized along with
# it: what is a line of pixels in the file would take gigabytes.
LONGEST = 100
AGREED = ((0, 255), (0, 65535))  # black and white of a whole format, which no one has to be told of
DARK = 128  # of 255: where no colour of 16 bits is brighter, there may be fewer bits in them
SIGNED, WHITE_IS_ZERO = 2, 0  # in a TIFF: a format of numbers, and a meaning of them

_open_lock = threading.Lock()


class UnusableImage(Exception):
    """The image can't be used; the message says why, as the end of a sentence about the file."""


@dataclass(frozen=True)
class Grey:
    """Values of more than 8 bits, or with signs: a picture by what is black and what is white."""

    values: np.ndarray  # (H, W)
    short_side: int  # to which the picture is made small
    note: str | None  # what else there is to know about the image
    negative: bool = False  # whether the lowest is white

    @property
    def has_agreed_levels(self) -> bool:
        """Whether its black and white are those of a whole format, and so of every other image."""
        span = Span.of(self.values)
        return tuple(levels_of([span])[span.kind]) in AGREED


@dataclass(frozen=True)
class Decoded:
    """A picture ready to be stored."""

    image: Image.Image  # RGB
    lossless: bool  # whether the source kept every pixel
    note: str | None = None  # what the user should know about it
    grey: Grey | None = None  # what `image` was made of, by what it holds itself

    def at(self, levels: Levels | None) -> "Decoded":
        """The same by the levels of a set, where there are any for such values."""
        if self.grey is None or levels is None:
            return self
        return _from_grey(self.grey, self.lossless, levels)


def decode(content: bytes, *, short_side: int, max_megapixels: float) -> Decoded:
    """Decode an image file to upright RGB on white, its short side at most `short_side` pixels.

    Of an animation the first frame is taken. Grey values of more than 8 bits are scaled by what this image
    holds; `Decoded.at` scales them as those of a set.

    Raises:
        UnusableImage: the file is empty, damaged, no image, or larger than `max_megapixels` or thinner than
            `LONGEST` allows, which is found out before any pixel is decoded.
    """
    if not content:
        raise UnusableImage("the file is empty")
    try:
        source = _open(content)
        width, height = source.size
        if width * height > max_megapixels * 1e6:
            raise UnusableImage(
                f"{width} x {height} pixels are more than the limit of {max_megapixels:g} megapixels"
            )
        _refuse_thin(source)
        coding = str(source.tile[0].args) if source.tile else ""  # gone once the pixels are there
        # An MPO is a photo with previews or depth beside it.
        frames = 1 if source.format == "MPO" else getattr(source, "n_frames", 1)
        scale = short_side / min(width, height)
        source.draft(None, (int(width * scale * 2), int(height * scale * 2)))  # JPEG: decode smaller
        source.load()
        with contextlib.suppress(Exception):  # damaged EXIF data don't make the picture useless
            ImageOps.exif_transpose(source, in_place=True)
        note = _lost_bits(source, coding)
        if frames > 1:
            note = f"has {frames} frames, of which the first is used"
        return _decoded(source, short_side, source.format not in _LOSSY, note)
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        raise UnusableImage("is no image that Pillow reads") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise UnusableImage(
            f"can't be decoded: {' '.join(str(error).split()) or type(error).__name__}"
        ) from None


def from_image(image: Image.Image, *, short_side: int, lossless: bool) -> Decoded:
    """The same for a picture that is in memory already."""
    _refuse_thin(image)
    return _decoded(image, short_side, lossless, None)


def encode(image: Image.Image, *, lossless: bool) -> bytes:
    """PNG where the source was lossless or the picture is tiny, else JPEG; the same bytes every time."""
    buffer = io.BytesIO()
    if lossless or max(image.size) <= TINY:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def hash_of_pixels(image: Image.Image) -> bytes:
    """Equal for equal pictures, whatever file they came in."""
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).digest()


def on_white(image: Image.Image) -> Image.Image:
    """Composite an image with transparency on white; RGB."""
    image = image.convert("RGBA")
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image)
    return background.convert("RGB")


def _open(content: bytes) -> ImageFile.ImageFile:
    """Read the header only, without Pillow's own size limit: `decode` has a stricter one of its own."""
    with _open_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            return Image.open(io.BytesIO(content), formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _refuse_thin(image: Image.Image) -> None:
    if max(image.size) > LONGEST * min(image.size):
        width, height = image.size
        raise UnusableImage(f"{width} x {height} pixels are more than {LONGEST} times as long as wide")


def _decoded(source: Image.Image, short_side: int, lossless: bool, note: str | None) -> Decoded:
    values = _grey_values(source)
    if values is not None:
        negative = _tags(source).get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO
        return _from_grey(Grey(values, short_side, note, negative), lossless, {})
    rgb = on_white(source) if source.has_transparency_data else source.convert("RGB")
    return Decoded(_shrink(rgb, short_side), lossless, note)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    """Those of a TIFF, by their numbers; of other formats there are none."""
    return getattr(image, "tag_v2", {})


def _grey_values(image: Image.Image) -> np.ndarray | None:
    """Those that are more than 8 bits, or have signs: what an image holds, whichever way Pillow reads it."""
    tags = _tags(image)
    signed = tags.get(TiffImagePlugin.SAMPLEFORMAT) == (SIGNED,)
    if image.mode == "L" and signed:
        return np.asarray(image).view(np.int8)
    if image.mode == "I" and not signed and tags.get(TiffImagePlugin.BITSPERSAMPLE) == (32,):
        return np.asarray(image).view(np.uint32)
    return np.asarray(image) if image.mode == "F" or image.mode.startswith("I") else None


def _from_grey(grey: Grey, lossless: bool, levels: Levels) -> Decoded:
    span = Span.of(grey.values)
    if not np.isfinite([span.low, span.high]).all():
        raise UnusableImage("holds values that are not finite")
    of_its_own = span.kind not in levels
    used = levels_of([span]) if of_its_own else levels
    black, white = used[span.kind]
    holds = f"holds {span}, of which {black:g} becomes black and {white:g} white"
    notes = [grey.note]
    if of_its_own and not grey.has_agreed_levels:
        notes.append(f"{holds}, for want of other images")
    elif not span.is_within(used):
        notes.append(f"{holds}, and what is beyond likewise")
    shades = to_8_bits(grey.values, used)
    picture = Image.fromarray(255 - shades if grey.negative else shades).convert("RGB")
    return Decoded(_shrink(picture, grey.short_side), lossless, "; ".join(filter(None, notes)) or None, grey)


def _lost_bits(image: Image.Image, coding: str) -> str | None:
    """Of colours Pillow reads 8 bits of 16: dark are those that hold no more than 12."""
    if ";16" not in coding or image.mode.startswith("I"):
        return None
    brightest = int(np.asarray(image.convert("RGB")).max())
    if brightest >= DARK:
        return None
    return f"has colours of 16 bits, whose upper 8 are at most {brightest}; save it with 8 bits"


def _shrink(image: Image.Image, short_side: int) -> Image.Image:
    width, height = image.size
    scale = short_side / min(width, height)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
