"""Every row of the table in contract/resize.md, and files that mean harm."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pi_runtime import ClueError
from pi_runtime.images import decode

NOISE = np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG by hand: of depths that Pillow does not write, and with headers that lie."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def pixels(content: bytes, color: str = "RGB", max_pixels: int = decode.MAX_PIXELS) -> Any:
    return decode.decode(io.BytesIO(content), "it", color, max_pixels)


@pytest.mark.parametrize(("format_", "options"), [
    ("PNG", {}), ("BMP", {}), ("PPM", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
])  # fmt: skip
def test_exact_formats_are_exact(format_: str, options: dict[str, Any]) -> None:
    assert np.array_equal(pixels(saved(Image.fromarray(NOISE), format_, **options)), NOISE)


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(Image.fromarray(NOISE), "PNG"))
    assert np.array_equal(decode.read(tmp_path / "a.jpg", "RGB"), NOISE)


UPRIGHT = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
# How a camera stores it: what the value of the tag says must be undone.
STORED = {
    1: UPRIGHT, 2: UPRIGHT[:, ::-1], 3: UPRIGHT[::-1, ::-1], 4: UPRIGHT[::-1], 5: UPRIGHT.T,
    6: np.rot90(UPRIGHT), 7: UPRIGHT[::-1, ::-1].T, 8: np.rot90(UPRIGHT, -1),
}  # fmt: skip


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("value", STORED)
def test_every_orientation_becomes_upright(value: int, format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    options = {"lossless": True} if format_ == "WEBP" else {}
    image = Image.fromarray(np.ascontiguousarray(STORED[value])).convert("RGB")
    found = pixels(saved(image, format_, exif=exif, **options))
    assert np.array_equal(found[..., 0], UPRIGHT)


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_an_unknown_orientation_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert np.array_equal(pixels(saved(Image.fromarray(NOISE), "PNG", exif=exif)), NOISE)


def test_damaged_metadata_do_not_lose_the_picture() -> None:
    content = saved(Image.fromarray(NOISE), "PNG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert np.array_equal(pixels(content), NOISE)


def test_transparency_is_rounded_on_black() -> None:
    value, alpha = (each.astype(np.uint8) for each in np.mgrid[:256, :256])
    rgba = np.dstack([value, 255 - value, value // 2, alpha])
    found = pixels(saved(Image.fromarray(rgba), "PNG")).astype(int)
    exact = rgba[..., :3] * (alpha[..., None] / 255.0)
    assert abs(found - exact).max() <= 0.5
    assert np.array_equal(found[:, 255], rgba[:, 255, :3])
    assert not found[:, 0].any()


def test_a_transparent_colour_and_a_transparent_palette_entry_are_black() -> None:
    content = saved(Image.fromarray(NOISE), "PNG", transparency=tuple(NOISE[2, 3].tolist()))
    expected = NOISE.copy()
    expected[2, 3] = 0
    assert np.array_equal(pixels(content), expected)
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert pixels(saved(palette, "PNG", transparency=1)).tolist() == [[[10, 20, 30], [0, 0, 0]]]
    assert pixels(saved(palette, "GIF")).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_grey_models_get_the_luma_of_the_contract() -> None:
    every = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    red, green, blue = (every[..., i].astype(int) for i in range(3))
    found = pixels(saved(Image.fromarray(every), "PNG"), "L")
    assert np.array_equal(found[..., 0], (19595 * red + 38470 * green + 7471 * blue + 32768) // 65536)
    assert np.array_equal(found[..., 0], np.asarray(Image.fromarray(every).convert("L")))
    grey = np.repeat(every[..., :1], 3, axis=2)
    assert np.array_equal(pixels(saved(Image.fromarray(grey), "PNG"), "L"), grey[..., :1])


def test_cmyk_is_converted_by_the_formula() -> None:
    inks = np.random.default_rng(0).integers(0, 256, (50, 60, 4), np.uint8)
    found = pixels(saved(Image.fromarray(inks, "CMYK"), "TIFF")).astype(int)
    light = 255 - inks[..., 3:].astype(int)
    exact = np.floor(inks[..., :3] * light / 255 + 0.5).astype(int)
    assert np.array_equal(found, light - exact)


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_of_16_bits_the_upper_byte_counts(colour: int, channels: int) -> None:
    samples = np.random.default_rng(colour).integers(0, 65_536, (5, 7, channels), np.uint16)
    if channels in (2, 4):
        samples[..., -1] = 65_535  # opaque
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    found = pixels(png(7, 5, 16, colour, rows))
    colours = samples[..., :-1] if channels in (2, 4) else samples
    assert np.array_equal(found, np.broadcast_to(colours >> 8, (5, 7, 3)))


def test_16_bits_in_pgm_and_tiff() -> None:
    samples = np.random.default_rng(0).integers(0, 65_536, (5, 7), np.uint16)
    upper = np.repeat((samples >> 8)[..., None], 3, axis=2)
    assert np.array_equal(pixels(b"P5 7 5 65535\n" + samples.astype(">u2").tobytes()), upper)
    assert np.array_equal(pixels(saved(Image.fromarray(samples), "TIFF")), upper)


def test_a_transparent_16_bit_grey_is_black() -> None:
    rows = b"\0" + struct.pack(">HH", 40_000, 300)
    content = png(2, 1, 16, 0, rows, chunk(b"tRNS", struct.pack(">H", 40_000)))
    assert pixels(content, "L").tolist() == [[[0], [1]]]


def test_of_several_frames_the_first_counts() -> None:
    other = Image.fromarray(255 - NOISE)
    for format_, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        content = saved(Image.fromarray(NOISE), format_, save_all=True, append_images=[other], **options)
        assert Image.open(io.BytesIO(content)).n_frames == 2  # type: ignore[attr-defined]
        assert np.array_equal(pixels(content), NOISE), format_
    gif = saved(Image.new("RGB", (4, 4), (200, 0, 0)), "GIF", save_all=True,
                append_images=[Image.new("RGB", (4, 4), (0, 200, 0))])  # fmt: skip
    assert np.all(pixels(gif) == [200, 0, 0])


def test_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False]]))
    assert pixels(saved(image, "PNG"), "L").tolist() == [[[255], [0]]]


# --- refused


@pytest.mark.parametrize("image", [
    Image.new("F", (3, 3)), Image.new("I", (3, 3)), Image.new("LAB", (3, 3)),
])  # fmt: skip
def test_other_kinds_of_pixels_are_refused(image: Image.Image) -> None:
    with pytest.raises(ClueError, match="it has pixels of another kind"):
        pixels(saved(image, "TIFF"))


@pytest.mark.parametrize("content", [
    b"P6 1 1 1023\n\x01\x01\x01\x01\x01\x01", b"P3 1 1 255\n1 2 3\n", b"P5 1 1 300\n\x00\x01",
])  # fmt: skip
def test_scaled_and_textual_ppm_are_refused(content: bytes) -> None:
    with pytest.raises(ClueError, match="it is text or has another maximum"):
        pixels(content)


@pytest.mark.parametrize("content", [
    b"<svg xmlns='http://www.w3.org/2000/svg' width='4' height='4'/>",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    b"%PDF-1.7\n",
    b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
    b"PK\x03\x04", b"\x7fELF", b"\x00", b"#!/bin/sh\n",
])  # fmt: skip
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(ClueError, match="it is no image that can be read: it must be one of BMP, GIF, JPEG"):
        pixels(content)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"])
def test_truncated_files_are_refused(format_: str) -> None:
    whole = saved(Image.effect_noise((80, 60), 90).convert("RGB"), format_)
    for share in (0.02, 0.3, 0.6, 0.95):
        with pytest.raises(ClueError, match=r"^(cannot read the image it|it is no image)"):
            pixels(whole[: int(len(whole) * share)])


def test_empty_files_pipes_devices_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ClueError, match=r"empty.png is empty \(0 bytes\)"):
        decode.read(tmp_path / "empty.png", "RGB")
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(ClueError, match="it is no regular file"):
            decode.read(path, "RGB")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as stream:
        stream.truncate(decode.MAX_FILE_BYTES + 1)  # takes no place on the disk
    with pytest.raises(ClueError, match=r"a.png has 268,435,457 bytes: images have up to 268,435,456"):
        decode.read(tmp_path / "a.png", "RGB")


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 2), (65_536, 1), (8_193, 8_192)])
def test_a_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    content = png(
        width, height, 8, 2, b""
    )  # nothing behind the header: decoding it would fail in another way
    with pytest.raises(ClueError, match=r"(pixels: up to 67,108,864 and 65,535 a side|more pixels than)"):
        pixels(content)


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """One that unpacks: 8,000 x 8,000 pixels in 200 kB, within the default limit but not within this one."""
    import tracemalloc

    content = png(8_000, 8_000, 8, 0, bytes(8_001 * 8_000))
    assert len(content) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(ClueError, match="8000 x 8000 pixels: up to 1,000,000"):
            pixels(content, max_pixels=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_text_that_unpacks_to_much_is_refused() -> None:
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000)))
    with pytest.raises(ClueError, match="cannot read the image it: "):
        pixels(png(1, 1, 8, 0, b"\0\0", text))


@pytest.mark.parametrize("limit", [0, -1, decode.MOST_PIXELS + 1])
def test_limits_that_cannot_be_kept(limit: int) -> None:
    with pytest.raises(ClueError, match="is not from 1 to 89,478,485"):
        decode.check_limit(limit)


def test_stripes_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_STRIPE", 20)
    assert np.array_equal(pixels(saved(Image.fromarray(NOISE), "PNG")), NOISE)
