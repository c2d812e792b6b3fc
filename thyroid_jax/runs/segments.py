"""A predicted outline as a DICOM segmentation object (SEG) of the ultrasound image that it was predicted on.

The object belongs to the source's study, so it names the patient: the standard demands patient and study in every
object. Only these, the identifiers of the image and what it says of its compression with loss are read from the source
and written; nothing else is.

Every frame of the object refers to one source frame by the UID of its SOP instance and, in a clip, by its number. Rows
and columns are those of the source frame. No position in space is written: an ultrasound image mostly has none, and
the reference to the frame says where the outline lies. Written with highdicom, in the extra ``formats``.

Source: DICOM PS3.3, A.51 (Segmentation IOD), C.8.20 and C.7.6.16 (functional groups).
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import thyroid_jax
from thyroid_jax.data.formats import limits
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_bytes

STATEMENT = (
    "DICOM segmentations hold the patient's name and number, and those of the study, because they belong to it: keep "
    "them as the originals are kept."
)
IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "Columns")
"""needed of a source; a file without one of them cannot be referred to"""
MAY_BE_EMPTY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""of patient and study; empty in the object where the source lacks them, as the standard allows"""
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_ALSO_READ = ("SpecificCharacterSet", "NumberOfFrames", *_LOSSY)  # without the second: one frame
_LABEL = "Nodule"
_DESCRIPTION = "Nodule outlined by a model; research use only"  # at most 64 characters


def require_highdicom() -> None:
    """Raise :class:`InputError` with the command that installs it where highdicom is missing."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError("highdicom is missing. Install it with: pip install -e '.[formats]'") from error


def segmentation(path: Path, masks: Sequence[np.ndarray], *, model: str) -> bytes:
    """The DICOM file of a segmentation object of the outlines bool[h w] of all frames of the DICOM image at ``path``.

    ``model`` identifies the model in at most 64 characters, such as the digest of its parameters. Frames without an
    outline are in the object too, empty. Raises :class:`InputError`, which does not name the file, where highdicom is
    missing, the image lacks an identifier or its patient's data are malformed; ValueError unless there is one mask of
    the image's size for each frame.
    """
    require_highdicom()
    source = _source(path)
    frames = int(source.get("NumberOfFrames") or 1)
    stacked = np.stack(masks).astype(np.uint8)
    if stacked.shape != (frames, source.Rows, source.Columns):
        raise ValueError(f"masks are {stacked.shape}, the image has {(frames, source.Rows, source.Columns)}.")
    with _faults_without_values("DICOM: patient or study is not as the standard demands"):
        segments = _of_one_frame(source, stacked[:1], model)
    if frames > 1:
        _add_frames(segments, stacked)
    file = io.BytesIO()
    segments.save_as(file)
    return file.getvalue()


@contextlib.contextmanager
def _faults_without_values(words: str) -> Iterator[None]:
    """Turn any error of pydicom and highdicom into an InputError without their text, which may name the patient.

    For malformed values they raise errors of nearly every type.
    """
    try:
        yield
    except Exception as error:
        raise InputError(f"{words} ({type(error).__name__})") from None


def _source(path: Path) -> Any:
    """The elements of an image that its segmentation needs, and no others."""
    import pydicom

    content = read_bytes(path, largest=limits.LARGEST_ARRAY)
    tags = [*IDENTIFIERS, *MAY_BE_EMPTY, *_ALSO_READ]
    with _faults_without_values("DICOM: its header cannot be read"):
        found = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, specific_tags=tags)
        for element in found:  # each is converted when it is first used
            str(element.value)
    if missing := [name for name in IDENTIFIERS if not found.get(name)]:
        raise InputError(f"DICOM: has no {missing[0]}, so a segmentation cannot refer to it")
    for name in MAY_BE_EMPTY:
        if found.get(name) is None:
            setattr(found, name, "")
    return found


def _of_one_frame(source: Any, mask: np.ndarray, model: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import UltrasoundImageStorage

    version, class_of_source = thyroid_jax.__version__, source.SOPClassUID
    # To highdicom every source is one ultrasound image without a position. A class of several frames, or of images with
    # a position, would need elements that are not read; the references name the true class again.
    source.SOPClassUID = UltrasoundImageStorage
    segment = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=_LABEL,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=thyroid_jax.__name__, family=codes.cid7162.ArtificialIntelligence, version=version
        ),
    )
    segments = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=mask,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=thyroid_jax.__name__,
        manufacturer_model_name=thyroid_jax.__name__,
        software_versions=version,
        device_serial_number=model,
        content_label=_LABEL.upper(),
        content_description=_DESCRIPTION,
        series_description=_DESCRIPTION,
        omit_empty_frames=False,
    )
    references = [
        segments.SourceImageSequence[0],
        segments.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0],
        segments.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0],
    ]
    for reference in references:
        reference.ReferencedSOPClassUID = class_of_source
    return segments


def _add_frames(segments: Any, masks: np.ndarray) -> None:
    """Turn an object of the first frame of a clip into one of all its frames.

    highdicom makes objects of several frames only where frames have a position in space. Here frames are told apart by
    the number of their source frame and by their place in time.
    """
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataset import Dataset
    from pydicom.pixels import pack_bits

    first = segments.PerFrameFunctionalGroupsSequence[0]
    items = []
    for number in range(1, len(masks) + 1):
        item = copy.deepcopy(first)
        item.FrameContentSequence[0].DimensionIndexValues = [1, number]
        item.FrameContentSequence[0].TemporalPositionIndex = number
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = number
        items.append(item)
    in_time = Dataset()
    in_time.DimensionOrganizationUID = segments.DimensionIndexSequence[0].DimensionOrganizationUID
    in_time.DimensionIndexPointer = tag_for_keyword("TemporalPositionIndex")
    in_time.FunctionalGroupPointer = tag_for_keyword("FrameContentSequence")
    in_time.DimensionDescriptionLabel = "Temporal Position Index"
    segments.DimensionIndexSequence.append(in_time)
    segments.PerFrameFunctionalGroupsSequence = items
    segments.NumberOfFrames = len(masks)
    segments.PixelData = pack_bits(masks.ravel(), pad=True)
