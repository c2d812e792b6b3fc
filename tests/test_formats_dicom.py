"""DICOM: exact pixels, windows, compression, pixel sizes, and nothing but InputError for a bad file."""

import numpy as np
import pytest
from format_files import (
    CODES,
    FILM,
    GREY,
    LUMA,
    RGB,
    both_refused,
    expect,
    expect_labels,
    picture_bytes,
    refused,
    writer,
)
from medical_files import UNKNOWN, dicom, encoded, pydicom, region, rle
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from thyroid_jax.data.formats import limits, read_labels, read_picture
from thyroid_jax.errors import InputError

put = pytest.fixture(writer, name="put")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_dicom_of_one_and_of_many_frames(put, syntax):
    path = put("a.dcm", dicom(GREY, syntax))
    expect(path, GREY)
    expect_labels(path, GREY)
    path = put("IM1", dicom(FILM, syntax, NumberOfFrames=3))
    expect(path, FILM)
    expect_labels(path, FILM)
    path = put("c.dicom", dicom(RGB, syntax))
    expect(path, LUMA, "colour turned to luma")
    expect_labels(path, CODES)


def test_big_endian_dicom(put):
    wide = GREY.astype(np.uint16) * 257
    path = put("a.dcm", dicom(wide.astype(">u2"), ExplicitVRBigEndian))
    expect(path, GREY, "16 bits scaled to 8 by 255/65535")
    expect_labels(path, wide)


def test_colours_of_dicom(put):
    planes = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    path = put(
        "a.dcm", dicom(planes.tobytes(), SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=1)
    )
    expect(path, LUMA, "colour turned to luma")
    expect_labels(path, CODES)
    full = convert_color_space(RGB, "RGB", "YBR_FULL")
    back = convert_color_space(full, "YBR_FULL", "RGB")
    path = put("b.dcm", dicom(full, PhotometricInterpretation="YBR_FULL"))
    expect(path, np.round(back @ [0.299, 0.587, 0.114]), "colour turned to luma")
    assert np.abs(read_picture(path).frames.astype(int) - LUMA).max() <= 2
    film = np.stack([full, full[::-1]])
    path = put("c.dcm", dicom(film, PhotometricInterpretation="YBR_FULL", NumberOfFrames=2))
    assert np.abs(read_picture(path).frames[1].astype(int) - LUMA[::-1]).max() <= 2


def test_colours_that_two_pixels_share(put):
    luma, blue, red = GREY[:4, :6], GREY[:4, :6:2] // 2 + 60, 200 - GREY[:4, :6:2] // 2
    packed = np.stack([luma[:, ::2], luma[:, 1::2], blue, red], axis=-1)
    pixels = np.stack([luma, blue.repeat(2, axis=1), red.repeat(2, axis=1)], axis=-1)
    fields = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    path = put("a.dcm", dicom(packed.tobytes(), Rows=4, Columns=6, **fields))
    colours = convert_color_space(pixels, "YBR_FULL", "RGB")
    expect(path, np.round(colours @ [0.299, 0.587, 0.114]), "colour turned to luma")


def test_monochrome1_is_inverted_but_labels_are_not(put):
    path = put("a.dcm", dicom(GREY, PhotometricInterpretation="MONOCHROME1"))
    expect(path, 255 - GREY, "MONOCHROME1 inverted")
    expect_labels(path, GREY)


def test_ten_to_sixteen_bits_are_scaled_by_their_range(put):
    for bits in (10, 12, 16):
        top = (1 << bits) - 1
        values = np.round(GREY / 255 * top).astype(np.uint16)
        path = put("a.dcm", dicom(values, BitsStored=bits))
        expect(path, GREY, f"{bits} bits scaled to 8 by 255/{top}")
        expect_labels(path, values)
    signed = values.astype(np.int32) - 32768
    path = put("s.dcm", dicom(signed.astype(np.int16)))
    expect(path, GREY, "16 bits scaled to 8 by 255/65535")
    expect_labels(path, signed)
    twelve = GREY.astype(np.uint16)
    expect(
        put("d.dcm", dicom(twelve, BitsStored=12)),
        np.round(twelve * (255 / 4095)),
        "12 bits scaled to 8 by 255/4095",
        "no value reaches a sixteenth of the range: the picture stays dark",
    )
    dirty = twelve | 0xF000  # bits above those that are stored may hold anything
    expect_labels(put("e.dcm", dicom(dirty, BitsStored=12)), twelve)


def test_one_bit_in_dicom(put):
    packed = pydicom.pixels.pack_bits((GREY > 100).astype(np.uint8))
    path = put("a.dcm", dicom(packed, BitsAllocated=1, BitsStored=1))
    expect(path, (GREY > 100) * 255)
    expect_labels(path, GREY > 100)


def test_windows_rescaling_and_tables(put):
    wide = GREY.astype(np.uint16) * 16
    path = put("a.dcm", dicom(wide, BitsStored=12, WindowCenter=2000, WindowWidth=1001))
    expected = np.clip((wide - 1999.5) / 1000 + 0.5, 0, 1) * 255
    expect(path, np.round(expected), "window applied")
    expect_labels(path, wide)
    path = put("b.dcm", dicom(wide, BitsStored=12, WindowCenter=[2000, 9], WindowWidth=[1001, 9]))
    expect(path, np.round(expected), "first window of the file applied")
    path = put("c.dcm", dicom(GREY, WindowCenter=128, WindowWidth=256))
    expect(path, GREY, "window applied")
    fields = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 3000, "WindowWidth": 2002}
    path = put("d.dcm", dicom(wide, BitsStored=12, **fields))
    expect(path, np.round(np.clip((wide * 2.0 - 1000 - 2999.5) / 2001 + 0.5, 0, 1) * 255), "window applied")
    expect(put("e.dcm", dicom(GREY, RescaleSlope=3, RescaleIntercept=7)), GREY)
    fields = {"WindowCenter": 100, "WindowWidth": 50, "PhotometricInterpretation": "MONOCHROME1"}
    expected = 255 - np.round(np.clip((GREY - 99.5) / 49 + 0.5, 0, 1) * 255)
    expect(put("f.dcm", dicom(GREY, **fields)), expected, "window applied", "MONOCHROME1 inverted")
    table = Dataset()
    table.LUTDescriptor = [100, 40, 8]
    table.add_new(0x00283006, "OW", np.arange(155, 255, dtype="<u2").tobytes())
    expected = np.clip(GREY, 40, 139) + 115
    expect(put("g.dcm", dicom(GREY, VOILUTSequence=[table])), expected, "VOI table of the file applied")
    table.ModalityLUTType = "US"
    expect(put("h.dcm", dicom(GREY, ModalityLUTSequence=[table])), expected, "modality table of the file applied")
    table.LUTDescriptor = [300, 0, 8]
    refused(put("i.dcm", dicom(GREY, VOILUTSequence=[table])), "^LUTDescriptor: a table of 300 entries of 8 bits")
    path = put("j.dcm", dicom(GREY, RescaleSlope=-1, RescaleIntercept=0))
    refused(path, "^RescaleSlope: -1 with an intercept of 0; a slope is above 0$")
    refused(put("k.dcm", dicom(GREY, WindowCenter=1, WindowWidth=0)), "^DICOM: ")


def test_a_palette_becomes_luma_and_its_index_is_the_label(put):
    index = GREY // 7
    ramp = np.arange(40)
    for bits, kind, factor in ((8, "u1", 1), (16, "<u2", 257)):
        fields = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name, rise in (("Red", 1), ("Green", 3), ("Blue", 6)):
            fields[f"{name}PaletteColorLookupTableDescriptor"] = [40, 0, bits]
            fields[f"{name}PaletteColorLookupTableData"] = (ramp * rise * factor).astype(kind).tobytes()
        colours = np.stack([index, index * 3, index * 6], -1)
        path = put("a.dcm", dicom(index, **fields))
        expect(path, np.round(colours @ [0.299, 0.587, 0.114]), "palette turned to luma")
        np.testing.assert_array_equal(read_picture(path).colour, [index * 5])  # of blue and red
        expect_labels(path, index)
    for name in ("Red", "Green", "Blue"):  # the descriptor says 16 bits, the tables have 8
        fields[f"{name}PaletteColorLookupTableData"] = ramp.astype("u1").tobytes()
    expect(put("b.dcm", dicom(index, **fields)), index, "palette turned to luma")
    for name in ("Red", "Green", "Blue"):  # the tables of 16 bits hold values of 8
        fields[f"{name}PaletteColorLookupTableData"] = ramp.astype("<u2").tobytes()
    refused(put("c.dcm", dicom(index, **fields)), "^LUTDescriptor: a palette of 16 bits has values up to 39")
    late = np.clip(index.astype(int) - 5, 0, 9)
    for name in ("Red", "Green", "Blue"):
        fields[f"{name}PaletteColorLookupTableDescriptor"] = [10, 5, 8]
        fields[f"{name}PaletteColorLookupTableData"] = (np.arange(10) * 20).astype("u1").tobytes()
    path = put("b.dcm", dicom(np.where(GREY == 70, 300, GREY.astype(np.uint16) // 7), **fields))
    expect(path, np.where(GREY == 70, 180, late * 20), "palette turned to luma")


def test_compressed_dicom(put):
    path = put("a.dcm", encoded(RLELossless, [rle(GREY)]))
    expect(path, GREY)
    expect_labels(path, GREY)
    path = put("b.dcm", encoded(RLELossless, [rle(frame) for frame in FILM], NumberOfFrames=3))
    expect(path, FILM)
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0}
    fields = colour | {"PhotometricInterpretation": "RGB"}
    path = put("c.dcm", encoded(RLELossless, [rle(*RGB.transpose(2, 0, 1))], **fields))
    expect(path, LUMA, "colour turned to luma")
    smooth = np.linspace(0, 250, 16 * 24).reshape(16, 24).astype(np.uint8)
    size = {"Rows": 16, "Columns": 24}
    jpeg = picture_bytes(Image.fromarray(smooth), "JPEG", quality=100)
    found = read_picture(put("d.dcm", encoded(JPEGBaseline8Bit, [jpeg, jpeg], NumberOfFrames=2, **size)))
    assert found.frames.shape == (2, 16, 24) and np.abs(found.frames.astype(int) - smooth).max() <= 2
    plain = np.broadcast_to(np.uint8([200, 100, 50]), (16, 24, 3))
    jpeg = picture_bytes(Image.fromarray(np.ascontiguousarray(plain)), "JPEG", quality=100)
    fields = colour | size | {"PhotometricInterpretation": "YBR_FULL_422"}
    found = read_picture(put("e.dcm", encoded(JPEGBaseline8Bit, [jpeg], **fields)))
    assert np.abs(found.frames.astype(int) - 124).max() <= 1 and found.remarks == ("colour turned to luma",)
    lossless = picture_bytes(Image.fromarray(GREY), "JPEG2000", irreversible=False, no_jp2=True)
    expect(put("f.dcm", encoded(JPEG2000Lossless, [lossless])), GREY)


def test_compression_without_a_decoder_names_what_is_needed(put, monkeypatch):
    from pydicom.pixels.decoders import JPEGLosslessSV1Decoder

    if not JPEGLosslessSV1Decoder.is_available:
        both_refused(put("a.dcm", encoded(JPEGLosslessSV1, [b"\xff\xd8"])), "^compression: JPEG Lossless.*pylibjpeg")
    both_refused(put("b.dcm", encoded(MPEG4HP41, [bytes(10)])), "^compression: MPEG-4 .* is not read; export")
    both_refused(put("c.dcm", dicom(GREY, DeflatedExplicitVRLittleEndian)), "^TransferSyntaxUID: a deflated file")
    both_refused(
        put("d.dcm", encoded(RLELossless, [rle(GREY) + bytes([129, 0]) * 40_000])), "^compression: a frame of 8"
    )
    monkeypatch.setattr(limits, "LARGEST_RLE_FRAME", 34)
    both_refused(put("e.dcm", encoded(RLELossless, [rle(GREY)])), "^compression: RLE frames of 35 bytes; export")


def test_a_jpeg_2000_header_that_leads_nowhere_is_refused(put):
    boxed = picture_bytes(Image.fromarray(GREY), "JPEG2000", irreversible=False)
    assert boxed.startswith(b"\0\0\0\x0cjP  ") and b"ftyp" in boxed
    expect(put("a.dcm", encoded(JPEG2000Lossless, [boxed])), GREY)
    endless = boxed[:12] + bytes(4) + boxed[16:]  # the box after the first has no length
    both_refused(put("b.dcm", encoded(JPEG2000Lossless, [endless])), "^compression: the header of a JPEG 2000 frame is")


def test_the_pixel_size_is_that_of_the_largest_flat_region(put):
    small, large = region(0.01, 0.01, (0, 0, 2, 2)), region(0.005, -0.008, (0, 0, 6, 4))
    seconds, m_mode = region(0.1, 0.1, (0, 0, 60, 40), units=4), region(0.1, 0.1, (0, 0, 60, 40), form=2)
    path = put("a.dcm", dicom(GREY, SequenceOfUltrasoundRegions=[large], PixelSpacing=[0.3, 0.4]))
    expect(path, GREY, spacing=(0.08, 0.05))
    endless = ["SequenceOfUltrasoundRegions"]
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        path = put("a.dcm", dicom(GREY, syntax, endless, SequenceOfUltrasoundRegions=[large]))
        expect(path, GREY, spacing=(0.08, 0.05))
    path = put("b.dcm", dicom(GREY, SequenceOfUltrasoundRegions=[small, seconds, m_mode, large]))
    expect(path, GREY, "regions differ in pixel size, that of the largest is used", spacing=(0.08, 0.05))
    path = put("c.dcm", dicom(GREY, SequenceOfUltrasoundRegions=[seconds], PixelSpacing=[0.3, 0.4]))
    expect(path, GREY, spacing=(0.3, 0.4))
    expect(put("d.dcm", dicom(GREY, ImagerPixelSpacing=[0.3, 0.4])), GREY)
    expect(put("e.dcm", dicom(GREY, PixelSpacing=[1, 1])), GREY, UNKNOWN)
    expect(put("g.dcm", dicom(GREY, PixelSpacing=[0.1])), GREY, "pixel size cannot be read, it is taken as unknown")
    expect(put("f.dcm", dicom(GREY, SequenceOfUltrasoundRegions=[region(0.0, 0.01, (0, 0, 2, 2))])), GREY)


def test_a_pixel_size_that_is_missing_or_cannot_be_true_is_said(put):
    box, corner = (0, 0, 6, 4), (0, 0, 2, 2)
    without, known = region(0.0, 0.0, box), region(0.01, 0.02, corner)
    for fields, spacing, remarks in (
        # A region without a size does not hide the size that the file says elsewhere.
        ({"SequenceOfUltrasoundRegions": [without], "PixelSpacing": [0.2, 0.3]}, (0.2, 0.3), ()),
        # That of a small region is not that of the picture.
        (
            {"SequenceOfUltrasoundRegions": [without, known]},
            None,
            ("the largest region has no pixel size, it is taken as unknown",),
        ),
        ({"SequenceOfUltrasoundRegions": [region(0.1, 0.1, box)]}, None, (UNKNOWN,)),
        ({"PixelSpacing": [200, 100]}, None, ("pixel size of 200 x 100 mm taken as unknown",)),
        ({"PixelSpacing": [1e-6, 1e-6]}, None, ("pixel size of 1e-06 x 1e-06 mm taken as unknown",)),
        ({"PixelSpacing": [0.001, 10]}, (0.001, 10.0), ()),
        (
            {"PixelAspectRatio": ["2", "1"]},
            None,
            ("PixelAspectRatio 2:1 is not used, pixels are taken as squares",),
        ),
        ({"PixelAspectRatio": ["1", "1"]}, None, ()),
        ({"PixelAspectRatio": ["2", "1"], "PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), ()),
    ):
        expect(put("a.dcm", dicom(GREY, **fields)), GREY, *remarks, spacing=spacing or (np.nan, np.nan))


def test_a_picture_that_would_be_of_one_grey_is_refused(put):
    signed = GREY.astype(np.int16) - 50  # 8 bits of tissue around the middle of 16
    path = put("a.dcm", dicom(signed))
    refused(path, "^values: from -50 to 188 of 16 bits without a window.* of one grey")
    expect_labels(path, signed)
    refused(put("b.dcm", dicom(GREY.astype(np.uint16))), "^values: from 0 to 238 of 16 bits without a window")
    refused(put("c.dcm", dicom(RGB.astype(np.uint16))), "^values: from 0 to 255 of 16 bits without a window")
    windowed = put("d.dcm", dicom(GREY.astype(np.uint16), WindowCenter=128, WindowWidth=256))
    expect(windowed, GREY, "window applied")
    black = np.zeros_like(GREY, np.uint16)
    dark = "no value reaches a sixteenth of the range: the picture stays dark"
    expect(put("e.dcm", dicom(black)), black, "16 bits scaled to 8 by 255/65535", dark)


def test_dicom_that_cannot_be_read_is_refused(put):
    whole = dicom(GREY)
    for name, content, message in (
        ("a.dcm", whole[128:], "^DICOM: no mark"),
        ("b.dcm", whole[:-10], "^DICOM: not a whole file"),
        ("c.dcm", dicom(FILM), "^NumberOfFrames: 1, but there are more frames$"),
        ("d.dcm", dicom(FILM, NumberOfFrames=4), "^DICOM: not a whole file"),
        ("e.dcm", dicom(GREY, NumberOfFrames=0), "^size: 0 frames"),
        ("f.dcm", dicom(GREY, PhotometricInterpretation="HSV"), "^PhotometricInterpretation: not one of MONOCHROME1"),
        ("g.dcm", dicom(RGB, PhotometricInterpretation="MONOCHROME2"), "^SamplesPerPixel: 3, which is not right"),
        ("h.dcm", dicom(GREY.astype(np.uint32)), "^BitsStored: 32 of 32; pixels of at most 16 bits are read$"),
        ("h2.dcm", dicom(GREY.astype(np.uint16), BitsStored=12, HighBit=15), "^HighBit: 15, only 11 is read with 12"),
        ("h3.dcm", dicom(RGB.view(np.int8)), "^PixelRepresentation: 1, colours below zero are not read$"),
        ("i.dcm", dicom(GREY, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"), "^DICOM: a segmentation object"),
        ("j.dcm", encoded(RLELossless, [rle(GREY)], NumberOfFrames=2), "^(NumberOfFrames|DICOM)"),
        ("k.dcm", encoded(JPEGBaseline8Bit, [b"\xff\xd8 junk"]), "^compression: JPEG Baseline .* cannot be decoded"),
    ):
        both_refused(put(name, content), message)
    empty = whole.replace(b"\xe0\x7f\x10\x00", b"\xe0\x7f\x11\x00")
    both_refused(put("l.dcm", empty), "^DICOM: holds no pixels")
    path = put("m.dcm", dicom(RGB.astype(np.uint16) * 257))
    refused(path, "^BitsStored: 16 for a mask of colours; save it with 8$", read_labels)
    expect(path, LUMA, "16 bits scaled to 8 by 255/65535", "colour turned to luma")
    expect(put("n.dcm", dicom(np.dstack([GREY] * 3))), GREY)


def test_a_header_of_very_many_elements_is_refused(put, monkeypatch):
    fields = {"SequenceOfUltrasoundRegions": [region(0.1, 0.1, (0, 0, 2, 2)) for _ in range(300)]}
    monkeypatch.setattr(limits, "LARGEST_ELEMENT", 1000)
    path = put("a.dcm", dicom(GREY, **fields))
    both_refused(path, r"^DICOM: element \(0018, ?6011\) of [0-9]+ bytes, it has at most 1000$")
    both_refused(put("b.dcm", dicom(GREY, WindowWidth=[1] * 600, WindowCenter=1)), r"^DICOM: element \(0028, ?1051\)")
    table = Dataset()
    table.LUTDescriptor = [1000, 0, 16]
    table.add_new(0x00283006, "OW", bytes(2000))
    path = put("d.dcm", dicom(GREY, endless=["VOILUTSequence"], VOILUTSequence=[table]))
    both_refused(path, r"^DICOM: element \(0028, ?3006\) of 2000 bytes")
    monkeypatch.setattr(limits, "MOST_READS", 1000)
    path = put("c.dcm", dicom(GREY, endless=["SequenceOfUltrasoundRegions"], **fields))
    both_refused(path, "^DICOM: its header has too many elements$")


def test_messages_hold_nothing_about_the_patient(put):
    for fields in ({"PixelSpacing": [0.1, 0.1]}, {"Rows": 9}, {"RescaleSlope": -1, "RescaleIntercept": 0}):
        content = dicom(GREY, **fields)
        for cut in range(132, len(content) - 1, 7):
            try:
                read_picture(put("a.dcm", content[:cut]))
            except InputError as error:
                assert "Secret" not in str(error)
            else:
                pytest.fail("a file that was cut off was read")
