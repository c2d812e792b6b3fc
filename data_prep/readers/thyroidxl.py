"""ThyroidXL: 11,635 thyroid scans of 4,093 patients, with outlines, TI-RADS categories and conclusions of the biopsy.

``train`` and ``test`` each hold ``images`` and ``masks``, whose files have equal names: ``00000058_2201CE11_0.png`` is
an image of patient 00000058. ``stats/id2info_eng.json`` says for each patient which images there are, and describes up
to four nodules. It does not say which nodule an image shows. JSON and pictures are untrusted input.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.pictures import grey, pixels
from data_prep.readers import _folders, _thyroid
from data_prep.reading import fault_of, in_order
from thyroid_jax.data.record import Card, Notes, Record
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there, read_bytes

PARTS = ("test", "train")  # test first: an image of it is not taken for training as well
INFO = "stats/id2info_eng.json"
LARGEST_JSON = 64 << 20  # bytes
GRADES = ("1", "2", "3", "4", "5")
NODULES = ("nodule_1", "nodule_2", "nodule_3", "nodule_4")
FILE = re.compile(r"([0-9A-Za-z-]{1,40})_[0-9A-Za-z_-]{1,80}\.png")
NO_MASK, FAINT = "masks that are not there", f"masks with no value above {_folders.CUT_AT}"
# a patient's conclusion: 1 and 4 are of the histology, 2 and 3 of the cytology
CODES: Mapping[int | None, bool] = {1: True, 2: True, 3: False, 4: False}
VERDICTS = {  # words of Histopathology, Conclusion and FNAC that are certainly malignant or benign, in small letters
    **dict.fromkeys(
        (
            "malignant",
            "malignant (histopathology)",
            "malignant (fnac)",
            "papillary thyroid carcinoma",
            "micro-papillary thyroid carcinoma",
            "papillary thyroid carcinoma, chronic thyroiditis",
            "follicular thyroid carcinoma",
            "medullary thyroid carcinoma",
            "anaplastic thyroid carcinoma",
            "hurthle cell carcinoma",
        ),
        True,
    ),
    **dict.fromkeys(
        (
            "benign",
            "benign (histopathology)",
            "benign (fnac)",
            "colloid nodule",
            "thyroid cyst disease",
            "follicular thyroid adenoma",
            "hurthle cell adenoma",
        ),
        False,
    ),
}

CARD = Card(
    name="thyroidxl",
    title="ThyroidXL: thyroid ultrasound, Vietnam",
    source="Duong, Vu, Phan, Nguyen and others: ThyroidXL. MICCAI 2025, papers.miccai.org/miccai-2025/0928-Paper2024. "
    "huggingface.co/datasets/hunglc007/ThyroidXL. Images of the National Hospital of Endocrinology.",
    licence="Access on request, under the terms that the publishers show there; not to be passed on.",
    labels="Outline: of the nodule, by radiologists. Category: TI-RADS 1 to 5. The files do not name the system; five "
    "categories without 4a, 4b, 4c are like ACR's, but this is not certain. Malignant: the conclusion of histology or, "
    "for most patients, of cytology (FNAC), by a list of words and codes; a word that is not in the list is unknown. "
    "All of these belong to a nodule, and no file says which nodule an image shows: an image has the label of its "
    "patient's nodules if all agree, else none. Descriptors, of patients with one nodule: position, cytology and "
    "histology; the last two are the answer, never an input.",
    access="on request",
    holds=("outlines", "grades", "malignancy"),
    grouping="patient; patients that share an image are one group",
    grades=GRADES,
    grade_system="TI-RADS",
    faults=(
        "About two thirds of the patients are benign by cytology alone.",
        "No file says what a patient's code (conclusion) means. Codes 1 and 2 as malignant, 3 and 4 as benign give the "
        "paper's numbers of malignant patients in both parts, and no other choice does.",
        "TIRADS is a number or a text.",
        "A patient's age may be a year of birth (2005); age and sex are not used.",
        "The size of a nodule is given in mm, but not the size of a pixel.",
        "Images are as the publishers made them; nothing is cropped or filled in.",
        "An image that the JSON does not name is kept with unknown labels, unless its patient has images in the other "
        "part. An image without mask, or whose mask has no value above 127, is kept without outline.",
        _folders.MASK_RULE,
    ),
    expected={
        "images": 11635,
        "train images": 9541,
        "test images": 2094,
        "patients": 4093,
        "train patients": 3354,
        "test patients": 739,
        "patients malignant by code": 1230,
        "patients benign by code": 2863,
        **{f"first nodules TI-RADS {grade}": count for grade, count in zip(GRADES, (24, 373, 1272, 1239, 1185))},
    },
)

COUNTED = (  # in the order in which they are printed, also when they are 0
    "patients listed",
    "images that are not there",
    "images without entry",
    "masks without entry",
    *CARD.expected,
    "images of patients with several nodules",
    "images whose nodules differ in category",
    "images whose nodules differ in malignancy",
    "images without category",
    *_thyroid.MALIGNANCY.values(),
    NO_MASK,
    FAINT,
    *_folders.MASK_COUNTS,
    _thyroid.EXTRA,
    _thyroid.COPIES,
    "nodules whose TIRADS is not 1 to 5",
    "nodules whose words contradict each other",
    "patients whose code contradicts the words",
)


@dataclass(frozen=True)
class Patient:
    """What the JSON says of a patient: the labels on which all nodules agree, and what is to be noted.

    ``counts`` are names of counts of the patient, ``image_counts`` of each of the images, ``unknown`` the (column,
    word) pairs that left a nodule without malignancy.
    """

    name: str
    images: Sequence[str]
    grade: int | None
    malignant: bool | None
    descriptors: Mapping[str, str]
    counts: Sequence[str]
    image_counts: Sequence[str]
    unknown: Sequence[tuple[str, str]]


def read(source: Path, notes: Notes) -> Iterator[Record]:
    """Yield the records of ThyroidXL in the folder ``source``: the test part, then the other, patient by patient.

    Counts, omissions and faults go to ``notes``. An image that the JSON names but that is not there is left out, as is
    a training image whose pixels are in the test part. Raises :class:`InputError` when ``source`` is not the folder of
    ThyroidXL, when the JSON cannot be read, or when there is no image.
    """
    folders = [f"{part}/{kind}" for part in PARTS for kind in ("images", "masks")]
    source = _folders.folder_of(Path(source), "ThyroidXL", [*folders, "stats"], "ThyroidXL")
    notes.counts.update(dict.fromkeys(COUNTED, 0))
    patients = _patients(source / INFO, notes)
    items = _images(source, patients, notes)
    patient_of = {name: patient for _, name, patient in items}
    present: dict[str, set[str]] = {part: set() for part in PARTS}

    def record_of(item: tuple[str, str, Patient], own: Notes) -> Record | None:
        return _record(source, *item, own)

    def names(record: Record) -> list[str]:
        found = [
            f"{_part(record)} images",
            _thyroid.MALIGNANCY[record.malignant],
            *patient_of[f"{record.case}.png"].image_counts,
        ]
        return [*found, *["images without category"] * (record.grade is None)]

    for record in _thyroid.counted(in_order(record_of, items, notes), notes, names):
        present[_part(record)].add(record.group)
        yield record
    _count_patients(present, patients, notes)
    _thyroid.some_images(notes, source, "ThyroidXL")


def _part(record: Record) -> str:
    return "test" if record.official_test else "train"


def _count_patients(present: Mapping[str, set[str]], patients: Mapping[str, Patient], notes: Notes) -> None:
    unknown: Counter[tuple[str, str]] = Counter()
    notes.counts.update({f"{part} patients": len(names) for part, names in present.items()})
    for name in sorted(set().union(*present.values())):
        patient = patients.get(name, _unknown(name))
        notes.counts.update(("patients", *patient.counts))
        unknown.update(patient.unknown)
    for (column, word), times in sorted(unknown.items()):
        why = f"neither benign nor malignant for certain: {times} nodules have no malignancy from it"
        notes.dropped.append((f"{column} {word!r}", why))


# The pictures.


def _images(source: Path, patients: Mapping[str, Patient], notes: Notes) -> list[tuple[str, str, Patient]]:
    """(part, file name, patient) of each image that is there, those that are listed first in each part.

    Other files are noted. An image that is not listed has a patient without labels.
    """
    files = {(part, kind): _names(source / part / kind) for part in PARTS for kind in ("images", "masks")}
    listed = {image: patient for patient in patients.values() for image in patient.images}
    items: list[tuple[str, str, Patient]] = []
    for image, patient in listed.items():
        parts = [part for part in PARTS if image in files[part, "images"]]
        items += [(part, image, patient) for part in parts]
        if not parts:
            notes.counts["images that are not there"] += 1
            notes.dropped.append((image, f"{INFO} names it: it is in neither part"))
        elif len(parts) > 1:
            notes.faults.append(f"{image}: is in {' and in '.join(parts)}; remove one after the original.")
    part_of = {patient.name: part for part, _, patient in items}
    for part in PARTS:
        items += _not_listed(part, files[part, "images"] - listed.keys(), part_of, notes)
        for name in sorted(files[part, "masks"] - listed.keys() - files[part, "images"]):
            _folders.leave_out(
                f"{part}/masks/{_thyroid.printed(name)}", f"{INFO} does not name it", "masks without entry", notes
            )
    return sorted(items, key=lambda item: PARTS.index(item[0]))


def _not_listed(
    part: str, names: set[str], part_of: dict[str, str], notes: Notes
) -> Iterator[tuple[str, str, Patient]]:
    """The images of one part that the JSON does not name, of a patient without labels, who is added to ``part_of``.

    A patient must not be in both parts: an image of one who is in the other part is left out.
    """
    for name in sorted(names):
        place, found = f"{part}/images/{_thyroid.printed(name)}", FILE.fullmatch(name)
        if not found:
            _folders.leave_out(place, "its name is not that of an image of a patient", _thyroid.EXTRA, notes)
            continue
        why = f"{INFO} does not name it"
        if (other := part_of.setdefault(found[1], part)) != part:
            _folders.leave_out(place, f"{why}, and its patient is in {other}", "images without entry", notes)
        else:
            _folders.leave_out(f"the labels of {place}", why, "images without entry", notes)
            yield part, name, _unknown(found[1])


def _unknown(name: str) -> Patient:
    """A patient without any label."""
    return Patient(name, (), None, None, {}, (), (), ())


def _names(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if name.lower().endswith(".png")}
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}). Check the folder.") from error


def _record(source: Path, part: str, name: str, patient: Patient, notes: Notes) -> Record | None:
    """The record of one image, or None, and faults, when one of its pictures cannot be used."""
    place, mask_place = f"{part}/images/{name}", f"{part}/masks/{name}"
    image = _thyroid.image_of(source, place, "PNG", notes)
    mask = _mask(source, mask_place, image, notes)
    if image is None or notes.faults:
        return None
    return Record(
        case=name.removesuffix(".png"),
        group=patient.name,
        source=place,
        image=image,
        mask=mask,
        grade=patient.grade,
        malignant=patient.malignant,
        descriptors=patient.descriptors,
        official_test=part == "test",
    )


def _mask(source: Path, place: str, image: np.ndarray | None, notes: Notes) -> np.ndarray | None:
    """The outline bool[h w] in a mask; None where there is none, which is noted, or, with a fault, cannot be read."""
    if not is_there(source / place):
        _folders.leave_out(place, "is not there; the image is kept without outline", NO_MASK, notes)
        return None
    with fault_of(place, notes):
        mask = pixels(source / place, "PNG", modes=("1", *_thyroid.MODES))
        if 1 < (largest := int(grey(mask).max())) <= _folders.CUT_AT:
            why = f"its largest value is {largest}; the image is kept without outline"
            _folders.leave_out(place, why, FAINT, notes)
        elif image is not None:
            return _folders.lesion(mask, image.shape, place, notes)
    return None


# The JSON.


def _patients(path: Path, notes: Notes) -> dict[str, Patient]:
    """The patients that can be read, by name. The others are faults."""
    try:
        values = _parsed(read_bytes(path, largest=LARGEST_JSON))
    except InputError as error:
        raise InputError(f"{path}: {error}; replace the file by the original.") from error
    notes.counts["patients listed"] = len(values)
    patients: dict[str, Patient] = {}
    owner: dict[str, str] = {}
    for name, value in values.items():
        with fault_of(f"{INFO}: patient {name[:40]!r}", notes, "correct it after the original"):
            patient = _patient(name, value)
            for image in patient.images:
                if (other := owner.setdefault(image, name)) != name:
                    raise InputError(f"images: {image} is an image of patient {other} already")
            patients[name] = patient
    return patients


def _parsed(content: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) != len(found := dict(pairs)):
            twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
            raise InputError(f"JSON: {twice[:40]!r} is there twice")
        return found

    try:
        values = json.loads(content, object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"JSON: cannot be read ({str(error)[:200]})") from error
    if not isinstance(values, dict) or not values:
        raise InputError("JSON: must hold a description of each patient, {patient: {...}}")
    return values


def _patient(name: str, value: Any) -> Patient:
    if not re.fullmatch(r"[0-9A-Za-z-]{1,40}", name):
        raise InputError("name: must be letters and digits, as 00000058")
    if not isinstance(value, dict):
        raise InputError(f"is a {type(value).__name__}, not a description")
    images = value.get("images") or []
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise InputError("images: must be a list of file names")
    for image in images:
        if not re.fullmatch(re.escape(name) + r"_[0-9A-Za-z_-]{1,80}\.png", image):
            raise InputError(f"images: {image[:80]!r} must be {name}_... .png")
    nodules = []
    for key in sorted(key for key in value if re.fullmatch(r"nodule_[0-9]+", key, re.ASCII) and value[key]):
        if key not in NODULES:
            raise InputError(f"{key[:40]}: the nodules that are known are {', '.join(NODULES)}")
        if not isinstance(value[key], dict):
            raise InputError(f"{key}: is a {type(value[key]).__name__}, not a description")
        nodules.append(value[key])
    return _labelled(name, tuple(dict.fromkeys(images)), nodules, CODES.get(_whole(value.get("conclusion"))))


def _labelled(name: str, images: Sequence[str], nodules: Sequence[Mapping[str, Any]], code: bool | None) -> Patient:
    """The patient's labels, which are known where all of the nodules have the same known label."""
    grades = [_grade(nodule.get("TIRADS")) for nodule in nodules]
    found = [_verdict(nodule) for nodule in nodules]
    verdicts = [None if verdict == CONTRADICTION else verdict for verdict in found]
    counts = ["nodules whose TIRADS is not 1 to 5"] * grades.count(None)
    counts += ["nodules whose words contradict each other"] * found.count(CONTRADICTION)
    counts += [] if code is None else [f"patients {'malignant' if code else 'benign'} by code"]
    counts += [f"first nodules TI-RADS {GRADES[grade]}" for grade in grades[:1] if grade is not None]
    image_counts = ["images of patients with several nodules"] * (len(nodules) > 1)
    for label, values in (("category", grades), ("malignancy", verdicts)):
        image_counts += [f"images whose nodules differ in {label}"] * (len({*values} - {None}) > 1)
    malignant = code if found == [None] else _agreed(verdicts)  # the code is that of the only nodule
    if None not in (malignant, code) and malignant != code:
        counts.append("patients whose code contradicts the words")
        malignant = None
    unknown = [pair for nodule, verdict in zip(nodules, found) if verdict is None for pair in _words(nodule)]
    descriptors = _descriptors(nodules[0]) if len(nodules) == 1 else {}
    return Patient(name, images, _agreed(grades), malignant, descriptors, counts, image_counts, unknown)


def _agreed(labels: Sequence[Any]) -> Any:
    return labels[0] if len(set(labels)) == 1 else None


def _grade(tirads: Any) -> int | None:
    return GRADES.index(str(number)) if str(number := _whole(tirads)) in GRADES else None


def _whole(value: Any) -> int | None:
    """A whole number of one digit that is given as a number or as a text, also as 4.0; None for anything else."""
    if not isinstance(value, int | float | str):
        return None
    found = re.fullmatch(r"([0-9])(?:\.0)?", str(value).strip(), re.ASCII)
    return int(found[1]) if found else None


CONTRADICTION = "contradiction"


def _verdict(nodule: Mapping[str, Any]) -> bool | str | None:
    """Whether a nodule is malignant: by histology and conclusion, or by cytology (FNAC) where there is neither."""
    words = _words(nodule)
    proven = [pair for pair in words if pair[0] != "FNAC"] or words
    known = {VERDICTS[word.lower()] for _, word in proven if word.lower() in VERDICTS}
    return CONTRADICTION if len(known) > 1 else next(iter(known), None)


def _words(nodule: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(column, word) of the findings that are texts; white space is made one space."""
    found = [(column, _word(nodule.get(column))) for column in ("Histopathology", "Conclusion", "FNAC")]
    return [(column, word) for column, word in found if word]


def _word(value: Any) -> str:
    text = " ".join(value[:4000].split()) if isinstance(value, str) else ""
    return text[:200] if text.isprintable() else ""


def _descriptors(nodule: Mapping[str, Any]) -> dict[str, str]:
    columns = {"position": "Position", "cytology": "FNAC", "histology": "Histopathology"}
    words = {name: _word(nodule.get(column)) for name, column in columns.items()}
    return {name: word for name, word in words.items() if word}
