"""What the page of a run says around its numbers: what was trained and evaluated, label counts, provenance, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

import thyroid_jax
from thyroid_jax.data import source
from thyroid_jax.data.record import Card, RecordSequence
from thyroid_jax.evaluate.agreement import Agreement, said
from thyroid_jax.evaluate.summary import Counts
from thyroid_jax.predict import Trained

NOTES = (
    "Outlines are compared at the pixels of the prepared image (cropped to the scan), not at the network's input size. "
    "HD95 is undefined where one of the two outlines is empty.",
    "Intervals resample whole groups (patients or cases), 95 % expanded percentile bootstrap; that of a single AUROC "
    "is DeLong's, by the same groups. They do not cover another split or another seed.",
    "The reference is what the data set calls so. A research tool: nothing here is advice about a patient.",
)


class Labels(NamedTuple):
    """What is counted of a record, without its pixels."""

    group: str
    has_mask: bool
    grade: int | None
    malignant: bool | None


def labels_of(records: RecordSequence) -> list[Labels]:
    """The labels of a part; every record is read once."""
    return [Labels(record.group, record.mask is not None, record.grade, record.malignant) for record in records]


def part_counts(labels: Sequence[Labels]) -> dict[str, int]:
    """Groups, images and labels of a part."""
    return {
        "groups": len({one.group for one in labels}),
        "images": len(labels),
        "with outline": sum(one.has_mask for one in labels),
        "with grade": sum(one.grade is not None for one in labels),
        "with malignancy": sum(one.malignant is not None for one in labels),
    }


def training_counts(labels: Sequence[Labels], grades: Sequence[str]) -> Counts:
    """Images of each grade, by the names of the ``grades``, and of each kind of malignancy.

    Data sets that are added to the training part are not counted: what a page compares with is of its own data set.
    """
    of_grades = Counter(one.grade for one in labels)
    of_malignancy = Counter(one.malignant for one in labels)
    counted = {name: of_grades[place] for place, name in enumerate(grades)}
    return Counts(counted if any(counted.values()) else {}, of_malignancy[False], of_malignancy[True])


def facts_of(
    trained: Trained,
    parts: source.Parts,
    counts: Mapping[str, Mapping[str, int]],
    part: str,
    checkpoint: str,
    flip: bool,
) -> dict[str, str]:
    """What was trained and evaluated, in words."""
    recipe, steps = trained.recipe, int(trained.recipe.fitted.total_steps)
    terms = [*(task.name for task in recipe.tasks), *(penalty.name for penalty in recipe.penalties)]
    weights = {name: recipe.settings[name].weight for name in terms}
    named = [name if weight == 1 else f"{name} ({weight:g})" for name, weight in weights.items()]
    method = f"{recipe.model.encoder} encoder · " + " + ".join(named)
    if trained.config.mtl.method != "equal":
        method += f" · {trained.config.mtl.method} on the tasks"
    of_part = lambda name: f"{counts[name]['images']} images of {counts[name]['groups']} groups"
    return {
        "Data": parts.card.name,
        "Method": method,
        "Checkpoint": f"{checkpoint}, step {trained.step}"
        + (f" of {steps}" if steps else "")
        + (", averaged over mirror images" if flip else ""),
        "Trained on": " + ".join([of_part("train"), *trained.config.data.also]),
        "Evaluated on": f"{part} part, {of_part(part)}",
    }


def provenance(trained: Trained, samples: int, few: int) -> dict[str, object]:
    """Where the numbers come from: version, digests, step, parameters, bootstrap replicates.

    ``samples`` of them are behind each interval of the measures, ``few`` behind those of the other tables.
    """
    return {
        "version that trained": trained.facts["version"],
        "version that evaluated": thyroid_jax.__version__,
        "data digest": trained.facts["digest"],
        "split digest": trained.facts["split"],
        "step of the checkpoint": trained.step,
        "parameters": sum(int(np.size(leaf)) for leaf in jax.tree.leaves(trained.params)),
        "bootstrap replicates": samples if few == samples else f"{samples} (measures), {few} (other tables)",
    }


def notes(card: Card, between: Agreement) -> tuple[str, ...]:
    """What a reader has to know: the meaning of the data set's labels, how far readers agree, and :data:`NOTES`."""
    family = f" Grades are of the {card.grade_system} family and are not interchangeable with other systems'."
    labels = card.labels + (family if card.grade_system else "")
    readers = [f"Between {line}. A model is compared with the reference." for line in said(between)]
    return labels, *readers, *NOTES
