"""Small DICOM and NIfTI files for the tests of file formats; a module that imports this needs the extra `formats`."""

import io
import struct

import numpy as np
import pytest
from format_files import GREY

pydicom = pytest.importorskip("pydicom", reason="needs the extra `formats`")
nibabel = pytest.importorskip("nibabel", reason="needs the extra `formats`")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage  # noqa: E402

AXES = "axes of NIfTI taken as across and down"
UNKNOWN = "pixel size of 1 x 1 mm taken as unknown"


def nifti(array, spacing=None, unit="mm", cls=nibabel.Nifti1Image, **header):
    """``array`` has NIfTI's axes (x, y, ...); the affine is SimpleITK's: both axes flipped."""
    image = cls(array, np.diag([-1, -1, 1, 1]))
    image.header.set_xyzt_units(unit)
    if spacing:
        image.header.set_zooms(spacing)
    for name, value in header.items():
        image.header[name] = value
    return image.to_bytes()


def dicom(pixels, syntax=ExplicitVRLittleEndian, endless=(), **fields):
    """A DICOM file of ``pixels``: an array in the stored order, or bytes as they are in the file.

    Elements named in ``endless`` are written without their length.
    """
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = UltrasoundImageStorage, "1.2.3"
    dataset.PatientName = "Secret^Name"
    array = pixels if isinstance(pixels, np.ndarray) else GREY
    dataset.Rows, dataset.Columns = GREY.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * array.dtype.itemsize
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    if array.shape[-1] == 3:
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.HighBit = fields.get("HighBit", dataset.BitsStored - 1)
    content = pixels if isinstance(pixels, bytes) else pixels.tobytes()
    dataset.add_new(0x7FE00010, "OB" if dataset.BitsAllocated <= 8 else "OW", content + bytes(len(content) % 2))
    for name in (*endless, *(["PixelData"] if syntax.is_encapsulated else [])):
        dataset[name].is_undefined_length = True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def encoded(syntax, frames, **fields):
    return dicom(encapsulate(frames), syntax, **fields)


def rle(*planes):
    """An RLE frame of literal runs only, one segment for each plane of bytes."""
    segments = []
    for plane in planes:
        body = b"".join(bytes([len(row) - 1]) + row.tobytes() for row in plane)
        segments.append(body + bytes(len(body) % 2))
    starts = np.cumsum([64, *(len(segment) for segment in segments[:-1])]).tolist()
    header = struct.pack(f"<{1 + len(starts)}I", len(starts), *starts)
    return header.ljust(64, b"\0") + b"".join(segments)


def region(dx, dy, box, units=3, form=1):
    item = Dataset()
    item.RegionSpatialFormat, item.PhysicalUnitsXDirection, item.PhysicalUnitsYDirection = form, units, units
    item.PhysicalDeltaX, item.PhysicalDeltaY = dx, dy
    item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1, item.RegionLocationMaxY1 = box
    return item
