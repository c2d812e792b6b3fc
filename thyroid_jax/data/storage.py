"""Records on disk: how one becomes a TFDS example and back, and random access to a built data set. TensorFlow is never
imported.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, overload

import numpy as np
from PIL import Image

from thyroid_jax.data.record import Card, Record
from thyroid_jax.errors import InputError

VERSION = "1.0.0"
SPLIT = "records"  # the one TFDS split; train, validation and test are lists of cases in a file of their own (thyroid_jax.data.splits)
UNKNOWN = -1  # on disk only: a missing class or truth value

PNG = "png"
_PICTURES = ("image", "mask", "reader_masks")


def features():
    """The TFDS features of one record; the same for every data set.

    ``mask`` is a 1 x 1 picture when there is none (``has_mask`` False), and ``reader_masks`` holds the readers' masks
    one below the other.
    """
    import tensorflow_datasets as tfds

    picture = {name: tfds.features.Image(shape=(None, None, 1), encoding_format=PNG) for name in _PICTURES}
    text = {name: tfds.features.Text() for name in ("case", "group", "source", "descriptors", "spacing", "content")}
    whole = {name: np.int32 for name in ("grade", "malignant", "readers")}
    return tfds.features.FeaturesDict(
        picture | text | whole | {"has_mask": np.bool_, "reader_grades": tfds.features.Sequence(np.int32)}
    )


def encode(record: Record) -> dict[str, Any]:
    """The example of a record: pictures as PNG bytes, missing labels as :data:`UNKNOWN`. Inverse of :func:`decode`.

    Raises ``ValueError`` when a mask has another size than the image or the image is not uint8[h w]: a fault of the
    reader.
    """
    if record.image.ndim != 2 or record.image.dtype != np.uint8:
        raise ValueError(f"{record.case}: image is {record.image.dtype}{record.image.shape}, not uint8[h w]")
    for mask in (record.mask, *record.reader_masks):
        if mask is not None and mask.shape != record.image.shape:
            raise ValueError(f"{record.case}: mask is {mask.shape}, image is {record.image.shape}")
    nothing = np.zeros((1, 1), bool)
    return {
        "case": record.case,
        "group": record.group,
        "source": record.source,
        "content": record.content,
        "image": _png(record.image),
        "has_mask": record.mask is not None,
        "mask": _png(_as_bytes(nothing if record.mask is None else record.mask)),
        "readers": len(record.reader_masks),
        "reader_masks": _png(_as_bytes(np.concatenate(record.reader_masks) if record.reader_masks else nothing)),
        "grade": UNKNOWN if record.grade is None else record.grade,
        "reader_grades": list(record.reader_grades),
        "malignant": UNKNOWN if record.malignant is None else int(record.malignant),
        "descriptors": json.dumps(dict(record.descriptors), sort_keys=True),
        "spacing": " ".join(
            repr(float(side)) for side in record.spacing
        ),  # as text: TFDS keeps floats in single precision
    }


def decode(example: Mapping[str, Any]) -> Record:
    """The record of an example whose pictures are still PNG bytes. Inverse of :func:`encode`."""
    image = _pixels(example["image"])
    mask = _pixels(example["mask"]) > 127 if example["has_mask"] else None
    readers = int(example["readers"])
    grade, malignant = int(example["grade"]), int(example["malignant"])
    return Record(
        case=_string(example["case"]),
        group=_string(example["group"]),
        source=_string(example["source"]),
        image=image,
        mask=mask,
        reader_masks=tuple(np.split(_pixels(example["reader_masks"]) > 127, readers)) if readers else (),
        grade=None if grade == UNKNOWN else grade,
        reader_grades=tuple(int(one) for one in example["reader_grades"]),
        malignant=None if malignant == UNKNOWN else bool(malignant),
        descriptors=json.loads(_string(example["descriptors"])),
        spacing=tuple(float(side) for side in _string(example["spacing"]).split()),
    )


class Records(Sequence[Record]):
    """The records of a built data set, in the order in which they were written; each access reads one from disk.

    Reading a damaged record raises :class:`InputError`. Can be handed to worker processes and to ``grain``.
    """

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)
        self._examples = _data_source(self.folder)
        if len(self):
            self[-1]  # the length is only noted beside the files; a torn or missing one shows when it is read

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index):
        """Record ``index``, from the end when negative."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            return decode(self._examples[int(place)])
        except (RuntimeError, ValueError, TypeError, IndexError, OSError, KeyError, SyntaxError) as error:
            raise InputError(
                f"{self.folder}: record {place} is damaged ({error}). Build the data set again with --overwrite."
            ) from error

    def __reduce__(self):
        return Records, (self.folder,)


def open_records(data_dir: Path | str, name: str) -> tuple[Card, Records]:
    """Card and records of the data set ``name`` built in ``data_dir``. Raises :class:`InputError` when it is missing,
    half or damaged.
    """
    folder = folder_of(data_dir, name)
    if not folder.is_dir():
        build = f"python -m data_prep build {name} --out {data_dir}"
        raise InputError(
            f"{folder}: the data set {name!r} has not been built there. Build it ({build} ...) or give the folder it was built in."
        )
    records = Records(folder)
    return read_metadata(data_dir, name)[0], records


def read_metadata(data_dir: Path | str, name: str) -> tuple[Card, dict[str, Any]]:
    """Card of a built data set, and what its reader counted and left out: {"counts": {...}, "dropped": [[what, why],
    ...]}.
    """
    folder = folder_of(data_dir, name)
    try:
        metadata = dict(_builder(folder).info.metadata or {})
        return _card(metadata.pop("card")), metadata
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{folder}/metadata.json: holds no readable card ({error}). Build the data set again with --overwrite."
        ) from error


def folder_of(data_dir: Path | str, name: str) -> Path:
    """Where the data set ``name`` lies in ``data_dir``; TFDS's own layout, so that its tools find it too."""
    return Path(data_dir) / name / VERSION


def card_as_json(card: Card) -> dict[str, Any]:
    """The card as plain JSON values."""
    return json.loads(json.dumps(asdict(card) | {"expected": dict(card.expected)}))


def _card(values: Mapping[str, Any]) -> Card:
    known = {field.name for field in fields(Card)}
    if set(values) != known:
        raise ValueError(f"fields {sorted(set(values) ^ known)} are missing or unknown")
    return Card(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _builder(folder: Path):
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(folder))
    except Exception as error:  # TFDS raises whatever its JSON and protobuf readers raise
        raise InputError(
            f"{folder}: not a built data set, or a damaged one ({error}). Build it again with --overwrite."
        ) from error


def _data_source(folder: Path):
    import tensorflow_datasets as tfds

    builder = _builder(folder)
    try:
        return builder.as_data_source(split=SPLIT, decoders={name: tfds.decode.SkipDecoding() for name in _PICTURES})
    except Exception as error:  # a missing split or file ends in one of many exception types
        raise InputError(
            f"{folder}: its array_record files are missing or damaged ({error}). Build it again with --overwrite."
        ) from error


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=4)
    return file.getvalue()


def _pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as picture:
        return np.asarray(picture)


def _as_bytes(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, np.uint8(255), np.uint8(0))


def _string(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
