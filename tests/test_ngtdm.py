"""Differences from the neighbours' mean counted by pixel, features from Amadasun and King's formulas, and patterns."""

import jax
import numpy as np
import pytest

from thyroid_jax.radiomics import ngtdm, raster

SIDES, COUNT = (9, 12), 8
differences = jax.jit(lambda level: ngtdm.differences(*raster.to_line(level), COUNT))
measured = jax.jit(lambda level: {name: feature(differences(level)) for name, feature in ngtdm.FEATURES.items()})


def drawn(seed, most, inside=0.7):
    rng = np.random.default_rng(seed)
    return rng.integers(1, most + 1, SIDES) * (rng.random(SIDES) < inside)


LEVELS = {
    "eight levels with holes": drawn(0, 8),
    "two levels": drawn(1, 2),
    "three levels, the whole image": drawn(2, 3, 1),
    "few pixels": drawn(3, 3, 0.15),
    "levels that skip": 3 * drawn(4, 2, 0.8) + (drawn(4, 2, 0.8) > 0),
    "two parts": drawn(5, 4) * (np.abs(np.arange(SIDES[1]) - 5) > 2),
    "one level": drawn(6, 1),
    "a single pixel of its level": np.where(np.indices(SIDES).sum(0) == 0, 5, drawn(7, 2, 1)),
}


def counted(level):
    """N_i and s_i of every level, in double precision."""
    n, s = np.zeros(COUNT), np.zeros(COUNT)
    for y, x in np.argwhere(level):
        square = level[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        around = np.count_nonzero(square) - 1
        n[level[y, x] - 1] += 1
        if around:
            s[level[y, x] - 1] += abs(level[y, x] - (square.sum() - level[y, x]) / around)
    return n, s


def by_formula(n, s):
    i, p = np.flatnonzero(n) + 1, n[n > 0] / n.sum()
    s, total, m = s[n > 0], n.sum(), len(i)
    pairs = [(a, b) for a in range(m) for b in range(m)]
    spread = sum(abs(i[a] * p[a] - i[b] * p[b]) for a, b in pairs)
    apart = sum(p[a] * p[b] * (i[a] - i[b]) ** 2 for a, b in pairs)
    return {
        "ngtdm_Busyness": (p * s).sum() / spread if spread else 0,
        "ngtdm_Coarseness": 1 / (p * s).sum() if (p * s).sum() else 1e6,
        "ngtdm_Complexity": sum(abs(i[a] - i[b]) * (p[a] * s[a] + p[b] * s[b]) / (p[a] + p[b]) for a, b in pairs)
        / total,
        "ngtdm_Contrast": apart / (m * (m - 1)) * s.sum() / total if m > 1 else 0,
        "ngtdm_Strength": sum((p[a] + p[b]) * (i[a] - i[b]) ** 2 for a, b in pairs) / s.sum() if s.sum() else 0,
    }


@pytest.mark.parametrize("name", LEVELS)
def test_differences_are_those_counted_pixel_by_pixel(name):
    d, (n, s) = differences(LEVELS[name]), counted(LEVELS[name])
    assert d.total == n.sum()
    np.testing.assert_allclose(d.p, n / n.sum(), rtol=1e-6)
    np.testing.assert_allclose(d.s, s, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LEVELS)
def test_features_are_those_of_the_formulas(name):
    found = measured(LEVELS[name])
    for feature, value in by_formula(*counted(LEVELS[name])).items():
        np.testing.assert_allclose(found[feature], value, rtol=1e-5, atol=1e-6, err_msg=feature)


@pytest.mark.parametrize("name", ["eight levels with holes", "levels that skip"])
def test_features_are_those_of_the_formulas_in_double_precision(name, x64):
    found = measured(LEVELS[name])
    for feature, value in by_formula(*counted(LEVELS[name])).items():
        np.testing.assert_allclose(found[feature], value, rtol=1e-13, err_msg=feature)


def test_a_bright_pixel_on_a_dark_field():
    level = np.ones((5, 5), int)
    level[2, 2] = 5
    d = differences(level)  # its eight neighbours have a mean 4 / 8 above them
    np.testing.assert_allclose(np.asarray(d.s)[[0, 4]], [8 * 4 / 8, 4], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(d.p)[[0, 4]], [24 / 25, 1 / 25], rtol=1e-6)
    found = {name: feature(d) for name, feature in ngtdm.FEATURES.items()}
    np.testing.assert_allclose(found["ngtdm_Coarseness"], 1 / 4, rtol=1e-6)
    np.testing.assert_allclose(found["ngtdm_Contrast"], 2 * 24 * 16 / 625 / 2 * 8 / 25, rtol=1e-6)
    np.testing.assert_allclose(found["ngtdm_Busyness"], 4 / (2 * (24 - 5) / 25), rtol=1e-6)
    np.testing.assert_allclose(found["ngtdm_Strength"], 2 * 16 / 8, rtol=1e-6)
    np.testing.assert_allclose(found["ngtdm_Complexity"], 2 * 4 * 4 / 25, rtol=1e-6)


@pytest.mark.parametrize(
    "level", [np.full(SIDES, 3), np.zeros(SIDES, int), np.pad([[2]], ((4, 4), (5, 6)))], ids=["flat", "nothing", "one"]
)
def test_without_differences_the_ratios_have_pyradiomics_values(level):
    found = {name: float(value) for name, value in measured(level).items()}
    expected = {"Busyness": 0, "Coarseness": 1e6, "Complexity": 0, "Contrast": 0, "Strength": 0}
    assert found == {f"ngtdm_{name}": value for name, value in expected.items()}


@pytest.mark.parametrize("low, high", [(1, 2), (1, 3), (2, 3), (1, 5), (3, 5), (1, 7), (5, 7)])
def test_busyness_of_two_levels_of_equal_weight_has_no_divisor(low, high):
    level = np.zeros(SIDES, int)  # i p_i = j p_j: as many of one level as the other is high
    level.ravel()[: 3 * (low + high)] = [low] * 3 * high + [high] * 3 * low
    found = measured(level)
    assert found["ngtdm_Busyness"] == 0 and found["ngtdm_Contrast"] > 0
    level.ravel()[0] = high
    np.testing.assert_allclose(
        measured(level)["ngtdm_Busyness"], by_formula(*counted(level))["ngtdm_Busyness"], rtol=1e-5
    )
