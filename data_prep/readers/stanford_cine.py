"""Stanford's thyroid cine clips: 192 nodules of 167 patients, one clip each, every frame outlined, proven by biopsy.

``metadata.csv`` has a row for each nodule. ``dataset.hdf5`` (36 GB) holds the frames of all clips, one after the other:
``image`` and ``mask`` are uint8[frame h w], ``annot_id`` names the nodule of each frame, ``frame_num`` its place in the
clip. A record is one frame. Both files are untrusted input: an HDF5 file may name other files, ask for any amount of
memory, or expand without limit. Frames are read in blocks, and by one thread, because HDF5 is serial.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep import hdf5
from data_prep.pictures import fills_frame, outline
from data_prep.reading import fault_of
from data_prep.tables import by_column, csv_rows
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.tirads import LEVELS
from thyroid_jax.untrusted import is_there

FRAMES, TABLE = "dataset.hdf5", "metadata.csv"
MISSING = ("", "nan", "na", "n/a")
MALIGNANT = {"0": False, "1": True, "benign": False, "malignant": True}
DESCRIBING = {  # column -> descriptor
    "location": "location",
    "ti-rads_composition": "composition",
    "ti-rads_echogenicity": "echogenicity",
    "ti-rads_shape": "shape",
    "ti-rads_margin": "margins",
    "ti-rads_echogenicfoci": "echogenic_foci",
}
COLUMNS = ("annot_id", *DESCRIBING, "ti-rads_level", "histopath_diagnosis")

BLOCK = 64  # frames that are read at once, unless a chunk has another number or they have more than 128 MiB

CARD = Card(
    name="stanford_cine",
    title="Stanford thyroid ultrasound cine clips, USA",
    source="Yamashita, Kapoor, Alam and others: Toward Reduction in False-Positive Thyroid Nodule Biopsies with a Deep "
    "Learning-based Risk Stratification System Using US Cine-Clip Images. Radiology: Artificial Intelligence 4 (2022) "
    "e210174. Stanford AIMI, doi:10.71718/7m5n-rh16.",
    licence="Stanford University's data set research use agreement; not to be passed on.",
    labels="Outline: of the nodule, by a radiologist, in every frame. Level: ACR TI-RADS level of the nodule, given to "
    "each of its frames. Malignant: proven by biopsy (histopath_diagnosis: 0 benign, 1 malignant). Descriptors: "
    "location, and the ACR findings as the table has them, mostly as points.",
    access="on request",
    holds=("outlines", "grades", "malignancy"),
    grouping="patient, where annot_id tells it; clips that share a frame are one group",
    grades=LEVELS,
    grade_system="ACR TI-RADS",
    faults=(
        "Frames of one clip look nearly alike: a hundred frames are one case. Evaluate by nodule or by group.",
        "The table does not name patients. The part of annot_id before its first _ is taken as the patient. If "
        "no annot_id has anything after it, each nodule is taken as a patient, which is noted: two nodules of one "
        "patient may then be in two groups, unless they share a frame.",
        "A frame whose mask is empty does not show the nodule that the labels speak of. It is left out.",
        "The size of a nodule is given in cm, but not the size of a pixel.",
        "Frames are as the publishers made them; nothing is cropped or filled in.",
    ),
    expected={
        "frames": 17412,
        "frames without row": 0,
        "nodules": 192,
        "patients": 167,
        "nodules benign": 175,
        "nodules malignant": 17,
    },
)

COUNTED = (  # in the order in which they are printed, also when they are 0
    "rows",
    "frames",
    "frames without row",
    "frames without outline",
    "frames of one grey value",
    "nodules without frame",
    "nodules",
    "patients",
    "nodules benign",
    "nodules malignant",
    "nodules without diagnosis",
    *(f"nodules {level}" for level in LEVELS),
    "nodules without level",
)
WHY = {
    "without row": f"{TABLE} has no row for them",
    "without outline": "their mask is empty: the nodule is not in them",
    "of one grey value": "they show nothing",
}


@dataclass(frozen=True)
class Nodule:
    """A row of the table; ``name`` is its annot_id without the underscore at the end."""

    number: int
    name: str
    grade: int | None
    malignant: bool | None
    descriptors: Mapping[str, str]

    @property
    def patient(self) -> str:
        """The part of the name before its first underscore."""
        return self.name.partition("_")[0]


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield a record for each frame in the folder ``source``, in the order of the file.

    Counts, omissions and faults go to ``notes``. Frames are read in blocks of at most 128 MiB. Needs h5py, of the
    ``data`` extra. Raises :class:`InputError` when ``source`` is not the folder of this set, or when its table cannot
    be read.
    """
    source = Path(source)
    _check_places(source)
    counts = notes.counts
    counts.update(dict.fromkeys(COUNTED, 0))
    nodules = _nodules(source / TABLE, notes)
    left_out: Counter[tuple[str, str]] = Counter()
    used: set[str] = set()
    with fault_of(FRAMES, notes), hdf5.opened(source / FRAMES) as file:
        frames = _frames(file, notes)
        counts["frames"] = len(frames.names)
        for place, image, mask in frames.blocks(notes):
            reason, record = _record(frames, place, image, mask, nodules, notes)
            if record is not None:
                used.add(frames.names[place])
                yield record
            elif reason:
                counts[f"frames {reason}"] += 1
                left_out[frames.names[place], reason] += 1
        for name in sorted(nodules.keys() - set(frames.names)):
            counts["nodules without frame"] += 1
            why = f"row {nodules[name].number} of {TABLE} names it, but {FRAMES} has no frame of it"
            notes.dropped.append((f"nodule {name}_", why))
    notes.dropped += [(f"{times} frames of {name}_", WHY[reason]) for (name, reason), times in left_out.items()]
    if nodules and not any("_" in name for name in nodules):
        notes.dropped.append(("the patients of the nodules", "annot_id names only nodules: each is taken as a patient"))
    _count([nodule for nodule in nodules.values() if nodule.name in used], counts)


def _check_places(source: Path) -> None:
    if not source.is_dir():
        raise InputError(f"{source}: no such folder. Give the folder that holds Stanford's {FRAMES} and {TABLE}.")
    if missing := [name for name in (FRAMES, TABLE) if not is_there(source / name)]:
        inner = next((path.parent for path in sorted(source.glob(f"*/{FRAMES}"))), None)
        hint = f"It is in {inner}: give that folder." if inner else "Put both files of the download into one folder."
        raise InputError(f"{source}: not Stanford's folder, there is no {', no '.join(missing)} in it. {hint}")


def _count(nodules: Sequence[Nodule], counts: Counter[str]) -> None:
    diagnoses = {None: "without diagnosis", False: "benign", True: "malignant"}
    counts["nodules"] = len(nodules)
    counts["patients"] = len({nodule.patient for nodule in nodules})
    for nodule in nodules:
        counts[f"nodules {diagnoses[nodule.malignant]}"] += 1
        counts[f"nodules {'without level' if nodule.grade is None else LEVELS[nodule.grade]}"] += 1


def _record(
    frames: Frames, place: int, image: np.ndarray, mask: np.ndarray, nodules: Mapping[str, Nodule], notes: Notes
) -> tuple[str, Record | None]:
    """The record of a frame, or why it has none ("" for a fault)."""
    name, number = frames.names[place], frames.numbers[place]
    if (nodule := nodules.get(name)) is None:
        return "without row", None
    with fault_of(f"{FRAMES}: mask[{place}]", notes):
        marked = outline(mask, image.shape)
        if not marked.any():
            return "without outline", None
        if fills_frame(marked):
            raise InputError("values: all corners and over half of the frame are marked (inside out?)")
        if image.min() == image.max():
            return "of one grey value", None
        return "", Record(
            case=f"{name}_{number:04d}",
            group=nodule.patient,
            source=f"{FRAMES}: image[{place}]",
            image=image.copy(),
            mask=marked,
            grade=nodule.grade,
            malignant=nodule.malignant,
            descriptors=nodule.descriptors,
        )
    return "", None


# The table.


def _nodules(path: Path, notes: Notes) -> dict[str, Nodule]:
    """The rows of the table that can be read, by name. The others are faults."""
    try:
        rows = by_column(csv_rows(path, notes.faults), COLUMNS)
    except InputError as error:
        raise InputError(f"{path}: {error}; replace the file by the original.") from error
    notes.counts["rows"] = len(rows)
    nodules: dict[str, Nodule] = {}
    for number, texts in rows:
        place = f"{TABLE}: row {number}"
        with fault_of(place, notes, "correct it after the original"):
            nodule = _nodule(number, texts)
            if (first := nodules.setdefault(nodule.name, nodule)) is not nodule:
                raise InputError(f"annot_id: {nodule.name}_ is already in row {first.number}")
    return nodules


def _nodule(number: int, texts: Mapping[str, str]) -> Nodule:
    level, diagnosis = (texts[column].lower() for column in ("ti-rads_level", "histopath_diagnosis"))
    grade = re.fullmatch(r"(?:tr)?([1-5])(?:\.0)?", level)
    if not grade and level not in MISSING:
        raise InputError(f"ti-rads_level: {level[:40]!r} must be 1 to 5, or empty")
    diagnosis = diagnosis.removesuffix(".0")
    if diagnosis not in MALIGNANT and diagnosis not in MISSING:
        raise InputError(f"histopath_diagnosis: {diagnosis[:40]!r} must be 0, 1, benign or malignant, or empty")
    descriptors = {name: texts[column] for column, name in DESCRIBING.items() if texts[column].lower() not in MISSING}
    for name, text in descriptors.items():
        if len(text) > 80 or not text.isprintable():
            raise InputError(f"{name}: {text[:40]!r} must be a text of at most 80 printed characters")
    return Nodule(
        number=number,
        name=_name(texts["annot_id"]),
        grade=int(grade[1]) - 1 if grade else None,
        malignant=MALIGNANT.get(diagnosis),
        descriptors=descriptors,
    )


def _name(annot_id: str) -> str:
    """A nodule's name: "12" for "12_", "12_1" for "12_1" and "12_1_". Raises :class:`InputError` for other texts."""
    if not re.fullmatch(r"[0-9A-Za-z]{1,20}(_[0-9A-Za-z]{1,20})?_?", annot_id):
        raise InputError(f"annot_id: {annot_id[:40]!r} must be a patient's number and _, as 12_ or 12_1")
    return annot_id.removesuffix("_")


# The frames.


@dataclass(frozen=True)
class Frames:
    """Frames and masks of the open file, and the nodule of each frame and its number in the clip."""

    image: hdf5.Pictures
    mask: hdf5.Pictures
    names: Sequence[str]
    numbers: Sequence[int]

    def blocks(self, notes: Notes) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(place, image uint8[h w], mask uint8[h w]) of each frame; a block that cannot be read is a fault."""
        most = max(1, hdf5.LARGEST_CHUNK // math.prod(self.image.shape[1:]))
        step = min(most, max(self.image.rows, self.mask.rows) or BLOCK)
        for start in range(0, len(self.names), step):
            stop = min(start + step, len(self.names))
            with fault_of(f"{FRAMES}: frames {start} to {stop - 1}", notes):
                images, masks = self.image.read(start, stop), self.mask.read(start, stop)
                yield from zip(range(start, stop), images, masks)
                del images, masks  # before the next block is read


def _frames(file: hdf5.File, notes: Notes) -> Frames:
    """Raises :class:`InputError` when the parts of the file do not fit together."""
    image, mask = file.pictures("image"), file.pictures("mask")
    if mask.shape != image.shape:
        raise InputError(f"mask: size {mask.shape}, but image is {image.shape}")
    total = image.shape[0]
    names = [_name(text) for text in file.texts("annot_id", total)]
    if file.has("frame_num"):
        numbers = [_number(text) for text in file.texts("frame_num", total)]
    else:
        numbers = _places_in_clips(names)
    times = Counter(zip(names, numbers))
    for name, number in {name: number for (name, number), count in times.items() if count > 1}.items():
        notes.faults.append(f"{FRAMES}: frame_num: clip {name}_ has frame {number} twice; replace the file.")
    return Frames(image, mask, names, numbers)


def _number(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}_?", text, re.ASCII):
        raise InputError(f"frame_num: {text[:40]!r} must be a whole number")
    return int(text.removesuffix("_"))


def _places_in_clips(names: Sequence[str]) -> list[int]:
    seen: Counter[str] = Counter()
    places = []
    for name in names:
        places.append(seen[name])
        seen[name] += 1
    return places
