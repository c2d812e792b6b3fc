"""What is read of a DICOM header: the transfer syntax, the layout of the pixels, and their size.

Names, dates and everything else of the patient are not read.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from thyroid_jax.data.formats import limits
from thyroid_jax.data.formats._shared import UNKNOWN, NoPicture, pixel_size
from thyroid_jax.errors import InputError

_NEEDED = """SOPClassUID SequenceOfUltrasoundRegions PixelSpacing PixelAspectRatio
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence SamplesPerPixel PhotometricInterpretation
    PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
    PixelPresentation WindowCenter WindowWidth VOILUTFunction VOILUTSequence ModalityLUTSequence
    RescaleSlope RescaleIntercept RescaleType
    RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData ExtendedOffsetTable ExtendedOffsetTableLengths FloatPixelData
    DoubleFloatPixelData PixelData""".split()
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXELS = 0x7FE00010  # the tag of PixelData
_CENTIMETRES, _FLAT = 3, 1  # codes of an ultrasound region: its unit, and that it shows an image of two dimensions


class Layout(NamedTuple):
    """How the pixels of a DICOM file are stored."""

    frames: int
    rows: int
    columns: int
    samples: int
    allocated: int
    bits: int
    high_bit: int
    signed: bool
    colours: str

    @property
    def low(self) -> int:
        """The smallest value that can be stored."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """The largest value that can be stored."""
        return self.low + (1 << self.bits) - 1

    @property
    def scaling(self) -> str:
        """The remark about pixels of more than 8 bits that have no window."""
        return f"{self.bits} bits scaled to 8 by 255/{self.high - self.low}"


class _Counted(io.BytesIO):
    """A DICOM file that refuses to be read in very many pieces, so that no header takes minutes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.left = limits.MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise InputError("DICOM: its header has too many elements")
        return super().read(size)


def dataset_of(content: bytes, pydicom: Any) -> Any:
    """pydicom's data set of the needed elements only; InputError for one without pixels or with huge elements."""
    dataset = pydicom.dcmread(_Counted(content), specific_tags=_NEEDED)
    _check_elements(dataset)
    if dataset.get("SOPClassUID") == _SEGMENTATION:
        raise InputError("DICOM: a segmentation object; save the mask as PNG or NIfTI")
    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData", "Rows"} & set(dataset.dir()):
        raise NoPicture("DICOM: holds no picture")
    if "PixelData" not in dataset:
        raise InputError("DICOM: holds no pixels of whole numbers")
    return dataset


def _check_elements(dataset: Any) -> None:
    """Refuse elements that would take minutes to convert: pydicom converts each when it is first used."""
    for element in dataset.values():
        size = len(element.value) if isinstance(element.value, bytes) else 0
        if size > limits.LARGEST_ELEMENT and element.tag != _PIXELS:
            raise InputError(f"DICOM: element {element.tag} of {size} bytes, it has at most {limits.LARGEST_ELEMENT}")
        for item in element.value if element.VR == "SQ" and not size else ():
            _check_elements(item)


def transfer_syntax(content: bytes, pydicom: Any) -> str:
    """How the data set is stored, from the file's first elements only: pydicom would unpack a whole deflated file."""
    file = _Counted(content)
    file.seek(132)
    meta = pydicom.filereader.read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    syntax = str(meta.get("TransferSyntaxUID", ""))
    if syntax == _DEFLATED:
        raise InputError("TransferSyntaxUID: a deflated file; export the picture uncompressed")
    if not syntax:
        raise InputError("TransferSyntaxUID: missing; export the picture again")
    return syntax


def layout_of(dataset: Any) -> Layout:
    """The layout of the pixels; InputError for one that contradicts itself, is over a limit, or is not read here."""

    def number(name: str, default: int | None = None) -> int:
        value = dataset.get(name)
        if value in (None, "") and default is not None:
            return default
        try:
            return int(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: missing or not one whole number") from error

    bits = number("BitsStored")
    layout = Layout(
        frames=number("NumberOfFrames", 1),
        rows=number("Rows"),
        columns=number("Columns"),
        samples=number("SamplesPerPixel", 1),
        allocated=number("BitsAllocated"),
        bits=bits,
        high_bit=number("HighBit", bits - 1),
        signed=bool(number("PixelRepresentation", 0)),
        colours=str(dataset.get("PhotometricInterpretation")),
    )
    _check_layout(layout)
    return layout


def _check_layout(layout: Layout) -> None:
    limits.check_size(layout.rows, layout.columns, layout.frames)
    single = layout.colours in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    if not single and not re.fullmatch("RGB|YBR_(FULL|FULL_422|ICT|RCT)", layout.colours):
        raise InputError("PhotometricInterpretation: not one of MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB, YBR_FULL")
    if layout.samples != (1 if single else 3):
        raise InputError(f"SamplesPerPixel: {layout.samples}, which is not right for {layout.colours}")
    if layout.allocated not in (1, 8, 16) or not 1 <= layout.bits <= layout.allocated:
        raise InputError(f"BitsStored: {layout.bits} of {layout.allocated}; pixels of at most 16 bits are read")
    if layout.signed and not single:
        raise InputError("PixelRepresentation: 1, colours below zero are not read")
    if layout.high_bit != layout.bits - 1:
        raise InputError(f"HighBit: {layout.high_bit}, only {layout.bits - 1} is read with {layout.bits} bits stored")


def spacing_of(dataset: Any) -> tuple[tuple[float, float], list[str]]:
    """Pixel size (rows, columns) in mm, and remarks about it.

    It is that of the largest flat ultrasound region. Where no such region has a size it is PixelSpacing, else unknown.
    A PixelAspectRatio alone gives no size: that pixels are not squares is then a remark.
    """
    try:
        found = [_region(item) for item in dataset.get("SequenceOfUltrasoundRegions") or ()]
        flat = [region for region in found if region is not None]
        if any(min(sides) > 0 for _, sides in flat):
            size, remarks = _size_of_largest(flat)
        else:
            between = dataset.get("PixelSpacing")
            rows, columns = (float(side) for side in between) if between is not None else UNKNOWN
            size, remarks = pixel_size(rows, columns)
        return size, remarks + (_shape_remark(dataset) if math.isnan(size[0]) else [])
    except (TypeError, ValueError, OverflowError):
        return UNKNOWN, ["pixel size cannot be read, it is taken as unknown"]


def _region(item: Any) -> tuple[int, tuple[float, float]] | None:
    """Area in pixels and sides of a pixel in mm, 0 where it is not said, of a region; None for time or Doppler."""
    units = (item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection"))
    if item.get("RegionSpatialFormat") != _FLAT or units != (_CENTIMETRES, _CENTIMETRES):
        return None
    left, top, right, bottom = (int(item.get(f"RegionLocation{n}", 0)) for n in ("MinX0", "MinY0", "MaxX1", "MaxY1"))
    rows, columns = (10 * abs(float(item.get(f"PhysicalDelta{axis}", 0))) for axis in "YX")
    return (right - left) * (bottom - top), (rows, columns)


def _size_of_largest(regions: Sequence[tuple[int, tuple[float, float]]]) -> tuple[tuple[float, float], list[str]]:
    """Pixel size of the largest region, and remarks: that it is not known, or that other regions have another."""
    _, (rows, columns) = max(regions, key=lambda region: region[0])
    size, remarks = pixel_size(rows, columns)
    if math.isnan(size[0]):
        return size, remarks or ["the largest region has no pixel size, it is taken as unknown"]
    differ = len({sides for _, sides in regions}) > 1
    return size, ["regions differ in pixel size, that of the largest is used"] if differ else []


def _shape_remark(dataset: Any) -> list[str]:
    """The remark about a PixelAspectRatio (vertical, horizontal) that says that pixels are not squares, or none."""
    sides = [float(side) for side in dataset.get("PixelAspectRatio") or ()]
    if len(sides) != 2 or sides[0] == sides[1]:
        return []
    return [f"PixelAspectRatio {sides[0]:g}:{sides[1]:g} is not used, pixels are taken as squares"]
