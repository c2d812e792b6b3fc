"""Summary of the outlines of a table: overlap, boundary distances, and agreement of the areas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.metrics import area_difference_of, limits_of_agreement
from thyroid_jax.evaluate.summary.entry import Summary, bootstrap, entry, weighted_mean

ALWAYS = ("dice", "iou", "hd95_px")
WHERE_MEASURED = (
    *("hd95_mm", "assd_px", "assd_mm", "nsd_2px", "nsd_1mm", "boundary_f_2px"),
    *("precision", "recall"),
)


def segmentation_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Means of the outline's measures over the cases with both masks, with cluster-bootstrap intervals by group.

    Returns ``{measure: entry}``; {} when no case has both masks. An entry is ``{value, low, high, n, undefined, groups,
    replicates, replicates_undefined}``:

    ``n`` cases of ``groups`` groups are averaged; ``undefined`` more have both masks but no value (a distance with one
    mask empty, anything in mm without a spacing, a measure that an older table lacks). Without cases of the first kind
    the mean HD95 looks better than it is: read it beside Dice, where they count 0. ``replicates`` were drawn, of which
    ``replicates_undefined`` had no value and were left out.

    Measures are ``dice, iou, hd95_px`` and, where any case has them, ``hd95_mm, assd_px, assd_mm, nsd_2px, nsd_1mm,
    boundary_f_2px, precision, recall``, see :mod:`thyroid_jax.evaluate.metrics.outlines`; then, where areas are known,
    those of :func:`area_summary`. The contrast of the nodule is a property of the image and is not averaged.
    """
    drawn = [case for case in cases if not np.isnan(case.dice)]
    groups = np.array([case.group for case in drawn])
    result: Summary = {}
    for measure in (*ALWAYS, *WHERE_MEASURED) if drawn else ():
        values = np.array([getattr(case, measure) for case in drawn], float)
        defined = ~np.isnan(values)
        if measure in ALWAYS or defined.any():
            interval = bootstrap(
                weighted_mean, groups[defined], values[defined], samples=samples, level=level, seed=seed
            )
            result[measure] = entry(interval, int(defined.sum()), int((~defined).sum()))
    return result | area_summary(drawn, samples=samples, level=level, seed=seed)


def area_summary(cases: Sequence[Case], *, samples: int = 2000, level: float = 0.95, seed: int = 0) -> Summary:
    """Bland and Altman's agreement of predicted and reference area, with cluster-bootstrap intervals by group.

    ``area_bias_<unit>`` is the mean of predicted - reference, ``area_low_limit_<unit>`` and ``area_high_limit_<unit>``
    are the limits between which 95 % of the single differences lie
    (:func:`~thyroid_jax.evaluate.metrics.limits_of_agreement`). The units are

    - ``relative``: (predicted - reference) / reference, of the areas in pixels; undefined for an empty reference;
    - ``mm2``: predicted - reference, where the pixel spacing is known; undefined elsewhere, and absent where no case
      has one.

    Entries as in :func:`segmentation_summary`; {} when no case has both areas. An empty prediction counts as area 0.
    """
    found = [
        (case, area_difference_of(case.predicted_area_px, case.reference_area_px))
        for case in cases
        if case.predicted_area_px is not None and case.reference_area_px is not None
    ]
    groups = np.array([case.group for case, _ in found])
    differences = {
        "relative": [relative for _, relative in found],
        "mm2": [case.predicted_area_mm2 - case.reference_area_mm2 for case, _ in found],
    }
    result: Summary = {}
    for unit, values in differences.items():
        difference = np.array(values, float)
        defined = ~np.isnan(difference)
        for place, name in enumerate(("bias", "low_limit", "high_limit") if defined.any() else ()):

            def chosen_limit(difference: np.ndarray, weight: np.ndarray, place: int = place) -> np.ndarray:
                return limits_of_agreement(difference, weight=weight)[place]

            interval = bootstrap(
                chosen_limit, groups[defined], difference[defined], samples=samples, level=level, seed=seed
            )
            result[f"area_{name}_{unit}"] = entry(interval, int(defined.sum()), int((~defined).sum()))
    return result
