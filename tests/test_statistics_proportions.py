"""McNemar's test against textbooks and the binomial tail."""

import numpy as np
import pytest
from scipy import stats

from thyroid_jax.evaluate.statistics import mcnemar


def test_mcnemar_textbook_examples():
    # Agresti, Categorical Data Analysis, 1990, p. 350: 150 and 86 changed their mind; without correction 17.3559.
    first, second = (
        np.repeat([True, True, False, False], [794, 150, 86, 570]),
        np.repeat([True, False, True, False], [794, 150, 86, 570]),
    )
    result = mcnemar(first, second)
    assert (result.first_only, result.second_only, result.n) == (150, 86, 1600)
    assert (np.sqrt(result.chi2 * 236) + 1) ** 2 / 236 == pytest.approx(17.3559, abs=1e-4)
    # The much quoted pair 6 and 16: corrected chi2 3.68 with p 0.055, exact p 0.052.
    result = mcnemar(np.repeat([True, False], [6, 16]), np.repeat([False, True], [6, 16]))
    assert (round(result.chi2, 2), round(result.p_chi2, 3), round(result.p, 3)) == (3.68, 0.055, 0.052)


def test_mcnemar_exact_is_the_binomial_tail():
    from math import comb

    first, second = np.repeat([True, False], [2, 9]), np.repeat([False, True], [2, 9])
    result = mcnemar(first, second)
    assert result.p == pytest.approx(2 * sum(comb(11, i) for i in range(3)) / 2**11)
    assert result.chi2 == pytest.approx(36 / 11) and result.p_chi2 == pytest.approx(stats.chi2.sf(36 / 11, 1))
    assert mcnemar(second, first).p == result.p
    alike = mcnemar([True, False], [True, False])
    assert (alike.p, alike.chi2, alike.p_chi2) == (1.0, 0.0, 1.0)
    balanced = mcnemar([True, False], [False, True])
    assert (balanced.p, balanced.chi2, balanced.p_chi2) == (1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="0 or 1 only"):
        mcnemar([0, 2], [0, 1])
