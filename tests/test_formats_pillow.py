"""PNG, JPEG, BMP and TIFF: exact pixels, the right way up, and nothing but InputError for a bad file."""

import io
import struct
import time

import numpy as np
import pytest
from format_files import (
    CLEAR,
    CODES,
    FILM,
    GREY,
    LUMA,
    RGB,
    both_refused,
    chunks,
    expect,
    expect_labels,
    picture_bytes,
    refused,
    writer,
)
from PIL import Image, ImageOps

from thyroid_jax.data.formats import read_labels, read_mask, read_picture
from thyroid_jax.errors import InputError

put = pytest.fixture(writer, name="put")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff"])
def test_grey_colour_palette_and_one_bit(put, suffix):
    path = put(f"l.{suffix}", Image.fromarray(GREY))
    expect(path, GREY)
    expect_labels(path, GREY)
    path = put(f"rgb.{suffix}", Image.fromarray(RGB))
    expect(path, LUMA, "colour turned to luma")
    expect_labels(path, CODES)
    expect(put(f"same.{suffix}", Image.fromarray(GREY).convert("RGB")), GREY)
    path = put(f"bit.{suffix}", Image.fromarray(GREY > 100))
    expect(path, (GREY > 100) * 255)
    expect_labels(path, GREY > 100)
    indexed = Image.fromarray(GREY // 7)
    indexed.putpalette(np.stack([np.arange(35), np.arange(35) * 2, np.arange(35) * 5], 1).astype(np.uint8).tobytes())
    path = put(f"p.{suffix}", indexed)
    colours = np.stack([GREY // 7, GREY // 7 * 2, GREY // 7 * 5], -1)
    expect(path, np.round(colours @ [0.299, 0.587, 0.114]), "colour turned to luma")
    expect_labels(path, GREY // 7)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparent_parts_are_black_and_no_label(put, suffix):
    half = np.where(GREY > 100, 0, 128).astype(np.uint8)
    path = put(f"la.{suffix}", Image.fromarray(np.stack([GREY, half], -1), "LA"))
    expect(path, np.round(GREY * (half / 255)), "transparent parts are black")
    expect_labels(path, np.where(half, GREY, 0))
    path = put(f"rgba.{suffix}", Image.fromarray(np.dstack([RGB, CLEAR])))
    expect(path, np.where(CLEAR, LUMA, 0), "colour turned to luma", "transparent parts are black")
    expect_labels(path, np.where(CLEAR, CODES, 0))
    solid = Image.fromarray(np.stack([GREY, np.full_like(GREY, 255)], -1), "LA")
    expect(put(f"solid.{suffix}", solid), GREY)


def test_a_png_may_name_one_transparent_value(put):
    path = put("l.png", Image.fromarray(GREY), transparency=70)
    expect(path, np.where(GREY == 70, 0, GREY), "transparent parts are black")
    expect_labels(path, np.where(GREY == 70, 0, GREY))
    path = put("rgb.png", Image.fromarray(RGB), transparency=tuple(int(v) for v in RGB[2, 3]))
    expected = LUMA.copy()
    expected[2, 3] = 0
    expect(path, expected, "colour turned to luma", "transparent parts are black")
    assert read_labels(path)[0, 2, 3] == 0 and (read_labels(path) != 0).sum() == 34
    indexed = Image.fromarray(GREY // 7 % 4 + 1)
    indexed.putpalette([0, 0, 0, 10, 10, 10, 20, 20, 20, 30, 30, 30, 40, 40, 40])
    path = put("p.png", indexed, transparency=bytes([255, 255, 0, 51, 255]))
    expect(path, np.array([0, 10, 0, 6, 40])[GREY // 7 % 4 + 1], "transparent parts are black")
    expect_labels(path, np.array([0, 1, 0, 3, 4])[GREY // 7 % 4 + 1])
    sixteen = Image.fromarray(GREY.astype(np.uint16) * 257)
    expect(
        put("w.png", sixteen, transparency=70 * 257),
        np.where(GREY == 70, 0, GREY),
        "16 bits scaled to 8 by 1/257",
        "transparent parts are black",
    )


def test_grey_png_of_few_bits_keeps_its_labels(put):
    for bits, factor in ((2, 85), (4, 17)):
        values = (GREY // 7) % (1 << bits)
        path = put(f"{bits}.png", chunks(7, 5, bits, 0, few_bits(values, bits)))
        expect(path, values * factor)
        expect_labels(path, values)
        path = put(f"{bits}.png", chunks(7, 5, bits, 0, few_bits(values, bits), clear=3))
        expect(path, np.where(values == 3, 0, values * factor), "transparent parts are black")
        expect_labels(path, np.where(values == 3, 0, values))


def few_bits(values, bits):
    """The rows of a grey PNG of few bits a pixel, each padded to whole bytes."""
    each = (values[..., None] >> np.arange(bits)[::-1]) & 1
    return [row.tobytes() for row in np.packbits(each.reshape(len(values), -1), axis=1)]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_their_full_range(put, suffix):
    wide = GREY.astype(np.uint16) * 257
    path = put(f"w.{suffix}", Image.fromarray(wide))
    expect(path, GREY, "16 bits scaled to 8 by 1/257")
    expect_labels(path, wide)
    twelve = GREY.astype(np.uint16) * 16
    expect(
        put(f"t.{suffix}", Image.fromarray(twelve)),
        np.round(twelve / 257),
        "16 bits scaled to 8 by 1/257",
        "no value reaches 4096: looks like 12 bits and stays dark",
    )
    path = put(f"e.{suffix}", Image.fromarray(GREY.astype(np.uint16)))
    refused(path, "^values: 16 bits, but none is above 238, scaled to 8 bits the picture would be black")
    expect_labels(path, GREY)


def test_big_endian_and_32_bits_and_fractions_in_tiff(put):
    wide = GREY.astype(np.uint16) * 257
    path = put("be.tif", tiff16(wide))
    expect(path, GREY, "16 bits scaled to 8 by 1/257")
    expect_labels(path, wide)
    path = put("i.tif", Image.fromarray(GREY.astype(np.int32)))
    expect(path, GREY, "values of type int32 taken as 8 bits")
    path = put("big.tif", Image.fromarray(GREY.astype(np.int32) * 1000))
    refused(path, "^values: int32 from 0 to 238000, beyond 0 to 255")
    expect_labels(path, GREY.astype(np.int32) * 1000)
    path = put("f.tif", Image.fromarray((GREY / 255).astype(np.float32)))
    expect(path, GREY, "fractions in [0, 1] scaled by 255")
    refused(path, "^values: fractions; the values of a mask are whole", read_labels)
    path = put("g.tif", Image.fromarray(GREY.astype(np.float32)))
    refused(path, r"^values: fractions from 0 to 238, only \[0, 1\]")
    expect_labels(path, GREY)
    refused(put("n.tif", Image.fromarray(np.full((5, 7), np.nan, np.float32))), "^values: fractions from nan")


def tiff16(wide, order=">", photometric=1):
    """A TIFF of 16 bits in either byte order, zero as black (1) or as white (0)."""
    h, w = wide.shape
    tags = [(256, 3, w), (257, 3, h), (258, 3, 16), (259, 3, 1), (262, 3, photometric), (273, 4, 134), (277, 3, 1)]
    tags += [(278, 3, h), (279, 4, 2 * h * w)]
    listed = b"".join(
        struct.pack(order + ("HHIHH" if kind == 3 else "HHII"), tag, kind, 1, value, *([0] if kind == 3 else []))
        for tag, kind, value in tags
    )
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HIH", 42, 8, len(tags)) + listed + bytes(4)
    return head.ljust(134, b"\0") + wide.astype(order + "u2").tobytes()


def test_zero_as_white(put):
    both_refused(put("w.tif", tiff16(GREY.astype(np.uint16), "<", 0)), "^colours: zero is white in a TIFF")
    path = put("bit.tif", Image.fromarray(GREY > 100), tiffinfo={262: 0}, compression="group4")
    expect(path, (GREY > 100) * 255)
    expect_labels(path, GREY > 100)


def test_colour_of_16_bits(put):
    path = put("w.png", chunks(7, 5, 16, 2, (RGB.astype(">u2") * 257).astype(">u2")))
    expect(path, LUMA, "16 bits of colour cut to 8", "colour turned to luma")
    refused(path, "^colours: a mask of 16 bits a colour", read_labels)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_pages_of_a_tiff_are_frames(put, compression):
    first, *rest = (Image.fromarray(frame) for frame in FILM)
    path = put("a.tif", first, save_all=True, append_images=rest, compression=compression)
    expect(path, FILM)
    expect_labels(path, FILM)


def test_pages_that_differ_are_refused(put):
    for other, message in ((GREY[:4], "page 2 is 7 x 4 L, the first is 7 x 5 L"), (RGB, "page 2 is 7 x 5 RGB")):
        path = put("a.tif", Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(other)])
        both_refused(path, f"^pages: {message}")
    path = put("j.tif", Image.fromarray(GREY), tiffinfo={270: "ImageJ=1.54f\nimages=9\nslices=9\n"})
    both_refused(path, "^pages: ImageJ wrote 9 but only 1 are listed; save as a plain TIFF file$")
    path = put("k.tif", Image.fromarray(GREY), tiffinfo={270: "ImageJ=1.54f\nimages=1\n"})
    expect(path, GREY)


def test_an_endless_chain_of_pages_ends(put):
    content = bytearray(picture_bytes(Image.fromarray(GREY), "TIFF"))
    start = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[start : start + 2])[0]
    content[start + 2 + 12 * count :][:4] = b""
    content[start + 2 + 12 * count : start + 6 + 12 * count] = struct.pack("<I", start)
    path = put("a.tif", bytes(content))
    began = time.monotonic()
    try:
        read_picture(path)
    except InputError as error:
        assert "frames" in str(error) or "picture" in str(error)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_exif_turns_image_and_mask(put, suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    smooth = np.linspace(0, 250, 16 * 24).reshape(16, 24).astype(np.uint8)
    stored = Image.fromarray(smooth)
    turned = np.asarray(ImageOps.exif_transpose(with_exif(stored, exif)))
    assert turned.shape == ((24, 16) if orientation > 4 else (16, 24))
    options = {"quality": 100} if suffix == "jpg" else {}
    for path in (
        put(f"a.{suffix}", stored, exif=exif, **options),
        *([put(f"b.{suffix}", stored, exif=exif, compression="tiff_lzw")] if suffix == "tif" else []),
    ):
        found = read_picture(path)
        assert found.frames.shape == (1, *turned.shape)
        assert np.abs(found.frames[0].astype(int) - turned).max() <= (2 if suffix == "jpg" else 0)
        assert found.remarks == (("turned as EXIF says",) if orientation > 1 else ())
        np.testing.assert_array_equal(read_labels(path), found.frames)


def with_exif(image, exif):
    copy = Image.open(io.BytesIO(picture_bytes(image, "PNG", exif=exif)))
    copy.load()
    return copy


def test_colours_of_print_in_a_jpeg(put):
    picture = Image.fromarray(np.full((16, 16, 3), (200, 100, 50), np.uint8)).convert("CMYK")
    path = put("a.jpg", picture, quality=100)
    found = read_picture(path)
    assert np.abs(found.frames.astype(int) - 124).max() <= 2
    assert found.remarks == ("colours of print (CMYK) turned to RGB", "colour turned to luma")
    refused(path, "^colours: CMYK .*; save the picture as grey or", read_labels)


def test_masks_say_whether_they_are_lossy_and_what_their_palette_shows(put):
    grey = Image.fromarray(GREY)
    assert read_mask(put("a.png", picture_bytes(grey, "JPEG"))).lossy
    assert not read_mask(put("a.jpg", picture_bytes(grey, "PNG"))).lossy
    assert read_mask(put("a.tif", grey, compression="jpeg")).lossy and not read_mask(put("b.tif", grey)).lossy
    assert read_mask(put("b.png", grey)).colours is None
    indexed = Image.fromarray((GREY > 100).astype(np.uint8))
    indexed.putpalette([255, 128, 0, 1, 2, 3])
    found = read_mask(put("c.png", indexed))
    np.testing.assert_array_equal(found.values[0], GREY > 100)
    np.testing.assert_array_equal(found.colours[0], np.where(GREY > 100, 0x010203, 0xFF8000))
    found = read_mask(put("d.png", indexed, transparency=b"\0"))
    np.testing.assert_array_equal(found.colours[0], np.where(GREY > 100, 0x010203, 0))


def test_pages_of_different_palettes_are_no_mask(put):
    pages = [Image.fromarray((GREY > 100).astype(np.uint8)) for _ in range(2)]
    pages[0].putpalette([0, 0, 0, 255, 255, 255])
    pages[1].putpalette([255, 255, 255, 0, 0, 0])
    path = put("a.tif", pages[0], save_all=True, append_images=pages[1:])
    refused(path, "^pages: have different palettes", read_labels)


def test_colours_of_print_and_moving_pictures_are_refused(put):
    both_refused(put("a.tif", Image.fromarray(RGB).convert("CMYK")), "^colours: CMYK .*; save the picture as grey or")
    frames = [Image.fromarray(frame) for frame in FILM]
    path = put("a.png", frames[0], save_all=True, append_images=frames[1:])
    both_refused(path, "^picture: an animated PNG")


def test_jpeg_colours_become_luma(put):
    colours = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    found = read_picture(put("a.jpg", Image.fromarray(colours), quality=100))
    assert np.abs(found.frames.astype(int) - 124).max() <= 1 and found.remarks == ("colour turned to luma",)


def test_a_phone_may_put_a_second_picture_into_a_jpeg(put):
    first, second = (Image.fromarray(np.full((16, 16), level, np.uint8)) for level in (100, 200))
    content = picture_bytes(first, "MPO", save_all=True, append_images=[second])
    found = read_picture(put("a.jpg", content))
    assert found.frames.shape == (1, 16, 16) and (found.frames == 100).all()
    assert found.remarks == ("only the first picture of the file is read",)


def test_a_file_that_is_no_picture_is_refused(put):
    for name in ("a.png", "a.jpg", "a.bmp", "a.tif"):
        both_refused(put(name, b"GIF89a" + bytes(100)), r"^picture: not a whole file.*its content is another")
        both_refused(put(name, b""), "^picture: not a whole file")
    whole = picture_bytes(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)), "PNG")
    both_refused(put("cut.png", whole[:-1500]), "^picture: not a whole file")
