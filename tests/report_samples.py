"""Pages for the tests: a parser of them, and a report that has everything, with hostile text in every place."""

from html.parser import HTMLParser

import numpy as np

from thyroid_jax.evaluate import calibration, subgroups
from thyroid_jax.evaluate.report import Picture, Report, thumbnail
from thyroid_jax.evaluate.summary import (
    Counts,
    at_or_above_summary,
    decision_curve,
    measure,
    per_grade_summary,
    summary,
)

HOSTILE = "<script>alert(1)</script>\" onload='x' & {{ 7*7 }} $\\frac{"
NAMES = ("3", "4a", "<5>")


class Page(HTMLParser):
    """Tags, attributes and text; complains about elements left open."""

    VOID = ("meta", "br", "input", "image", "path", "rect", "use")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert self.open == []

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def disc(x, y, radius, shape=(48, 64)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(rows - y, columns - x) < radius


def sample_cases(count=14):
    """Cases in pairs of one group and their thumbnails; Dice falls with the number.

    Case 3 has a hostile name, 6 no reference outline, 9 an empty prediction, 2 no true grade, 7 no known malignancy.
    """
    random = np.random.default_rng(0)
    cases, pictures = [], []
    for i in range(count):
        name = HOSTILE if i == 3 else f"case-{i:02d}"
        predicted = np.zeros((48, 64), bool) if i == 9 else disc(30 + i % 20, 24, 11)
        reference = None if i == 6 else disc(30, 24, 12)
        image = random.integers(0, 255, (48, 64)).astype(np.uint8)
        cases.append(
            measure(
                name,
                f"g{i // 2}",
                part=f"fold {i % 2}",
                predicted=predicted,
                reference=reference,
                spacing=(0.1, 0.2),
                image=image,
                readers=[disc(31, 24, 12), None if i % 2 else disc(29, 24, 11)],
                probability=dict(zip(NAMES, map(float, random.dirichlet(np.ones(3))))),
                grade_truth="" if i == 2 else NAMES[1 + (i % 5 == 0)],
                reader_grades=["4a", "" if i % 2 else "3"],
                p_malignant=(i % 20) / 20,
                malignant_truth=None if i == 7 else i > 11,
                guidance={HOSTILE: 1.5 + i, "elongation": 0.5},
                target={HOSTILE: float("nan"), "elongation": 0.25},
                about={"device": HOSTILE if i % 2 else "A", HOSTILE: "x"},
            )
        )
        pictures.append(thumbnail(Picture(name, image, reference, predicted)))
    return cases, pictures


def sample_report(count=14, samples=100):
    """A report with every section."""
    cases, pictures = sample_cases(count)
    entry = ("value", "low", "high", "n", "undefined", "groups", "replicates", "replicates_undefined")
    log = [
        {"step": 10 * e, "epoch": e, "split": split, "loss": 1 / e, HOSTILE: e, "note": "text", "bad": float("nan")}
        for e in range(1, 6)
        for split in ("train", HOSTILE)
    ]
    log += [{"step": 10 * e, "epoch": e, "split": "validation", "dice": 0.5 + e / 10} for e in range(1, 6)]
    return Report(
        title=f"Run {HOSTILE}",
        subtitle=HOSTILE,
        facts={"Method": HOSTILE, HOSTILE: "x"},
        config={HOSTILE: HOSTILE},
        provenance={"version": HOSTILE},
        summary={**summary(cases, samples=samples), HOSTILE: dict.fromkeys(entry, 0.5)},
        per_grade=per_grade_summary(cases, samples=samples),
        at_or_above=at_or_above_summary(cases, samples=samples),
        decision=decision_curve(cases, samples=samples),
        training=Counts(dict(zip(NAMES, (1, 5, 4))), benign=7, malignant=3),
        calibration=calibration.calibration_summary(cases, samples=samples),
        calibration_by_chance=calibration.calibration_by_chance(cases, samples=samples),
        counts={HOSTILE: {HOSTILE: 3}, "test": {"images": 14}},
        cases=cases,
        log=log,
        pictures=pictures,
        subgroups=subgroups.subgroups(cases, samples=samples),
        readers=subgroups.with_readers(cases, samples=samples),
        between_readers=subgroups.between_readers(cases, samples=samples),
        readers_dice=(0.87, 12),
        notes=[HOSTILE, "Grades are of the Kwak family."],
    )
