"""Records on disk: how one becomes a TFDS example and back, and random access to a built data set. TensorFlow is never
imported.

A built data set is a folder ``DIR/NAME/VERSION`` as TFDS lays it out. Its ``metadata.json`` holds the card and an index
of all records, so that opening reads no record. Every record that is read is compared with its entry in the index.

The folder is untrusted. TFDS imports the classes that a ``features.json`` names, and opens the files that a
``dataset_info.json`` names; so TFDS never reads them here. They are compared with what this module writes, and the
records are decoded with :func:`features`.
"""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image

from thyroid_jax.data.record import Card, Entry, Record, RecordSequence, data_digest, entry_of, is_name
from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import read_json

VERSION = "3.0.0"  # goes up whenever data sets of the version before cannot be read any more
SPLIT = "records"  # the one TFDS split; training, validation and test are lists of cases (thyroid_jax.data.splits)
FORMAT = "array_record"
UNKNOWN = -1  # a missing class or truth value, on disk only

PNG = "png"
_PICTURES = ("image", "mask", "reader_masks")
_LARGEST_JSON = 1 << 20  # bytes of features.json and dataset_info.json
_LARGEST_METADATA = 256 << 20  # bytes; an entry of the index takes about 300


class Metadata(NamedTuple):
    """Description of a built data set: its card, the index of its records in their order, its digest
    (:func:`thyroid_jax.data.record.data_digest`), and what its reader counted and left out, as (what, why).
    """

    card: Card
    entries: tuple[Entry, ...]
    digest: str
    counts: dict[str, int]
    dropped: tuple[tuple[str, str], ...]


def features():
    """The TFDS features of one record; the same for every data set.

    ``mask`` is a 1 x 1 picture when there is none (``has_mask`` False), and ``reader_masks`` holds the readers' masks
    one below the other.
    """
    import tensorflow_datasets as tfds

    picture = {name: tfds.features.Image(shape=(None, None, 1), encoding_format=PNG) for name in _PICTURES}
    text = {name: tfds.features.Text() for name in ("case", "group", "source", "descriptors", "spacing", "cleaning")}
    whole = {name: np.int32 for name in ("grade", "malignant", "readers")}
    flags = {name: np.bool_ for name in ("has_mask", "official_test")}
    return tfds.features.FeaturesDict(
        picture | text | whole | flags | {"reader_grades": tfds.features.Sequence(np.int32)}
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
        "image": _png(record.image),
        "has_mask": record.mask is not None,
        "mask": _png(_as_bytes(nothing if record.mask is None else record.mask)),
        "readers": len(record.reader_masks),
        "reader_masks": _png(_as_bytes(np.concatenate(record.reader_masks) if record.reader_masks else nothing)),
        "grade": UNKNOWN if record.grade is None else record.grade,
        "reader_grades": list(record.reader_grades),
        "malignant": UNKNOWN if record.malignant is None else int(record.malignant),
        "descriptors": json.dumps(dict(record.descriptors), sort_keys=True),
        # As text: TFDS keeps floats in single precision.
        "spacing": " ".join(repr(float(side)) for side in record.spacing),
        "official_test": record.official_test,
        "cleaning": json.dumps(record.cleaning),
    }


def decode(example: Mapping[str, Any]) -> Record:
    """The record of an example whose pictures are still PNG bytes. Inverse of :func:`encode`."""
    image = _pixels(example["image"])
    mask = _pixels(example["mask"]) > 127 if example["has_mask"] else None
    readers = int(example["readers"])
    grade, malignant = int(example["grade"]), int(example["malignant"])
    down, across = (float(side) for side in _string(example["spacing"]).split())
    return Record(
        case=_string(example["case"]),
        group=_string(example["group"]),
        source=_string(example["source"]),
        image=image,
        mask=mask,
        reader_masks=tuple(np.split(_pixels(example["reader_masks"]) > 127, readers)) if readers else (),
        grade=None if grade == UNKNOWN else grade,
        reader_grades=tuple(int(reader_grade) for reader_grade in example["reader_grades"]),
        malignant=None if malignant == UNKNOWN else bool(malignant),
        descriptors=json.loads(_string(example["descriptors"])),
        spacing=(down, across),
        official_test=bool(example["official_test"]),
        cleaning=tuple(json.loads(_string(example["cleaning"]))),
    )


class Records(RecordSequence):
    """The records of a built data set, in the order in which they were written; each access reads one from disk.

    ``entries`` is their index, ``digest`` that of the data set. Reading a record that differs from its entry in the
    index, or that cannot be decoded, raises :class:`InputError`. Worker processes and ``grain`` can use it.
    """

    def __init__(self, folder: Path | str, metadata: Metadata):
        self.folder, self.card, self.entries, self.digest = Path(folder), *metadata[:3]
        self._metadata = metadata
        self._features = features()
        self._decoders = _skip_decoding()
        self._examples = _open_shards(self.folder, metadata)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        """Record ``index``, from the end when negative; a list of records for a slice."""
        if isinstance(index, slice):
            return [self._read(place) for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self._read(int(place))

    def _read(self, place: int) -> Record:
        entry = self.entries[place]
        try:
            example = self._features.deserialize_example_np(self._examples[place], decoders=self._decoders)
            record = decode(example)
            found = entry_of(record, self.card)
        except Exception as error:  # damaged bytes raise any error of array_record, protobuf, TFDS, PIL or JSON
            raise self._damaged(place, str(error) or type(error).__name__) from error
        if found != entry:
            wrong = [name for name in Entry._fields if getattr(found, name) != getattr(entry, name)]
            raise self._damaged(place, f"its {', '.join(wrong)} differ from the index")
        return record

    def _damaged(self, place: int, why: str) -> InputError:
        return InputError(
            f"{self.folder}: record {place}, case {self.entries[place].case!r}, is damaged ({why}). "
            "Build the data set again with --overwrite."
        )

    def __reduce__(self) -> tuple[type[Records], tuple[Path, Metadata]]:
        return Records, (self.folder, self._metadata)


def open_records(data_dir: Path | str, name: str) -> tuple[Card, Records]:
    """Card and records of the data set ``name`` built in ``data_dir``. No record is read yet.

    Raises :class:`InputError` when it is missing, was built by another version, or when its files do not agree with
    each other.
    """
    metadata = read_metadata(data_dir, name)
    return metadata.card, Records(folder_of(data_dir, name), metadata)


def read_metadata(data_dir: Path | str, name: str) -> Metadata:
    """The description of the data set ``name`` built in ``data_dir``; raises :class:`InputError` as
    :func:`open_records` does.
    """
    folder = _built_folder(Path(data_dir), name)
    path = folder / "metadata.json"
    values = read_json(path, largest=_LARGEST_METADATA)
    try:
        metadata = _metadata(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not the card and index of a data set ({error}). {_REBUILD}") from error
    if metadata.card.name != name:
        raise InputError(f"{path}: of the data set {metadata.card.name!r}, but lies where {name!r} is. {_REBUILD}")
    if metadata.digest != data_digest(metadata.card, metadata.entries):
        raise InputError(f"{path}: the index is not the one that was written. {_REBUILD}")
    return metadata


def folder_of(data_dir: Path | str, name: str) -> Path:
    """Where the data set ``name`` lies in ``data_dir``; TFDS's own layout, so that its tools find it too."""
    return Path(data_dir) / name / VERSION


def metadata_as_json(metadata: Metadata) -> dict[str, Any]:
    """Plain JSON values, from which :func:`read_metadata` makes ``metadata`` again."""
    return {
        "card": asdict(metadata.card) | {"expected": dict(metadata.card.expected)},
        "counts": dict(metadata.counts),
        "dropped": [list(pair) for pair in metadata.dropped],
        "digest": metadata.digest,
        "index": [entry._asdict() for entry in metadata.entries],
    }


_REBUILD = "Build the data set again with --overwrite."


def _built_folder(data_dir: Path, name: str) -> Path:
    if not is_name(name):
        raise InputError(f"{name!r} cannot be the name of a data set: small letters, digits and _, a letter first.")
    folder = folder_of(data_dir, name)
    if folder.is_dir():
        return folder
    build = f"python -m data_prep build {name} --out {shlex.quote(str(data_dir))}"
    others = [path.name for path in folder.parent.glob("*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    if others:
        raise InputError(
            f"{folder.parent}: built in format {' '.join(sorted(others))} by another version of thyroid_jax; this one "
            f"reads format {VERSION}. Build it again ({build} --overwrite ...)."
        )
    raise InputError(
        f"{folder}: the data set {name!r} has not been built there. Build it ({build} ...) or give the folder it was "
        "built in."
    )


def _metadata(values: Any) -> Metadata:
    if set(values) != {"card", "counts", "dropped", "digest", "index"}:
        raise ValueError(f"fields {sorted(values)}")
    card = _card(values["card"])
    entries = tuple(_entry(entry) for entry in values["index"])
    unknown = {entry.grade for entry in entries} - {None, *card.grades}
    cases = {entry.case for entry in entries}
    if unknown or not entries or len(cases) < len(entries):
        raise ValueError(f"{len(entries)} entries of {len(cases)} cases; grades that are not in the card: {unknown}")
    dropped = tuple((str(what), str(why)) for what, why in values["dropped"])
    counts = {str(name): int(count) for name, count in values["counts"].items()}
    return Metadata(card, entries, str(values["digest"]), counts, dropped)


def _card(values: Mapping[str, Any]) -> Card:
    known = {field.name for field in fields(Card)}
    if set(values) != known:
        raise ValueError(f"fields {sorted(set(values) ^ known)} of the card are missing or unknown")
    arguments: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    return Card(**arguments)


_KINDS = {str: "case group content digest", bool: "has_mask spaced official_test", int: "readers"}
_OPTIONAL_KINDS = {str: "grade", bool: "malignant"}


def _entry(values: Mapping[str, Any]) -> Entry:
    wrong = [name for kind, names in _KINDS.items() for name in names.split() if type(values[name]) is not kind]
    wrong += [
        name
        for kind, names in _OPTIONAL_KINDS.items()
        for name in names.split()
        if values[name] is not None and type(values[name]) is not kind
    ]
    if wrong or len(values) != len(Entry._fields):
        raise ValueError(f"an entry of the index has wrong fields: {' '.join(wrong or values)}")
    return Entry(**values)


def _skip_decoding() -> dict[str, Any]:
    import tensorflow_datasets as tfds

    return {name: tfds.decode.SkipDecoding() for name in _PICTURES}


def _open_shards(folder: Path, metadata: Metadata):
    """Random access to the bytes of every example, after a check that all files of the folder agree."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    lengths = _check_description(folder, metadata)
    shards = _shards(folder, metadata.card.name, len(lengths))
    try:
        held = [len(ArrayRecordDataSource(str(shard))) for shard in shards]
        examples = ArrayRecordDataSource([str(shard) for shard in shards])
    except Exception as error:  # array_record raises RuntimeError or ValueError, Python's file functions OSError
        raise InputError(f"{folder}: its {FORMAT} files cannot be read ({error}). {_REBUILD}") from error
    problems = [
        f"{shard.name}: holds {count} records, dataset_info.json says {length}"
        for shard, count, length in zip(shards, held, lengths, strict=True)
        if count != length
    ]
    raise_all(problems, f"{folder}: its files do not agree. {_REBUILD}")
    return examples


def _check_description(folder: Path, metadata: Metadata) -> list[int]:
    """The number of records in each shard, after a check that ``features.json`` and ``dataset_info.json`` hold what
    this module writes, and that they agree with the index.
    """
    schema = read_json(folder / "features.json", largest=_LARGEST_JSON)
    info = read_json(folder / "dataset_info.json", largest=_LARGEST_JSON)
    problems = [] if schema == features_as_json() else ["features.json: not the features of this version's records"]
    if not isinstance(info, dict):
        raise InputError(f"{folder}/dataset_info.json: not an object. {_REBUILD}")
    expected = {
        "name": metadata.card.name,
        "version": VERSION,
        "fileFormat": FORMAT,
        "disableShuffling": True,
    }
    problems += [
        f"dataset_info.json: {field} is {info.get(field)!r}, not {value!r}"
        for field, value in expected.items()
        if info.get(field) != value
    ]
    splits = info.get("splits")
    split = splits[0] if isinstance(splits, list) and len(splits) == 1 and isinstance(splits[0], dict) else {}
    if (split.get("name"), split.get("filepathTemplate")) != (SPLIT, _TEMPLATE):
        problems.append(f"dataset_info.json: splits: not one split {SPLIT!r} in files {_TEMPLATE}")
    lengths = _lengths(split.get("shardLengths"))
    if not lengths:
        problems.append("dataset_info.json: shardLengths: not a list of numbers of records")
    elif sum(lengths) != len(metadata.entries):
        problems.append(
            f"dataset_info.json: shardLengths: {sum(lengths)} records, but {len(metadata.entries)} in the index"
        )
    raise_all(problems, f"{folder}: its files do not agree. {_REBUILD}")
    return lengths


_MOST_SHARDS = 99_999  # their numbers have five digits
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"  # TFDS's own


def _lengths(values: Any) -> list[int]:
    """Numbers of records, which TFDS writes as text; [] when they are anything else."""
    texts = values if isinstance(values, list) and len(values) <= _MOST_SHARDS else []
    good = all(isinstance(text, str) and re.fullmatch(r"[1-9][0-9]{0,11}", text) for text in texts)
    return [int(text) for text in texts] if good else []


def _shards(folder: Path, name: str, count: int) -> list[Path]:
    """The ``count`` files that hold the records, after a check that none is missing and no other lies beside them."""
    names = [f"{name}-{SPLIT}.{FORMAT}-{number:05d}-of-{count:05d}" for number in range(count)]
    there = {path.name for path in folder.iterdir() if f".{FORMAT}" in path.name}
    problems = [f"{missing}: is missing" for missing in names if missing not in there]
    problems += [f"{extra}: does not belong to it" for extra in sorted(there - set(names))]
    problems += [
        f"{shard}: is not a regular file" for shard in names if shard in there and not (folder / shard).is_file()
    ]
    raise_all(problems, f"{folder}: its files do not agree. {_REBUILD}")
    return [folder / shard for shard in names]


def features_as_json() -> Any:
    """The content of ``features.json``, as TFDS writes it for :func:`features`."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(features().to_proto())


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
