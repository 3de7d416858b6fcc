"""Any image file to a clean RGB picture of a sensible size, and back to bytes."""

import contextlib
import hashlib
import io
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

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

_open_lock = threading.Lock()


class UnusableImage(Exception):
    """The image can't be used; the message says why, as the end of a sentence about the file."""


@dataclass(frozen=True)
class Decoded:
    """A picture ready to be stored."""

    image: Image.Image  # RGB
    lossless: bool  # whether the source kept every pixel
    note: str | None = None  # what the user should know about it


def decode(content: bytes, *, short_side: int, max_megapixels: float) -> Decoded:
    """Decode an image file to upright RGB on white, its short side at most `short_side` pixels.

    Of an animation the first frame is taken. Values of more than 8 bits are scaled, not clipped.

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
        # An MPO is a photo with previews or depth beside it.
        frames = 1 if source.format == "MPO" else getattr(source, "n_frames", 1)
        scale = short_side / min(width, height)
        source.draft(None, (int(width * scale * 2), int(height * scale * 2)))  # JPEG: decode smaller
        source.load()
        with contextlib.suppress(Exception):  # damaged EXIF data don't make the picture useless
            ImageOps.exif_transpose(source, in_place=True)
        image, note = _to_rgb(source)
        image = _shrink(image, short_side)
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        raise UnusableImage("is no image that Pillow reads") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        raise UnusableImage(
            f"can't be decoded: {' '.join(str(error).split()) or type(error).__name__}"
        ) from None
    if frames > 1:
        note = f"has {frames} frames, of which the first is used"
    return Decoded(image, lossless=source.format not in _LOSSY, note=note)


def from_image(image: Image.Image, *, short_side: int, lossless: bool) -> Decoded:
    """The same for a picture that is in memory already."""
    _refuse_thin(image)
    rgb, note = _to_rgb(image)
    return Decoded(_shrink(rgb, short_side), lossless, note)


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


def _open(content: bytes) -> Image.Image:
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


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    if image.mode.startswith("I;16"):
        return _from_16_bit(np.asarray(image)), None
    if image.mode in ("I", "F"):
        return _from_32_bit(np.asarray(image))
    if image.has_transparency_data:
        return on_white(image), None
    return image.convert("RGB"), None


def _from_16_bit(values: np.ndarray) -> Image.Image:
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)).convert(
        "RGB"
    )


def _from_32_bit(values: np.ndarray) -> tuple[Image.Image, str | None]:
    """Integers within 16 bits are such; anything else has no agreed white, so its range is stretched."""
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise UnusableImage("holds values that are not finite")
    if values.dtype.kind == "i" and low >= 0 and high <= 65535:
        return _from_16_bit(values), None
    stretched = (values.astype(np.float64) - low) / max(high - low, 1e-12) * 255
    image = Image.fromarray(stretched.round().astype(np.uint8)).convert("RGB")
    return image, f"holds values from {low:g} to {high:g}, which were stretched to 8 bits"


def _shrink(image: Image.Image, short_side: int) -> Image.Image:
    width, height = image.size
    scale = short_side / min(width, height)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
