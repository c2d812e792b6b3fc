"""McNemar's test of two graders on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class McNemar:
    """Result of :func:`mcnemar`: of ``n`` cases the first alone was right in ``first_only``, the second alone in
    ``second_only``.
    """

    first_only: int
    second_only: int
    n: int
    p: float
    chi2: float
    p_chi2: float


def mcnemar(first_correct: Sequence | np.ndarray, second_correct: Sequence | np.ndarray) -> McNemar:
    """McNemar's test of two graders on the same cases, from who was right: bool[n] each.

    With b cases that only the first got right and c that only the second did,

        p = min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)])      exact, preferred
        chi2 = max(|b - c| - 1, 0)^2 / (b + c),  p_chi2 from one degree of freedom      continuity-corrected

    With b + c = 0 the graders cannot be told apart: chi2 = 0 and both p are 1. Cases are taken as independent; with
    several images of a patient use :func:`sign_flip_test` on 0 and 1. :func:`discordant_odds` is the effect size.

    Raises ValueError when the lengths differ or a value is neither 0 nor 1.
    Source: McNemar, Psychometrika 12 (1947) 153-157; correction: Edwards, Psychometrika 13 (1948) 185-187.
    """
    from scipy.stats import binomtest, chi2

    first, second = np.asarray(first_correct), np.asarray(second_correct)
    if (
        first.shape != second.shape
        or first.ndim != 1
        or not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    ):
        raise ValueError(
            f"first {first.shape} and second {second.shape} must be vectors of one length, with 0 or 1 only."
        )
    first, second = first.astype(bool), second.astype(bool)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    if b + c == 0:
        return McNemar(b, c, len(first), 1.0, 0.0, 1.0)
    statistic = max(abs(b - c) - 1, 0) ** 2 / (b + c)
    return McNemar(b, c, len(first), float(binomtest(b, b + c).pvalue), statistic, float(chi2.sf(statistic, 1)))
