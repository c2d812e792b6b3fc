"""What the tables of a comparison say, as plain data, and the caption that all of them share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from thyroid_jax.evaluate.summary import Summary, interval_kind

LABELS = {  # measure -> how a paper calls it; Markdown and LaTeX hold these alone, CSV holds all
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Pixel precision",
    "recall": "Pixel recall",
    "hd95_px": "HD95 (px)",
    "hd95_mm": "HD95 (mm)",
    "assd_px": "ASSD (px)",
    "assd_mm": "ASSD (mm)",
    "nsd_2px": "NSD at 2 px",
    "nsd_1mm": "NSD at 1 mm",
    "boundary_f_2px": "Boundary F at 2 px",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "macro_auroc": "Macro AUROC",
    "quadratic_kappa": "Quadratic kappa",
    "malignant_auroc": "Malignancy AUROC",
    "malignant_accuracy": "Malignancy accuracy",
    "malignant_balanced_accuracy": "Malignancy balanced accuracy",
    "malignant_sensitivity": "Malignancy sensitivity",
    "malignant_specificity": "Malignancy specificity",
}
MORE_LABELS = {  # of measures that Markdown and LaTeX hold only where they are compared
    "linear_kappa": "Linear kappa",
    "weighted_f1": "Weighted F1",
    "mean_absolute_grade_error": "Mean grade error (steps)",
    "macro_auprc": "Macro AUPRC",
    "malignant_auprc": "Malignancy AUPRC",
    "malignant_ppv": "Malignancy PPV",
    "malignant_npv": "Malignancy NPV",
    "malignant_f1": "Malignancy F1",
    "malignant_sensitivity_at_specificity_90": "Malignancy sensitivity at specificity 0.90",
    "malignant_specificity_at_sensitivity_90": "Malignancy specificity at sensitivity 0.90",
    "grade_brier": "Grades: Brier score",
    "grade_rps": "Grades: ranked probability score",
    "grade_ece_width": "Grades: ECE",
    "malignant_brier": "Malignancy Brier score",
    "malignant_ece_width": "Malignancy ECE",
}
WORDS = {"auroc": "AUROC", "auprc": "AUPRC", "ppv": "PPV", "npv": "NPV", "f1": "F1", "malignant": "malignancy"}


class Method(NamedTuple):
    """What a method's predictions are of; ``folds`` and ``seeds`` are those that the table names, () where none is."""

    name: str
    predictions: int
    images: int
    groups: int
    folds: tuple[int, ...]
    seeds: tuple[int, ...]


class Gap(NamedTuple):
    """A measure of ``method`` minus that of ``against``, on the same images.

    value, low, high    the difference and its 95 % interval
    resampled           what the interval resamples: "groups", or "groups and seeds"
    pairs, left_out     pairs of predictions that have the measure on both sides, and those that have not
    groups              groups of the pairs
    undefined           replicates of the interval without a value, which are left out
    p, adjusted         p of the permutation test, and Holm's over all tests against ``against``
    exact               True where all permutations were computed
    margin, decision    of non-inferiority, NaN and "" where none was asked for; ``margin_p`` is its one-sided p
    worse               True where the method is significantly worse, which it can be within the margin
    """

    method: str
    against: str
    measure: str
    value: float
    low: float
    high: float
    resampled: str
    pairs: int
    left_out: int
    groups: int
    undefined: int
    p: float
    exact: bool
    adjusted: float = math.nan
    margin: float = math.nan
    decision: str = ""
    worse: bool = False
    margin_p: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """Everything that the tables say.

    Args:
        methods: in the order of the columns.
        summaries: method -> its measures, as :func:`thyroid_jax.evaluate.summary.summary` gives them.
        gaps: the paired differences.
        measures: the measures whose differences were asked for.
        samples: replicates of each interval.
        permutations: permutations of each test at most.
        notes: sentences of the caption about the data, which this module does not know.
    """

    methods: tuple[Method, ...]
    summaries: Mapping[str, Summary]
    gaps: tuple[Gap, ...]
    measures: tuple[str, ...]
    samples: int
    permutations: int
    notes: tuple[str, ...] = ()

    @property
    def families(self) -> dict[str, int]:
        """The methods that others are compared to -> number of tests against them, over which p is adjusted."""
        return {
            name: sum(not math.isnan(gap.p) for gap in self.gaps if gap.against == name)
            for name in dict.fromkeys(gap.against for gap in self.gaps)
        }


def caption(found: Comparison, *, families: Mapping[str, int] | None = None) -> list[str]:
    """What a reader of the tables must know, in sentences: data, counts, intervals, tests and their family.

    ``families`` are those that p is adjusted over, where ``found`` is a part of the comparison that has them.
    """
    families = {name: (families or found.families)[name] for name in found.families}
    sentences = [
        *found.notes,
        *_counts(found.methods),
        "A value is of all predictions of a method together; in brackets its 95 % interval, by a bootstrap over groups "
        f"({found.samples} replicates).",
        *_about_areas(found),
    ]
    if found.gaps:
        sentences += [*_about_differences(found.gaps), *_about_tests(found, families), *_about_margins(found.gaps)]
    return sentences


def _about_areas(found: Comparison) -> list[str]:
    """Which intervals are not the bootstrap's."""
    shown = dict.fromkeys([*LABELS, *found.measures])
    entries = [(name, summary[name]) for summary in found.summaries.values() for name in shown if name in summary]
    areas = dict.fromkeys(label_of(name) for name, entry in entries if interval_kind(entry) == "delong")
    if not areas:
        return []
    return [f"The interval of {' and of '.join(areas)} is DeLong's over groups (logit), that of a difference is not."]


def _counts(methods: Sequence[Method]) -> list[str]:
    """One sentence for all methods with the same counts."""
    texts: dict[str, list[str]] = {}
    for method in methods:
        parts = [f"{method.predictions} predictions of {method.images} images and {method.groups} groups"]
        parts += [f"folds {_listed(method.folds)}"] if method.folds else []
        parts += [f"seeds {_listed(method.seeds)}"] if method.seeds else []
        texts.setdefault(", ".join(parts), []).append(method.name)
    if len(texts) == 1 and len(methods) > 1:
        return [f"Each method: {next(iter(texts))}."]
    return [f"{'; '.join(names)}: {text}." for text, names in texts.items()]


def _listed(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


def _about_differences(gaps: Sequence[Gap]) -> list[str]:
    how = "groups (expanded percentile bootstrap)"
    if any(gap.resampled != "groups" for gap in gaps):
        how = "groups and seeds (crossed percentile bootstrap; two or three seeds show little about new ones)"
        alone = _resampled_by_group(gaps)
        how += f"; groups alone, where not every group has rows of every seed: {'; '.join(alone)}" if alone else ""
    return [
        "Differences are paired: both methods on the same images, without the pairs in which one has no value.",
        f"Their 95 % intervals resample {how}.",
    ]


def _resampled_by_group(gaps: Sequence[Gap]) -> list[str]:
    """Methods, or methods with their measures, whose intervals do not resample seeds."""
    texts = []
    for method in dict.fromkeys(gap.method for gap in gaps):
        own = [gap for gap in gaps if gap.method == method]
        alone = [label_of(gap.measure) for gap in own if gap.resampled == "groups"]
        if alone:
            texts.append(method if len(alone) == len(own) else f"{method} in {', '.join(alone)}")
    return texts


def _about_tests(found: Comparison, families: Mapping[str, int]) -> list[str]:
    counts = [f"the {count} test{'s' * (count != 1)} against {name}" for name, count in families.items()]
    exact = ", all where there are fewer" if any(gap.exact for gap in found.gaps) else ""
    sentences = [
        "p: two-sided permutation test that exchanges two methods on whole groups "
        f"({found.permutations} permutations{exact}).",
        f"Adjusted p: Holm's, over {' and over '.join(counts)}.",
    ]
    if any(gap.resampled != "groups" for gap in found.gaps):
        sentences.insert(
            1, "It is about other groups with these seeds: it can be small where an interval over seeds holds 0."
        )
    return sentences


def _about_margins(gaps: Sequence[Gap]) -> list[str]:
    margins = {gap.measure: gap.margin for gap in gaps if gap.decision}
    listed = ", ".join(f"{label_of(name)} {margin:g}" for name, margin in margins.items())
    if not margins:
        return []
    return [
        f"Non-inferiority margins, chosen by the user: {listed}; decided by the interval of the difference, one-sided "
        "level 0.025, not adjusted."
    ]


def label_of(measure: str) -> str:
    """How a paper calls the measure; its own name in words where neither table of labels knows it.

    >>> label_of("at_or_above_4a_auroc"), label_of("malignant_sensitivity_at_specificity_95")
    ('At or above 4a AUROC', 'Malignancy sensitivity at specificity 0.95')
    """
    known = (LABELS | MORE_LABELS).get(measure)
    named = re.sub(r"(_at_(?:specificity|sensitivity)_)(\d\d?)$", lambda at: f"{at[1]}{int(at[2]) / 100:.2f}", measure)
    words = " ".join(WORDS.get(word, word) for word in named.split("_"))
    return known or words[:1].upper() + words[1:]


# --- numbers as texts -------------------------------------------------------------------------------------------------


def value_text(entry: Mapping[str, float] | None) -> str:
    """A value with its interval; "" where there is no entry, "undefined" where its value is NaN."""
    if entry is None or math.isnan(entry["value"]):
        return "" if entry is None else "undefined"
    return f"{entry['value']:.3f}{_interval(entry['low'], entry['high'], '.3f')}"


def gap_text(gap: Gap | None) -> str:
    """A difference with its interval, as :func:`value_text`."""
    if gap is None or math.isnan(gap.value):
        return "" if gap is None else "undefined"
    return f"{gap.value:+.3f}{_interval(gap.low, gap.high, '+.3f')}"


def _interval(low: float, high: float, form: str) -> str:
    return " (no interval)" if math.isnan(low) else f" ({low:{form}} to {high:{form}})"


def p_value(p: float) -> str:
    """A p to four digits after the point; "<0.0001" below that, "" for NaN."""
    if math.isnan(p):
        return ""
    return "<0.0001" if p < 0.00005 else f"{p:.4f}"
