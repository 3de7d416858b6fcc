import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.images.decoding import EXTENSIONS, Decoded, UnusableImage, decode, encode, from_image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(content: bytes, short_side: int = 80, max_megapixels: float = 100) -> Decoded:
    decoded = decode(content, short_side=short_side, max_megapixels=max_megapixels)
    assert decoded.image.mode == "RGB"
    return decoded


def pixels(content: bytes, **options: Any) -> np.ndarray:
    return np.asarray(opened(content, **options).image).astype(int)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_values_are_scaled_not_clipped(format: str) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    found = pixels(saved(Image.fromarray(levels * 257), format))
    assert (found == levels[..., None]).all()


def test_16_bit_values_are_rounded_to_the_nearest() -> None:
    levels = np.array([[0, 128, 129, 32767, 65406, 65407, 65535]], dtype=np.uint16)
    found = pixels(saved(Image.fromarray(levels), "PNG"))
    assert found[0, :, 0].tolist() == [0, 0, 1, 127, 254, 255, 255]


@pytest.mark.parametrize("bits", range(1, 17))
def test_values_of_any_number_of_bits_are_seen(bits: int) -> None:
    white = 2**bits - 1
    values = np.array([[0, white // 2, white]], np.uint16)
    decoded = opened(saved(Image.fromarray(values), "PNG"))
    expected = np.floor(values[0] * 255.0 / max(white, 255) + 0.5)
    assert np.asarray(decoded.image)[0, :, 0].tolist() == expected.tolist()
    assert (decoded.note is None) == (bits in (*range(1, 9), 16))
    if decoded.note:
        assert f"from 0 to {white}, of which 0 becomes black and {white} white" in decoded.note


def tiff(values: np.ndarray, sample_format: int, photometric: int = 1) -> bytes:
    """As scanners and microscopes write them; Pillow itself writes few kinds."""
    height, width = values.shape
    data = values.tobytes()
    tags = [
        *(
            (256, width),
            (257, height),
            (258, values.itemsize * 8),
            (259, 1),
            (262, photometric),
            (273, 0),
            (277, 1),
        ),
        *((278, height), (279, len(data)), (339, sample_format)),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize(
    ("kind", "sample_format", "values", "expected"),
    [
        (np.int8, 2, [-128, 0, 127], [0, 128, 255]),
        (np.int16, 2, [-1000, 0, 1000], [0, 127, 255]),
        (np.int16, 2, [0, 2048, 4095], [0, 128, 255]),
        (np.uint16, 1, [0, 2048, 4095], [0, 128, 255]),
        (np.uint32, 1, [0, 1 << 31, (1 << 32) - 1], [0, 128, 255]),
        (np.uint32, 1, [0, 2048, 4095], [0, 128, 255]),
        (np.int32, 2, [-(1 << 31), 0, (1 << 31) - 1], [0, 128, 255]),
        (np.float32, 3, [0.25, 0.5, 0.75], [0, 127, 255]),
        (np.uint8, 1, [0, 128, 250], [0, 128, 250]),
    ],
)
def test_every_kind_of_number(
    kind: Any, sample_format: int, values: list[float], expected: list[int]
) -> None:
    found = pixels(tiff(np.array([values], kind), sample_format))
    assert np.abs(found[0, :, 0] - expected).max() <= 1  # which is a half that is rounded either way


@pytest.mark.parametrize(("kind", "sample_format"), [(np.uint8, 1), (np.uint16, 1), (np.float32, 3)])
def test_where_the_lowest_value_is_white(kind: Any, sample_format: int) -> None:
    values = np.array([[0, 100, 255]], kind)
    expected = np.asarray(opened(tiff(values, sample_format)).image)
    assert (np.asarray(opened(tiff(values, sample_format, photometric=0)).image) == 255 - expected).all()


def test_the_levels_of_a_set_count_not_those_of_an_image() -> None:
    dark = opened(saved(Image.fromarray(np.array([[0, 100, 200]], np.uint16)), "PNG"))
    assert np.asarray(dark.image)[0, :, 0].tolist() == [0, 100, 200]
    assert dark.at(None) is dark
    of_set = dark.at({"whole numbers": [0, 4095]})
    assert np.asarray(of_set.image)[0, :, 0].tolist() == [0, 6, 12]
    assert of_set.note is None
    bright = opened(saved(Image.fromarray(np.array([[0, 4095, 9000]], np.uint16)), "PNG"))
    cut = bright.at({"whole numbers": [0, 4095]})
    assert np.asarray(cut.image)[0, :, 0].tolist() == [0, 255, 255]
    assert cut.note
    assert "from 0 to 9000, of which 0 becomes black and 4095 white, and what is beyond likewise" in cut.note
    other = bright.at({"floating-point numbers": [0, 1]})
    assert other.note == bright.note
    colour = opened(saved(Image.new("RGB", (8, 8), RED), "PNG"))
    assert colour.at({"whole numbers": [0, 4095]}) is colour


def png_of_16_bit_colours(values: np.ndarray) -> bytes:
    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_that_come_out_dark_are_told() -> None:
    values = np.full((4, 4, 3), 4095)
    note = opened(png_of_16_bit_colours(values)).note
    assert note == "has colours of 16 bits, whose upper 8 are at most 15; save it with 8 bits"
    assert opened(png_of_16_bit_colours(values * 16)).note is None
    assert opened(saved(Image.new("RGB", (8, 8)), "PNG")).note is None


def test_float_values_are_stretched_and_told() -> None:
    values = np.linspace(-1, 1, 256, dtype=np.float32).reshape(16, 16)
    decoded = opened(saved(Image.fromarray(values), "TIFF"))
    gray = np.asarray(decoded.image)[..., 0]
    assert (gray.ravel() == np.arange(256)).all()
    assert decoded.note
    assert "from -1 to 1" in decoded.note


def test_values_that_are_not_finite_are_refused() -> None:
    values = np.full((4, 4), np.nan, dtype=np.float32)
    with pytest.raises(UnusableImage, match="not finite"):
        opened(saved(Image.fromarray(values), "TIFF"))


def test_cmyk_jpeg() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(pixels(saved(cyan, "JPEG", quality=95)) - [0, 255, 255]).max() <= 3


def test_palette_with_a_transparent_colour_is_put_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 10, 20, 30])
    image.putpixel((1, 0), 1)
    assert pixels(saved(image, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    assert pixels(saved(image, "PNG")).tolist() == [[[200, 0, 0], [10, 20, 30]]]


@pytest.mark.parametrize(
    ("mode", "black", "expected"),
    [
        ("RGBA", (0, 0, 0, 51), 204),
        ("LA", (0, 51), 204),
        ("RGBA", (0, 0, 0, 0), 255),
        ("L", 0, 0),
        ("1", 0, 0),
    ],
)
def test_transparency_is_composited_on_white(mode: str, black: Any, expected: int) -> None:
    assert (pixels(saved(Image.new(mode, (3, 3), black), "PNG")) == expected).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(format: str, orientation: int) -> None:
    image = Image.new("RGB", (48, 32), RED)
    image.paste(BLUE, (0, 0, 16, 16))
    image.paste((0, 255, 0), (32, 16, 48, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(image, format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")).astype(int)
    found = pixels(content)
    assert found.shape == ((48, 32, 3) if orientation >= 5 else (32, 48, 3))
    assert (found == expected).all()


def test_a_photo_taken_upright_stands_upright() -> None:
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (0, 0, 20, 20))  # left
    exif = Image.Exif()
    exif[0x0112] = 6  # the sensor's left is the top
    found = pixels(saved(image, "PNG", exif=exif))
    assert found.shape == (40, 20, 3)
    assert found[5, 10].tolist() == list(RED)
    assert found[35, 10].tolist() == list(BLUE)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_and_told(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE, (0, 255, 0))]
    decoded = opened(saved(frames[0], format, save_all=True, append_images=frames[1:]))
    assert np.abs(np.asarray(decoded.image).astype(int) - RED).max() <= 3
    assert decoded.note == "has 3 frames, of which the first is used"


def test_a_photo_with_a_second_picture_beside_it_is_no_animation() -> None:
    photo = Image.new("RGB", (16, 16), RED)
    content = saved(photo, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16), BLUE)])
    decoded = opened(content)
    assert decoded.note is None
    assert np.abs(np.asarray(decoded.image).astype(int) - RED).max() <= 3


def test_damaged_files_are_named_for_what_they_are() -> None:
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    jpeg, png = saved(noise, "JPEG"), bytearray(saved(noise, "PNG"))
    png[len(png) // 2] ^= 255
    for content, reason in [
        (b"", "the file is empty"),
        (b"not an image at all", "is no image that Pillow reads"),
        (jpeg[: len(jpeg) // 2], "truncated"),
        (bytes(png), "can't be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image that Pillow reads"),
    ]:
        with pytest.raises(UnusableImage, match=reason) as error:
            opened(content)
        assert "0x" not in str(error.value)  # no memory addresses: reports are the same every time


@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "ICO", "JPEG2000"]
)
def test_cut_and_garbled_files_never_break_anything(format: str) -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    frames = {"save_all": True, "append_images": [ImageOps.invert(image)]} if format == "GIF" else {}
    whole = saved(image, format, **frames)
    opened(whole)
    for _ in range(60):
        content = bytearray(whole[: random.integers(1, len(whole) + 1)])
        content[random.integers(len(content))] = random.integers(256)
        try:
            opened(bytes(content))
        except UnusableImage as error:
            assert str(error)  # noqa: PT017


def test_gigantic_images_are_refused_by_their_header() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content, limit, size in [
            (png_header(60_000, 60_000), 100, "60000 x 60000"),  # where Pillow itself would raise
            (png_header(10_000, 10_001), 100, "10000 x 10001"),  # where Pillow itself would warn
            (saved(Image.new("RGB", (20, 10)), "PNG"), 0.0001, "20 x 10"),
        ]:
            with pytest.raises(UnusableImage, match=f"{size} pixels are more than the limit of {limit} meg"):
                opened(content, max_megapixels=limit)
        with pytest.raises(UnusableImage, match="can't be decoded"):  # allowed, so it is decoded
            opened(png_header(10_000, 9_999), max_megapixels=100)
        assert Image.MAX_IMAGE_PIXELS == 89478485  # Pillow's own protection stands for everyone else


@pytest.mark.parametrize("size", [(1, 20_000), (200_000, 1), (3, 301)])
def test_thin_images_are_refused_by_their_header(size: tuple[int, int]) -> None:
    """At 224 pixels, resizing 1 x 20,000 takes 4 GB."""
    width, height = size
    reason = f"{width} x {height} pixels are more than 100 times as long as wide"
    for content in (png_header(width, height), saved(Image.new("1", size), "PNG")):
        with pytest.raises(UnusableImage, match=reason):
            opened(content)
    with pytest.raises(UnusableImage, match=reason):
        from_image(Image.new("L", size), short_side=80, lossless=True)


def test_long_images_are_not_thin() -> None:
    assert opened(saved(Image.new("RGB", (3, 300)), "PNG")).image.size == (3, 300)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((200, 100), (160, 80)),
        ((100, 200), (80, 160)),
        ((81, 300), (80, 296)),
        ((60, 30), (60, 30)),
        ((80, 90), (80, 90)),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_the_short_side_is_bounded_and_nothing_is_enlarged(
    format: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert opened(saved(Image.new("RGB", size), format)).image.size == expected


def test_shrinking_averages() -> None:
    board = ((np.indices((256, 256)).sum(axis=0) % 2) * 255).astype(np.uint8)
    found = pixels(saved(Image.fromarray(board), "PNG"), short_side=64)
    assert np.abs(found[8:-8, 8:-8] - 127.5).max() < 10


def test_a_large_jpeg_keeps_its_picture() -> None:
    ramp = np.tile(np.linspace(0, 255, 3000).astype(np.uint8), (1500, 1))
    found = pixels(saved(Image.fromarray(ramp), "JPEG", quality=95))
    assert found.shape == (80, 160, 3)
    assert np.abs(found[40, :, 0] - np.linspace(0, 255, 160)).max() < 4


def test_encoding_keeps_lossless_sources_exactly_and_repeats_itself() -> None:
    noise = Image.effect_noise((300, 200), 80).convert("RGB")
    for lossless, format in ((True, "PNG"), (False, "JPEG")):
        content = encode(noise, lossless=lossless)
        assert content == encode(noise.copy(), lossless=lossless)
        assert Image.open(io.BytesIO(content)).format == format
    assert Image.open(io.BytesIO(encode(noise, lossless=True))).tobytes() == noise.tobytes()
    tiny = noise.crop((0, 0, 100, 80))
    assert Image.open(io.BytesIO(encode(tiny, lossless=False))).tobytes() == tiny.tobytes()


@pytest.mark.parametrize(
    ("format", "lossless"), [("PNG", True), ("BMP", True), ("JPEG", False), ("WEBP", False)]
)
def test_what_counts_as_lossless(format: str, lossless: bool) -> None:
    assert opened(saved(Image.new("RGB", (8, 8)), format)).lossless is lossless


def test_extensions_are_those_of_images() -> None:
    assert {".jpg", ".jpeg", ".png", ".gif", ".webp", ".tif", ".tiff", ".bmp"} <= EXTENSIONS
    assert not {".eps", ".pdf", ".mpg", ".h5", ".txt"} & EXTENSIONS


def test_what_pillow_would_open_inside_another_file_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header of an IPTC file says nothing about the size and the format of the image that it holds."""

    def field(record: int, number: int, data: bytes) -> bytes:
        return b"\x1c" + bytes([record, number]) + struct.pack(">H", len(data)) + data

    one = struct.pack(">H", 1)
    header = field(3, 60, b"\1\0") + field(3, 20, one) + field(3, 30, one) + field(3, 120, b"\1")
    content = header + field(8, 10, saved(Image.new("RGB", (300, 300)), "PNG"))
    assert Image.open(io.BytesIO(content)).format == "IPTC"
    with pytest.raises(UnusableImage, match="is no image that Pillow reads"):
        opened(content, max_megapixels=1e-5)
