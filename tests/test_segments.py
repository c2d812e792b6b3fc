"""DICOM segmentation objects, read back by pydicom and highdicom: the pixels, what they refer to, whose they are."""

import io
import sys

import numpy as np
import pytest

highdicom = pytest.importorskip("highdicom", reason="needs the extra `formats`")

import pydicom  # noqa: E402
from medical_files import dicom, rle  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
)

from thyroid_jax.data import formats  # noqa: E402
from thyroid_jax.errors import InputError  # noqa: E402
from thyroid_jax.runs import segments  # noqa: E402

STUDY, SERIES, INSTANCE = "1.2.40", "1.2.50", "1.2.60"
PATIENT = {"PatientName": "Secret^Name", "PatientID": "P-17", "PatientBirthDate": "19610203", "PatientSex": "F"}
VISIT = {"StudyDate": "20200102", "StudyTime": "101112", "StudyID": "S1", "AccessionNumber": "A9"}
PRIVATE_TO_THE_SOURCE = {
    "InstitutionName": "Secret Hospital",
    "OperatorsName": "Secret^Operator",
    "PatientComments": "secret comment",
    "OtherPatientIDs": "secret-2",
    "PatientAddress": "secret street",
}


def source(path, shape, *, remove=(), **fields):
    """An ultrasound image of noise, with [n h w] or [h w] pixels, as a file."""
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    clip = {"NumberOfFrames": shape[0], "SOPClassUID": UltrasoundMultiFrameImageStorage} if len(shape) == 3 else {}
    about = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SOPInstanceUID": INSTANCE, "Modality": "US"}
    about |= {"Rows": shape[-2], "Columns": shape[-1]}
    whole = about | clip | PATIENT | VISIT | PRIVATE_TO_THE_SOURCE | fields
    path.write_bytes(dicom(pixels, **{name: value for name, value in whole.items() if name not in remove}))
    return path


def masks(*shape):
    return np.random.default_rng(1).random(shape) < 0.3


def referred(frame):
    (image,) = frame.DerivationImageSequence[0].SourceImageSequence
    return image


def test_an_image_and_its_segmentation(tmp_path):
    path, outline = source(tmp_path / "a.dcm", (21, 31)), masks(21, 31)  # 651 pixels: bits that fill no byte
    content = segments.segmentation(path, [outline], model="m" * 64)
    plain = pydicom.dcmread(io.BytesIO(content))
    np.testing.assert_array_equal(plain.pixel_array, outline)
    assert (plain.Modality, plain.SegmentationType, plain.Rows, plain.Columns) == ("SEG", "BINARY", 21, 31)
    assert (plain.StudyInstanceUID, plain.DeviceSerialNumber) == (STUDY, "m" * 64)
    assert plain.SeriesInstanceUID != SERIES and plain.SOPInstanceUID != INSTANCE
    (segment,) = plain.SegmentSequence
    assert segment.SegmentAlgorithmType == "AUTOMATIC" and segment.SegmentLabel == "Nodule"
    found = highdicom.seg.segread(io.BytesIO(content))
    assert found.get_source_image_uids() == [(STUDY, SERIES, INSTANCE)]
    np.testing.assert_array_equal(found.get_pixels_by_source_instance([INSTANCE])[0, ..., 0], outline)
    for reference in (
        referred(found.PerFrameFunctionalGroupsSequence[0]),
        found.SourceImageSequence[0],
        found.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0],
    ):
        assert reference.ReferencedSOPClassUID == UltrasoundImageStorage
        assert reference.ReferencedSOPInstanceUID == INSTANCE and "ReferencedFrameNumber" not in reference
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == SERIES


def test_every_frame_of_a_clip_refers_to_its_own_source_frame(tmp_path):
    path, outlines = source(tmp_path / "clip.dcm", (5, 13, 11)), masks(5, 13, 11)
    outlines[[0, 3]] = False  # frames without a nodule are in the object too
    content = segments.segmentation(path, list(outlines), model="m")
    np.testing.assert_array_equal(pydicom.dcmread(io.BytesIO(content)).pixel_array, outlines)
    found = highdicom.seg.segread(io.BytesIO(content))
    order = [3, 1, 5, 2, 4]
    pixels = found.get_pixels_by_source_frame(INSTANCE, order)
    np.testing.assert_array_equal(pixels[..., 0], outlines[np.array(order) - 1])
    frames = found.PerFrameFunctionalGroupsSequence
    assert [referred(frame).ReferencedFrameNumber for frame in frames] == [1, 2, 3, 4, 5]
    assert {referred(frame).ReferencedSOPClassUID for frame in frames} == {UltrasoundMultiFrameImageStorage}
    indices = [tuple(frame.FrameContentSequence[0].DimensionIndexValues) for frame in frames]
    assert indices == [(1, number) for number in range(1, 6)]
    assert len(found.DimensionIndexSequence) == 2


def test_of_the_patient_only_what_the_standard_demands_is_written(tmp_path):
    content = segments.segmentation(source(tmp_path / "a.dcm", (9, 8)), [masks(9, 8)], model="m")
    found = pydicom.dcmread(io.BytesIO(content))
    for name, value in (PATIENT | VISIT).items():
        assert str(found[name].value) == value
    for name, value in PRIVATE_TO_THE_SOURCE.items():
        assert name not in found and value.encode() not in content
    assert "FrameOfReferenceUID" not in found and "PixelSpacing" not in str(found)


def test_an_anonymous_image_stays_anonymous(tmp_path):
    path = source(tmp_path / "a.dcm", (9, 8), remove=[*list(PATIENT)[1:], *VISIT], PatientName="")
    found = pydicom.dcmread(io.BytesIO(segments.segmentation(path, [masks(9, 8)], model="m")))
    assert all(not found[name].value for name in segments.MAY_BE_EMPTY)


def test_names_in_other_alphabets_are_kept(tmp_path):
    path = source(tmp_path / "a.dcm", (9, 8), SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Jörg=山田^太郎")
    found = pydicom.dcmread(io.BytesIO(segments.segmentation(path, [masks(9, 8)], model="m")))
    assert str(found.PatientName) == "Müller^Jörg=山田^太郎"


@pytest.mark.parametrize("kind", [SecondaryCaptureImageStorage, CTImageStorage, "1.2.3.4.5"])
def test_images_of_any_class_are_referred_to_by_it(tmp_path, kind):
    content = segments.segmentation(source(tmp_path / "a.dcm", (9, 8), SOPClassUID=kind), [masks(9, 8)], model="m")
    found = highdicom.seg.segread(io.BytesIO(content))
    assert referred(found.PerFrameFunctionalGroupsSequence[0]).ReferencedSOPClassUID == kind


def test_a_compressed_image_needs_no_decoding(tmp_path):
    grey = np.arange(30 * 20, dtype=np.uint8).reshape(20, 30)
    about = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "Modality": "US", "Rows": 20, "Columns": 30}
    (tmp_path / "a.dcm").write_bytes(dicom(encapsulate([rle(grey)]), RLELossless, LossyImageCompression="00", **about))
    shown = formats.read_picture(tmp_path / "a.dcm").frames
    found = pydicom.dcmread(io.BytesIO(segments.segmentation(tmp_path / "a.dcm", list(shown > 100), model="m")))
    np.testing.assert_array_equal(found.pixel_array, grey > 100)


@pytest.mark.parametrize("shape", [(9, 8), (3, 9, 8)])
def test_a_lossy_image_says_how_it_was_compressed(tmp_path, shape):
    """The standard demands ratio and method of an object whose image was compressed with loss."""
    method = ["ISO_10918_1", "ISO_15444_1"]  # compressed twice, as the standard lists it
    lossy = {"LossyImageCompressionRatio": ["12.5", "3"], "LossyImageCompressionMethod": method}
    path = source(tmp_path / "a.dcm", shape, LossyImageCompression="01", **lossy)
    outlines = list(masks(*shape)) if len(shape) == 3 else [masks(*shape)]
    found = pydicom.dcmread(io.BytesIO(segments.segmentation(path, outlines, model="m")))
    assert found.LossyImageCompression == "01" and list(found.LossyImageCompressionMethod) == method
    assert [float(ratio) for ratio in found.LossyImageCompressionRatio] == [12.5, 3]


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "Modality"])
def test_an_image_that_cannot_be_referred_to_is_refused(tmp_path, name):
    path = source(tmp_path / "a.dcm", (9, 8), **{name: ""})
    with pytest.raises(InputError, match=f"DICOM: has no {name}"):
        segments.segmentation(path, [masks(9, 8)], model="m")


def test_malformed_values_of_the_patient_are_refused_without_citing_them(tmp_path):
    path = source(tmp_path / "a.dcm", (9, 8), PatientSex="SECRET")
    with pytest.raises(InputError, match="as the standard demands") as found:
        segments.segmentation(path, [masks(9, 8)], model="m")
    assert "SECRET" not in str(found.value) and found.value.__cause__ is None


@pytest.mark.parametrize("shape", [(2, 9, 8), (1, 8, 9), (0, 9, 8)])
def test_outlines_of_another_image_are_refused(tmp_path, shape):
    with pytest.raises(ValueError, match=r"the image has \(1, 9, 8\)|at least one"):
        segments.segmentation(source(tmp_path / "a.dcm", (9, 8)), list(masks(*shape)), model="m")


def test_highdicom_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[formats\]'"):
        segments.require_highdicom()
