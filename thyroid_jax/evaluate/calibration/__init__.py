"""Calibration: whether a predicted probability is the frequency with which the event occurs, and how to make it so.

=================  =====================================================================================================
``binning``        forecasts in bins of equal width or equal mass
``reliability``    calibration errors from bins (ECE, classwise ECE, MCE, debiased), reliability table
``scores``         proper scores: Brier score and its decomposition, negative log-likelihood, ranked probability score
``summaries``      all of them for a per-case table, with intervals, and what chance alone gives
``scaling``        temperature, ordinal and Platt scaling of probabilities
``recalibration``  scaling fitted on the validation cases of a table and applied to other cases
``pixels``         calibration of the soft outline, from histograms that are added over images
=================  =====================================================================================================

A binned calibration error is never 0 for a finite table, even when the probabilities are right: read it beside
:func:`calibration_by_chance`. Proper scores have no such bias.
"""

from thyroid_jax.evaluate.calibration.binning import KINDS, bin_edges
from thyroid_jax.evaluate.calibration.pixels import (
    PixelCalibration,
    pixel_calibration,
    pixel_counts,
    pixel_summary,
)
from thyroid_jax.evaluate.calibration.recalibration import (
    Calibration,
    apply,
    calibrated,
    fit,
    from_dict,
    to_dict,
)
from thyroid_jax.evaluate.calibration.reliability import (
    Reliability,
    classwise_ece,
    debiased_squared_error,
    ece,
    mce,
    reliability_table,
    top_label,
)
from thyroid_jax.evaluate.calibration.scaling import (
    Scaling,
    fit_grades,
    fit_malignancy,
    scale_grades,
    scale_malignancy,
)
from thyroid_jax.evaluate.calibration.scores import (
    Murphy,
    binary_brier,
    binary_nll,
    brier,
    murphy,
    murphy_of_grades,
    nll,
    ranked_probability_score,
)
from thyroid_jax.evaluate.calibration.summaries import (
    calibration_by_chance,
    calibration_summary,
    grade_reliability,
    malignancy_reliability,
)

__all__ = [
    "KINDS",
    "Calibration",
    "Murphy",
    "PixelCalibration",
    "Reliability",
    "Scaling",
    "apply",
    "bin_edges",
    "binary_brier",
    "binary_nll",
    "brier",
    "calibrated",
    "calibration_by_chance",
    "calibration_summary",
    "classwise_ece",
    "debiased_squared_error",
    "ece",
    "fit",
    "fit_grades",
    "fit_malignancy",
    "from_dict",
    "grade_reliability",
    "malignancy_reliability",
    "mce",
    "murphy",
    "murphy_of_grades",
    "nll",
    "pixel_calibration",
    "pixel_counts",
    "pixel_summary",
    "ranked_probability_score",
    "reliability_table",
    "scale_grades",
    "scale_malignancy",
    "to_dict",
    "top_label",
]
