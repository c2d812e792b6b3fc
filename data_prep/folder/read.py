"""Make the records of a plan: every picture and mask is read here, in several threads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.cleaning import clean
from data_prep.folder import drawings, masks
from data_prep.folder.layout import Remarks
from data_prep.folder.options import Options
from data_prep.folder.planning import Item, Plan
from data_prep.folder.table import PLAUSIBLE
from data_prep.reading import fault_of, in_order
from thyroid_jax.data import formats
from thyroid_jax.data.record import Notes, Record
from thyroid_jax.errors import InputError

MEND = "mend or replace the file, or leave it out with --ignore"
COUNTED = (
    "image files",
    "images",
    "images with outline",
    "images whose mask is empty",
    "images without mask",
    "images with several masks, united",
    "images outlined by several readers",
    "images with boxes only, which are no outline",
    "images with grade",
    "benign",
    "malignant",
    "images whose pixel size is known",
    "images of the official test part",
)


def records(plan: Plan, notes: Notes, remarks: Remarks | None = None) -> Iterator[Record]:
    """Yield the records of a plan in the order of its items; each frame of a clip or stack is one.

    Faults, of the plan and of every file, omissions and counts go to ``notes``. Remarks on the files, which do not stop
    a build, go to ``remarks``, which is emptied first.
    """
    notes.faults += plan.layout.faults
    notes.dropped += plan.layout.dropped
    notes.counts.update(dict.fromkeys(COUNTED, 0))
    told = remarks if remarks is not None else Remarks()
    told.found.clear()
    seen = _Seen()

    def made(item: Item, own: Notes) -> tuple[list[Record], _Seen]:
        said = _Seen()
        return _records_of(item, plan, own, said), said

    for found, said in in_order(made, plan.items, notes):
        for text, places in said.remarks.found.items():
            told.add(text, *places)
        seen.add(said)
        yield from found
    is_labelme = any(item.drawing for item in plan.items)
    notes.faults += filter(None, (masks.several(seen.values), _labels_fault(seen.labels, plan.options) * is_labelme))


@dataclass
class _Seen:
    """What files say that concerns all of them: values of masks and names of Labelme shapes, each with a file."""

    remarks: Remarks = field(default_factory=Remarks)
    values: dict[int, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    def add(self, other: _Seen) -> None:
        """Add what other files say; the first file of each value is kept."""
        self.values = other.values | self.values
        self.labels = other.labels | self.labels


def _labels_fault(labels: Mapping[str, str], options: Options) -> str:
    """A fault about Labelme shapes of several names, or of none that the user has chosen; "" without one."""
    if missing := [name for name in options.labels if drawings.shown(name) not in labels]:
        return f"Labelme: no outline is called {', '.join(missing)}; mend --labels."
    if len(labels) < 2 or options.labels:
        return ""
    found = ", ".join(f"{label} ({labels[label]})" for label in sorted(labels)[:8])
    example = min(label for label in labels if label != drawings.NO_NAME)
    return f"Labelme: shapes have several names, {found}; say which are the nodule, as with --labels {example}."


def _records_of(item: Item, plan: Plan, notes: Notes, seen: _Seen) -> list[Record]:
    """The records of the frames of one file; [] when it or one of its masks cannot be used, which is a fault."""
    source, remarks = plan.options.source, seen.remarks
    picture = None
    with fault_of(item.image, notes, MEND):
        try:
            picture = _checked(formats.read_picture(source / item.image), item, plan)
        except formats.NoPicture:
            if item.masks:
                raise
            notes.dropped.append((item.image, "is a DICOM file without picture, such as a report"))
    outlines, by_reader = None, None
    if picture is not None:
        for text in picture.remarks:
            remarks.add(text, item.image)
        found = len(notes.faults)
        outlines, by_reader = _outlines(item, picture, plan, notes, seen)
        if len(notes.faults) > found:
            return []
    return [] if picture is None else _labelled(item, picture, outlines, by_reader, plan, notes, remarks)


def _checked(picture: formats.Picture, item: Item, plan: Plan) -> formats.Picture:
    """The picture, if it looks like one and its pixel size is plausible or not used."""
    drawn = [frame for frame in picture.frames if frame.min() < frame.max()]
    if not drawn:
        raise InputError("image: is one grey value")
    if not item.masks and item.coco is None and all(map(masks.looks_like_a_mask, drawn)):
        raise InputError(
            "image: has few grey values, or is black and white only, and looks like a mask; name it X_mask after its "
            "image X, or give --mask-words with a word of its name or folder"
        )
    low, high = PLAUSIBLE
    if item.spacing is None and any(side < low or side > high for side in picture.spacing):
        rows, columns = picture.spacing
        raise InputError(
            f"pixel size: {rows:.4g} x {columns:.4g} mm is not plausible in ultrasound, where it is {low} to {high} "
            "mm; give --spacing MM, or --spacing none to leave it unknown"
        )
    return picture


def _outlines(
    item: Item, picture: formats.Picture, plan: Plan, notes: Notes, seen: _Seen
) -> tuple[np.ndarray | None, list[np.ndarray]]:
    """The outline bool[n h w] of the reference, None when nothing outlines it, and those of the readers."""
    source, remarks = plan.options.source, seen.remarks
    found: dict[str, list[np.ndarray]] = {}
    for path, reader in item.masks:
        with fault_of(path, notes, MEND):
            drawn = _mask(source / path, picture, plan.options.mask_values)
            found.setdefault(reader, []).append(drawn.pixels)
            seen.values |= {value: path for value in drawn.values if value not in seen.values}
            if drawn.remark:
                remarks.add(drawn.remark, path)
    if len(item.masks) > len({reader for _, reader in item.masks}):
        notes.counts["images with several masks, united"] += 1
    united = {reader: masks.united(parts) for reader, parts in found.items()}
    reference = united.pop("", None)
    polygons = _drawn(item, picture.frames.shape, plan, notes, seen)
    if polygons is not None and (reference is not None or united):
        remarks.add("drawings of images that have a mask file are not used", item.image)
    elif polygons is not None:
        reference = polygons
    by_reader = list(united.values())
    if formats.TURNED in picture.remarks and (by_reader or reference is not None):
        remarks.add("outlines of pictures that EXIF turns must be drawn on the turned picture: look", item.image)
    return (masks.majority(by_reader) if reference is None and by_reader else reference), by_reader


def _mask(path: Path, picture: formats.Picture, chosen: Sequence[int]) -> masks.Nodule:
    stored, shape = formats.read_mask(path), picture.frames.shape
    if stored.values.shape != shape:
        turned = " (the image was turned as EXIF says; turn the mask, or remove the orientation)"
        is_turned = formats.TURNED in picture.remarks
        sizes = f"size: {_size(stored.values.shape)}, but the image has {_size(shape)}"
        raise InputError(sizes + turned * is_turned)
    return masks.nodule(stored, chosen=chosen)


def _size(shape: tuple[int, ...]) -> str:
    frames, height, width = shape
    return f"{width} x {height}" + (f" in {frames} frames" if frames > 1 else "")


def _drawn(item: Item, shape: tuple[int, ...], plan: Plan, notes: Notes, seen: _Seen) -> np.ndarray | None:
    """The outline bool[1 h w] that a COCO or Labelme file draws; None without one. Boxes are counted."""
    source, remarks = plan.options.source, seen.remarks
    found = [("a COCO file", item.coco)] if item.coco is not None else []
    boxes = 0
    if item.drawing:
        with fault_of(item.drawing, notes, MEND):
            drawing, image = drawings.labelme(drawings.read_json(source / item.drawing), plan.options.labels)
            found.append((item.drawing, drawing))
            for label in drawing.labels:
                remarks.add(f"Labelme shapes called {label!r} count as nodule", item.drawing)
                seen.labels.setdefault(label, item.drawing)
            if image and image.replace("\\", "/").rpartition("/")[2] != item.image.rpartition("/")[2]:
                remarks.add("Labelme files name another image than the one that they are called after", item.drawing)
    if item.boxes:
        with fault_of(item.boxes, notes, MEND):
            boxes = drawings.read_boxes(source / item.boxes)
    outlined: list[np.ndarray] = []
    for place, drawing in found:
        boxes += drawing.boxes
        for kind in sorted(set(drawing.others)):
            remarks.add(f"shapes of kind {kind} are no outline", item.image)
        if drawings.has_outline(drawing):
            with fault_of(f"{item.image}: {place}" if item.coco is not None else place, notes, MEND):
                if shape[0] > 1:
                    raise InputError(f"frames: the image has {shape[0]}, a drawing is of one")
                mask, cut = drawings.mask_of(drawing, (shape[1], shape[2]))
                outlined.append(mask[None])
                if cut:
                    remarks.add("outlines that leave the image are cut off at its edge", item.image)
    if boxes and any(mask.any() for mask in outlined):
        remarks.add("images with outlines have boxes besides, whose contents count as outside", item.image)
    elif boxes and not item.masks:
        notes.counts["images with boxes only, which are no outline"] += 1
    return masks.united(outlined) if outlined else None


def _labelled(
    item: Item,
    picture: formats.Picture,
    outlines: np.ndarray | None,
    by_reader: Sequence[np.ndarray],
    plan: Plan,
    notes: Notes,
    remarks: Remarks,
) -> list[Record]:
    """One record for each frame of a file; all of them have its group and its labels."""
    count = len(picture.frames)
    notes.counts["image files"] += 1
    spacing = item.spacing or picture.spacing
    if not any(map(math.isnan, (*spacing, *picture.spacing))) and not np.allclose(spacing, picture.spacing, rtol=0.02):
        remarks.add("the pixel size in the file differs from the one given, which is used", item.image)
    made = []
    for number, frame in enumerate(picture.frames):
        if frame.min() == frame.max():
            remarks.add("frames of one grey value are left out", f"{item.image} frame {number + 1}")
            continue
        with fault_of(item.image, notes, MEND):
            colour = None if picture.colour is None else picture.colour[number]
            cleaned = clean(frame, plan.options.clean, colour=colour)
        if notes.faults:
            return []
        cut = lambda mask, number=number, box=cleaned.box: np.ascontiguousarray(mask[number][box.slices])
        drawn = tuple(cut(mask) for mask in by_reader)
        mask = None if outlines is None else cut(outlines)
        if outlines is not None and outlines[number].sum() > 1.02 * mask.sum():
            remarks.add("outlines leave the scan by over 2 % and are cut at its edge", item.image)
        mask = mask if mask is not None and mask.any() else None
        if item.is_normal and mask is not None:
            remarks.add("normal images have an outline, which is kept: one of the two is wrong", item.image)
        made.append(
            Record(
                case=item.case if count == 1 else f"{item.case}#{number + 1:04d}",
                group=item.group,
                source=item.image,
                image=cleaned.image,
                cleaning=cleaned.steps,
                mask=mask,
                reader_masks=drawn if any(one.any() for one in drawn) else (),
                grade=item.grade,
                reader_grades=item.reader_grades,
                malignant=item.malignant,
                descriptors=dict(item.findings),
                spacing=(float(spacing[0]), float(spacing[1])),
                official_test=item.official_test,
            )
        )
        _count(made[-1], outlines is not None, notes)
    return made


def _count(record: Record, outlined: bool, notes: Notes) -> None:
    state = "with outline" if record.mask is not None else "whose mask is empty" if outlined else "without mask"
    truth = {None: (), True: ("malignant",), False: ("benign",)}[record.malignant]
    facts = {
        "images outlined by several readers": len(record.reader_masks) > 1,
        "images with grade": record.grade is not None,
        "images whose pixel size is known": not any(map(math.isnan, record.spacing)),
        "images of the official test part": record.official_test,
    }
    notes.counts.update(("images", f"images {state}", *truth, *(name for name, holds in facts.items() if holds)))
