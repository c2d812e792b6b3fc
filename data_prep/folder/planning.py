"""The plan of a data set: what was understood of a folder before any picture is read.

Everything here follows from the names of the files, the table and the COCO files. It does not depend on the order in
which a disk lists its files.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from data_prep import readers
from data_prep.folder import drawings
from data_prep.folder.drawings import Drawing
from data_prep.folder.grades import folder_grade, grades_of
from data_prep.folder.layout import (
    SPLITS,
    Layout,
    Mask,
    Pair,
    Place,
    composed,
    listing,
    natural,
    paired,
    split_of,
    stem_of,
)
from data_prep.folder.options import Options
from data_prep.folder.rows import RowFinder
from data_prep.folder.table import Labels, Table, table_of
from thyroid_jax.data.record import Card, is_name
from thyroid_jax.errors import InputError

NO_PATIENTS = (
    "no patient column: images of one patient may be on both sides of a split; give --group-column or --group-pattern"
)


@dataclass(frozen=True)
class Item:
    """One file of images, and what is known of it before it is read.

    masks     mask files with their readers; drawing and boxes are a Labelme and a Pascal VOC file, "" without
    coco      what a COCO file outlines on it, None when none names it
    grade     index into the card's grades; reader_grades likewise
    """

    case: str
    group: str
    image: str
    masks: tuple[Mask, ...] = ()
    drawing: str = ""
    boxes: str = ""
    coco: Drawing | None = None
    grade: int | None = None
    reader_grades: tuple[int, ...] = ()
    malignant: bool | None = None
    is_normal: bool = False
    findings: Mapping[str, str] = field(default_factory=dict)
    spacing: tuple[float, float] | None = None
    official_test: bool = False


@dataclass
class Plan:
    """What was understood of a folder: the card, the items in the order of their paths, and what they come from."""

    options: Options
    card: Card
    items: list[Item]
    layout: Layout
    table: Table


def plan_of(options: Options) -> Plan:
    """List the folder, read its table and COCO files, and plan its records.

    Faults of single files and cells are in ``Plan.layout.faults``. Raises :class:`InputError` for a name that cannot
    be used, a folder without images, or a table that cannot be used at all.
    """
    _check_name(options.name)
    layout = Layout()
    paired(listing(options.source, options.ignore, layout), layout, options.mask_words)
    if not layout.pairs:
        heading = f"{options.source}: no image was found in it. Known are PNG, JPEG, BMP, TIFF, DICOM, NIfTI, npy."
        raise InputError("\n  ".join([heading, *layout.faults]))
    table = table_of(options, layout)
    documents = _documents(options, layout)
    if options.labels and not documents and not any(pair.drawing for pair in layout.pairs):
        raise InputError("--labels: there is no COCO or Labelme file and no dataset.json of nnU-Net. Leave it out.")
    options = _with_nnunet(options, layout, documents)
    return planned(options, layout, table, _coco(options, layout, documents))


def _check_name(name: str) -> None:
    if not is_name(name):
        raise InputError(f"--name {name}: must be small letters, digits and _, a letter first, at most 64.")
    if name in (*readers.names(), "phantom", "folder"):
        raise InputError(f"--name {name}: is the name of a built-in data set. Give another.")


def _documents(options: Options, layout: Layout) -> dict[str, Any]:
    """The JSON files that no image claims, by their path: those of COCO, and nnU-Net's dataset.json."""
    found: dict[str, Any] = {}
    for path in layout.documents:
        try:
            document = drawings.read_json(options.source / path)
        except InputError as error:
            layout.faults.append(f"{path}: {error}; replace the file, or leave it out with --ignore.")
            continue
        if drawings.is_coco(document) or drawings.is_nnunet(document):
            found[path] = document
        else:
            layout.remarks.add("JSON files that are neither COCO nor named after an image are not read", path)
    return found


def _with_nnunet(options: Options, layout: Layout, documents: Mapping[str, Any]) -> Options:
    """The options, with the mask values that ``--labels`` means in nnU-Net's dataset.json; several need a choice."""
    for path, document in documents.items():
        if not drawings.is_nnunet(document) or options.mask_values:
            continue
        try:
            labels = drawings.nnunet_labels(document)
        except InputError as error:
            layout.faults.append(f"{path}: {error}; mend the file, or leave it out with --ignore.")
            continue
        listed = ", ".join(f"{name} {' '.join(map(str, values))}" for name, values in labels.items())[:200]
        if options.labels and not set(options.labels) <= labels.keys():
            layout.faults.append(f"{path}: labels: has {listed}, not all of --labels {','.join(options.labels)}.")
        elif options.labels:
            options = replace(options, mask_values=tuple(v for name in options.labels for v in labels[name]))
        elif len(labels) > 1:
            layout.faults.append(
                f"{path}: labels: has {listed}; say which are the nodule, as with --labels {list(labels)[-1]}."
            )
    return options


def _coco(options: Options, layout: Layout, documents: Mapping[str, Any]) -> dict[str, Drawing]:
    """The drawing of each image that a COCO file names, by the image's path; one beside the file comes first."""
    finder = RowFinder([pair.image for pair in layout.pairs])
    found: dict[str, Drawing] = {}
    for path, document in documents.items():
        faults: list[str] = []
        if not drawings.is_coco(document):
            continue
        for name, drawing in drawings.coco(document, faults, options.mask_values, options.labels).items():
            beside = finder.find(f"{path.rpartition('/')[0]}/{name}")
            images = beside if len(beside) == 1 else finder.find(name)
            if not images:
                layout.dropped.append((f"{path}: {name[:80]!r}", "there is no such image"))
            elif len(images) > 1 or images[0].path in found:
                problem = (
                    "may be several images" if len(images) > 1 else f"{images[0].path} is in it, or in another, twice"
                )
                faults.append(f"file_name {name[:80]!r}: {problem}")
            else:
                found[images[0].path] = drawing
        layout.faults += [f"{path}: {fault}; mend the file." for fault in faults]
    labels = sorted({label for drawing in found.values() for label in drawing.labels})
    if len(labels) > 1 and not options.labels and not options.mask_values:
        layout.faults.append(
            f"COCO: outlines have several categories, {', '.join(labels)[:200]}; say which are the nodule, as with "
            f"--labels {labels[0]}, or give their ids with --mask-values."
        )
    return found


class _Known(NamedTuple):
    """What is known of the whole folder when its items are planned; ``grade_of`` gives the index of a grade's text."""

    options: Options
    layout: Layout
    table: Table
    coco: Mapping[str, Drawing]
    grade_of: Mapping[str, int]
    patients: frozenset[str]


def planned(options: Options, layout: Layout, table: Table, coco: Mapping[str, Drawing]) -> Plan:
    """The plan, from what the names, the table and the COCO files say. New faults are added to those of ``layout``."""
    cases = _cases([pair.image for pair in layout.pairs])
    grades, grade_of = grades_of(options, layout, table)
    patients = frozenset(labels.group for labels in table.labels.values() if labels.group)
    known = _Known(options, layout, table, coco, grade_of, patients)
    items = [_item(pair, cases[pair.image.path], known) for pair in layout.pairs]
    _remark_on_readers(layout, table, items)
    _remark_on_tests(layout, items)
    if options.group_from_folder:
        _check_patient_folders(options, layout)
    named = options.group_pattern or options.group_from_folder
    _remark_on_patients(layout, {item.group for item in items} if named else patients)
    by_patient = "group" in table.columns or bool(options.group_pattern) or options.group_from_folder
    if not by_patient:
        layout.remarks.add(NO_PATIENTS)
    elif len(items) > 1 and len({item.group for item in items}) == len(items):
        layout.remarks.add("no two images are of one patient: look whether what was taken for the patient is it")
    card = Card(
        name=options.name,
        title=options.title or options.name,
        source=options.citation,
        licence=options.licence,
        labels=_labels_sentence(known, items),
        grouping="patient" if by_patient else "image",
        grades=grades,
        grade_system=options.grade_system,
        faults=() if by_patient else (f"{NO_PATIENTS[0].upper()}{NO_PATIENTS[1:]}.",),
        access="your own",
        holds=tuple(name for name, there in _kinds(layout, items).items() if there) or ("images",),
    )
    return Plan(options, card, items, layout, table)


def _remark_on_readers(layout: Layout, table: Table, items: Sequence[Item]) -> None:
    """A remark that names the images that some readers labelled and others did not: a record only counts readers."""
    everyone = {mask.reader for item in items for mask in item.masks if mask.reader}
    partly = [
        item.image
        for item in items
        if 0 < len({mask.reader for mask in item.masks if mask.reader}) < len(everyone)
        or 0 < len(item.reader_grades) < len(table.readers)
    ]
    if partly:
        layout.remarks.add(
            "only some of the readers labelled these images; readers are counted in each image, so reader 1 is not the "
            "same person in all of them, nor is a number of --data.reader",
            *partly,
        )


def _remark_on_tests(layout: Layout, items: Sequence[Item]) -> None:
    """A remark that names the folders whose name has a word for test, but that are not taken for a test part."""
    official = {item.image for item in items if item.official_test}
    says_test = lambda folder: any(SPLITS.get(word) == "test" for word in re.findall("[a-z]+", folder))
    folders = {folder for pair in layout.pairs if pair.image.path not in official for folder in pair.image.dirs}
    if found := sorted(filter(says_test, folders)):
        layout.remarks.add("folders that say test beside other words are no test part; rename them test", *found)


def _remark_on_patients(layout: Layout, patients: Iterable[str]) -> None:
    """A remark that names patients that may be one."""
    alike: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(patients):
        plain = " ".join(unicodedata.normalize("NFKC", patient).casefold().split()).removesuffix(".0")
        alike[re.sub(r"(?<![0-9.])0+(?=[0-9])", "", plain)].append(patient)
    if twins := [" = ".join(names) for names in alike.values() if len(names) > 1]:
        layout.remarks.add(
            "patients that differ only in capitals, spaces, leading zeros or .0 count as different", *twins
        )


def _kinds(layout: Layout, items: Sequence[Item]) -> dict[str, bool]:
    """Which kinds of labels there are, by the words of ``Card.holds``."""
    return {
        "outlines": any(item.masks or item.drawing or item.coco is not None for item in items),
        "boxes": any(item.boxes for item in items),
        "grades": any(item.grade is not None for item in items),
        "malignancy": any(item.malignant is not None for item in items),
        "several readers": any(len({reader for _, reader in item.masks}) > 1 for item in items),
    }


def _cases(images: Sequence[Place]) -> dict[str, str]:
    """The case of each image: its path without suffix and folder of images; as much of the path as makes it unique."""
    times = Counter(image.case for image in images)
    chosen = {image.path: image.case if times[image.case] == 1 else stem_of(image.path) for image in images}
    again = Counter(chosen.values())
    return {path: case if again[case] == 1 else path for path, case in chosen.items()}


def _item(pair: Pair, case: str, known: _Known) -> Item:
    image, labels = pair.image, known.table.labels.get(pair.image.path)
    grade, votes = _grade(image, labels, known)
    truth = _truth(image, labels, known)
    return Item(
        case=case,
        group=_group(image, case, labels, known),
        image=image.path,
        masks=tuple(sorted(pair.masks, key=lambda mask: (natural(mask.reader), mask.path))),
        drawing=pair.drawing,
        boxes=pair.boxes,
        coco=known.coco.get(image.path),
        grade=grade,
        reader_grades=votes,
        malignant={"benign": False, "malignant": True}.get(truth),
        is_normal=truth == "normal",
        findings=labels.findings if labels else {},
        spacing=known.options.spacing or (labels.spacing if labels else None),
        official_test=_is_test(image, labels, known),
    )


def _grade(image: Place, labels: Labels | None, known: _Known) -> tuple[int | None, tuple[int, ...]]:
    """The grade of an image and those of its readers. Without grade, what more than half of the readers say is it."""
    text = folder_grade(image, known.options) if known.options.grade_from_folder else labels.grade if labels else ""
    texts = labels.reader_grades if labels else ()
    votes = tuple(known.grade_of[one.casefold()] for one in texts if one.casefold() in known.grade_of)
    if text or not votes:
        return known.grade_of.get(text.casefold()), votes
    (top, times), *_ = Counter(votes).most_common()
    return (top if 2 * times > len(votes) else None), votes


def _truth(image: Place, labels: Labels | None, known: _Known) -> str:
    """What the table or the folder of the class says: benign, malignant, normal or ""; a fault when they disagree."""
    classes, faults = known.options.class_folders, known.layout.faults
    said = sorted({classes[folder] for folder in image.dirs if folder in classes})
    if len(said) > 1:
        faults.append(f"{image.path}: lies in folders of {' and '.join(said)}; move it, or give --class-folders none.")
    elif labels and labels.truth and said and said != [labels.truth]:
        place = known.table.place(labels, "malignant")
        faults.append(f"{place}: disagrees with the folder of {image.path}; mend one, or give --class-folders none.")
    return labels.truth if labels and labels.truth else "".join(said)


def _is_test(image: Place, labels: Labels | None, known: _Known) -> bool:
    """Whether folder or table say "test"; a fault when only one of two does."""
    told = (split_of(labels.split) or "") if labels else ""
    if labels and told and image.split and (told == "test") != (image.split == "test"):
        place = f"{known.table.place(labels, 'split')}: {labels.split[:40]!r}"
        known.layout.faults.append(
            f"{place}, but {image.path} is in a folder of {image.split}; mend one, or give --split-column none."
        )
    return "test" in (told, image.split)


def _group(image: Place, case: str, labels: Labels | None, known: _Known) -> str:
    """The patient; an image whose patient is not known is a group of its own."""
    if known.options.group_from_folder:
        if folders := _patient_folders(image, known.options):
            return folders[-1]
        known.layout.faults.append(f"{image.path}: --group folder: is in no folder of a patient; move or ignore it.")
    elif pattern := known.options.group_pattern:
        path = stem_of(composed(image.path))
        match = re.search(pattern, path if "/" in pattern else path.rpartition("/")[2])
        if match and match[1]:
            return match[1]
        known.layout.faults.append(
            f"{image.path}: --group-pattern {pattern!r} finds no patient in its name; mend the pattern."
        )
    elif labels is not None and labels.group:
        return labels.group
    elif "group" in known.table.columns:
        known.layout.remarks.add("images without patient are groups of their own", image.path)
    while case in known.patients:
        case = f"image {case}"
    return case


def _patient_folders(image: Place, options: Options) -> tuple[str, ...]:
    """The folders of an image that may be a patient's, the outermost first."""
    return tuple(folder for folder in image.dirs if not split_of(folder) and folder not in options.class_folders)


def _check_patient_folders(options: Options, layout: Layout) -> None:
    """A fault for a folder that several others hold, as "left" or "visit 1", and so is not of one patient.

    A remark says which folders are above those of the patients.
    """
    outside: dict[str, set[str]] = defaultdict(set)
    for pair in layout.pairs:
        if folders := _patient_folders(pair.image, options):
            outside[folders[-1]].add("/".join(folders[:-1]))
    pattern = "take it with --group-pattern '^([^/]+)/', which looks at the path"
    named = lambda above: " and in ".join(repr(one or ".") for one in sorted(above)[:3])
    layout.faults += [
        f"--group folder: {name!r} is in {named(above)}, so it is not the folder of one patient; if an outer folder "
        f"is, {pattern}; else rename it."
        for name, above in outside.items()
        if len(above) > 1
    ]
    if outer := sorted({one for above in outside.values() for one in above if one}):
        layout.remarks.add(
            f"patients are the innermost folders, and none of these outer ones; if one is, {pattern}", *outer
        )


def _runs(values: Sequence[int]) -> str:
    """Whole numbers as text, neighbours as a range: "1, 128-255"."""
    runs: list[list[int]] = []
    for value in sorted(set(values)):
        if runs and runs[-1][1] == value - 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs[:20])


def _labels_sentence(known: _Known, items: Sequence[Item]) -> str:
    """Where outline, grade and malignancy come from; it is kept in the card."""
    options, layout, table, *_ = known
    named = f" called {', '.join(options.labels)}" if options.labels else ""
    readers_named = sorted({mask.reader for item in items for mask in item.masks if mask.reader}, key=natural)
    sources = [
        "mask files" if any(item.masks for item in items) else "",
        "COCO polygons" if any(item.coco is not None for item in items) else "",
        "Labelme shapes" if any(item.drawing for item in items) else "",
    ]
    outline = (" and ".join(filter(None, sources)) or "none") + named
    inverted = options.mask_values == (0,)
    values = "value 0 (inverted masks)" if inverted else _runs(options.mask_values) or "any value but 0"
    parts = [f"Outline: {outline}" + (f", {values}" if any(item.masks for item in items) else "") + "."]
    if readers_named:
        parts.append(
            f"Readers {', '.join(readers_named)} outlined images; an image without further mask has the pixels that "
            "more than half of its readers marked."
        )
    where = lambda role: f"column {table.columns[role].name} of {table.file}"
    folders = any(folder in options.class_folders for pair in layout.pairs for folder in pair.image.dirs)
    grade = where("grade") if "grade" in table.columns else "folder" if options.grade_from_folder else "none"
    if table.readers and grade == "none":
        grade = f"what more than half of the readers say ({', '.join(table.readers)})"
    told = [where("malignant")] if "malignant" in table.columns else []
    malignant = " and ".join([*told, *(["folder of the class"] if folders else [])])
    is_normal = any(labels.truth == "normal" for labels in table.labels.values()) or any(
        options.class_folders.get(folder) == "normal" for pair in layout.pairs for folder in pair.image.dirs
    )
    normal = "; normal images have none" if is_normal else ""
    return " ".join([*parts, f"Grade: {grade}.", f"Malignancy: {malignant or 'none'}{normal}."])
