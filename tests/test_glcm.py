"""Co-occurrences counted one pair at a time, features from the formulas of Haralick's paper, and patterns by hand."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.radiomics import glcm, levels, raster
from thyroid_jax.radiomics.raster import ANGLES

SIDES, COUNT = (9, 12), 8


@partial(jax.jit, static_argnums=1)
def cooccurrence(level, count=COUNT):
    return glcm.cooccurrence(glcm.pairs(*raster.to_line(level), count), levels.histogram(level, count) > 0)


measured = jax.jit(lambda level: {name: feature(cooccurrence(level)) for name, feature in glcm.FEATURES.items()})


def drawn(seed, most=COUNT, inside=0.7):
    rng = np.random.default_rng(seed)
    return rng.integers(1, most + 1, SIDES) * (rng.random(SIDES) < inside)


def ring():
    y, x = np.ogrid[: SIDES[0], : SIDES[1]]
    distance = (y - 4) ** 2 + (x - 5) ** 2
    return drawn(7, 5, 1) * ((distance < 17) & (distance > 3))


LEVELS = {
    "eight levels with holes": drawn(0),
    "two levels": drawn(1, 2),
    "three levels, few pixels": drawn(2, 3, 0.15),
    "levels that skip": 3 * drawn(3, 2, 0.9),
    "a ring": ring(),
    "the whole image": drawn(4, 6, 1),
    "two parts": drawn(5) * (np.abs(np.arange(SIDES[1]) - 5) > 2),
    "one row": drawn(6, 4, 1) * (np.arange(SIDES[0]) == 3)[:, None],
    "one level": drawn(8, 1),
}


def counted(level):
    """Pairs of each direction, both ways: a Counter of (i, j)."""
    found = []
    for y, x in ANGLES:
        pairs = Counter()
        for row, column in np.ndindex(SIDES):
            there = row + y, column + x
            if 0 <= there[0] < SIDES[0] and 0 <= there[1] < SIDES[1] and level[row, column] and level[there]:
                pairs[level[row, column], level[there]] += 1
                pairs[level[there], level[row, column]] += 1
        found.append(pairs)
    return found


def by_formula(p, highest):
    """All features of one normalised matrix in double precision, in the formulas as published."""
    n = len(p)
    i, j = np.meshgrid(np.arange(1, n + 1), np.arange(1, n + 1), indexing="ij")
    px, mu = p.sum(1), (i * p).sum()
    plus = np.array([p[i + j == k].sum() for k in range(2, 2 * n + 1)])
    minus, k = np.array([p[np.abs(i - j) == k].sum() for k in range(n)]), np.arange(n)
    entropy = lambda q: -(q[q > 0] * np.log2(q[q > 0])).sum()
    q = np.outer(px, px)
    hx, hxy = entropy(px), entropy(p)
    hxy1, hxy2 = -(p[p > 0] * np.log2(q[p > 0])).sum(), entropy(q)
    variance = (px * (np.arange(1, n + 1) - mu) ** 2).sum()
    seen = px > 0
    inner, marginal = p[np.ix_(seen, seen)], px[seen]
    q_matrix = (inner / marginal[:, None]) @ (inner / marginal[None, :]).T
    eigenvalues = np.sort(np.linalg.eigvals(q_matrix).real)
    return {
        "glcm_Autocorrelation": (i * j * p).sum(),
        "glcm_ClusterProminence": ((i + j - 2 * mu) ** 4 * p).sum(),
        "glcm_ClusterShade": ((i + j - 2 * mu) ** 3 * p).sum(),
        "glcm_ClusterTendency": ((i + j - 2 * mu) ** 2 * p).sum(),
        "glcm_Contrast": ((i - j) ** 2 * p).sum(),
        "glcm_Correlation": ((i * j * p).sum() - mu**2) / variance if seen.sum() > 1 else 1,
        "glcm_DifferenceAverage": (k * minus).sum(),
        "glcm_DifferenceEntropy": entropy(minus),
        "glcm_DifferenceVariance": (k**2 * minus).sum() - (k * minus).sum() ** 2,
        "glcm_Id": (p / (1 + np.abs(i - j))).sum(),
        "glcm_Idm": (p / (1 + (i - j) ** 2)).sum(),
        "glcm_Idmn": (p / (1 + ((i - j) / highest) ** 2)).sum(),
        "glcm_Idn": (p / (1 + np.abs(i - j) / highest)).sum(),
        "glcm_Imc1": (hxy - hxy1) / hx if seen.sum() > 1 else 0,
        "glcm_Imc2": np.sqrt(max(1 - np.exp(-2 * (hxy2 - hxy)), 0)),
        "glcm_InverseVariance": (p[i != j] / (i - j)[i != j] ** 2).sum(),
        "glcm_JointAverage": mu,
        "glcm_JointEnergy": (p**2).sum(),
        "glcm_JointEntropy": hxy,
        "glcm_MCC": np.sqrt(max(eigenvalues[-2], 0)) if seen.sum() > 1 else 0,
        "glcm_MaximumProbability": p.max(),
        "glcm_SumAverage": (np.arange(2, 2 * n + 1) * plus).sum(),
        "glcm_SumEntropy": entropy(plus),
        "glcm_SumSquares": ((i - mu) ** 2 * p).sum(),
    }


@pytest.mark.parametrize("name", LEVELS)
def test_pairs_are_those_counted_one_by_one(name):
    level = LEVELS[name]
    c = cooccurrence(level)
    assert c.highest == level.max()
    assert c.levels.tolist() == [i in level for i in range(1, COUNT + 1)]
    for direction, pairs in enumerate(counted(level)):
        total = sum(pairs.values())
        assert bool(c.where[direction]) == (total > 0)
        expected = np.array([[pairs[i, j] for j in range(1, COUNT + 1)] for i in range(1, COUNT + 1)]) / max(total, 1)
        np.testing.assert_allclose(c.p[direction], expected, rtol=1e-6)


@pytest.mark.parametrize("name", LEVELS)
def test_sums_over_rows_and_diagonals_are_those_of_p(name):
    c = cooccurrence(LEVELS[name])
    p = np.asarray(c.p, np.float64)
    i, j = np.indices(p.shape[1:]) + 1
    np.testing.assert_array_equal(p, p.swapaxes(1, 2))
    np.testing.assert_allclose(p.sum((1, 2)), np.asarray(c.where, float), rtol=1e-6)
    np.testing.assert_allclose(c.px, p.sum(2), rtol=1e-6)
    np.testing.assert_allclose(c.mean[:, 0], (i * p).sum((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(c.plus.T, [p[:, i + j == k].sum(1) for k in range(2, 2 * COUNT + 1)], rtol=1e-6)
    np.testing.assert_allclose(c.minus.T, [p[:, np.abs(i - j) == k].sum(1) for k in range(COUNT)], rtol=1e-6)


def check_against_formulas(level, rtol, atol):
    found = measured(level)
    for direction, pairs in enumerate(counted(level)):
        if not pairs:
            continue
        p = np.array([[pairs[i, j] for j in range(1, COUNT + 1)] for i in range(1, COUNT + 1)]) / sum(pairs.values())
        expected = by_formula(p, level.max())
        assert set(expected) == set(glcm.FEATURES)
        if (level > 0).any() and len({*level[level > 0].tolist()}) == 1:
            expected["glcm_MCC"] = 1  # by convention
        for name, value in expected.items():
            np.testing.assert_allclose(
                found[name][direction], value, rtol=rtol, atol=atol, err_msg=f"{name}, direction {direction}"
            )


@pytest.mark.parametrize("name", LEVELS)
def test_features_are_those_of_the_formulas(name):
    check_against_formulas(LEVELS[name], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["eight levels with holes", "two levels", "levels that skip", "one level"])
def test_features_are_those_of_the_formulas_in_double_precision(name, x64):
    # Roots of differences near 0, as the formulas have them, keep half of the digits.
    check_against_formulas(LEVELS[name], rtol=1e-12, atol=1e-7)


def test_a_checkerboard_differs_from_every_neighbour_but_the_diagonal_ones():
    found = measured(1 + np.indices(SIDES).sum(0) % 2)
    for direction, (y, x) in enumerate(ANGLES):
        other = (y + x) % 2  # 1 where the neighbour has the other colour
        expected = {
            "Contrast": other,
            "DifferenceAverage": other,
            "Id": 1 - other / 2,
            "Idm": 1 - other / 2,
            "InverseVariance": other,
        }
        expected |= {
            "Idn": 1 - other / 3,
            "Idmn": 1 - other / 5,
            "MaximumProbability": 0.5,
            "JointEnergy": 0.5,
            "JointEntropy": 1,
        }
        expected |= {
            "MCC": 1,
            "Imc1": -1,
            "Imc2": np.sqrt(1 - np.exp(-2)),
            "SumEntropy": 1 - other,
            "DifferenceEntropy": 0,
        }
        expected |= {"JointAverage": 1.5, "SumAverage": 3, "Correlation": 1 - 2 * other, "ClusterTendency": 1 - other}
        for name, value in expected.items():
            np.testing.assert_allclose(found[f"glcm_{name}"][direction], value, rtol=0, atol=1e-6, err_msg=name)


def test_stripes_do_not_change_along_themselves():
    found = measured(np.tile(1 + np.arange(SIDES[0])[:, None] % 3, (1, SIDES[1])))  # rows of levels 1, 2, 3, 1, ...
    along = ANGLES.index((0, 1))
    assert found["glcm_Contrast"][along] == 0 and found["glcm_Id"][along] == 1
    # three equal shares on the diagonal
    np.testing.assert_allclose(found["glcm_JointEntropy"][along], np.log2(3), rtol=1e-6)
    np.testing.assert_allclose(found["glcm_JointEnergy"][along], 1 / 3, rtol=1e-6)
    for across in set(range(4)) - {along}:  # of eight steps down, 1-2 and 2-3 are taken three times, 3-1 twice
        np.testing.assert_allclose(found["glcm_Contrast"][across], (6 * 1 + 2 * 4) / 8, rtol=1e-6)
        np.testing.assert_allclose(found["glcm_MaximumProbability"][across], 3 / 16, rtol=1e-6)


def test_one_level_is_certain_and_has_pyradiomics_values_for_the_ratios():
    found = measured(np.full(SIDES, 5))
    expected = {
        "JointEnergy": 1,
        "MaximumProbability": 1,
        "Id": 1,
        "Idn": 1,
        "JointAverage": 5,
        "Autocorrelation": 25,
        "SumAverage": 10,
    }
    expected |= {"Correlation": 1, "MCC": 1, "Imc1": 0, "Imc2": 0, "JointEntropy": 0, "Contrast": 0, "SumSquares": 0}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[f"glcm_{name}"], np.full(4, value), err_msg=name)


@pytest.mark.parametrize("tie", [1e-2, 1e-3, 3e-4])
def test_a_weak_tie_between_neighbours_is_not_lost_in_rounding(tie):
    p = np.float32([[0.36 + tie, 0.24 - tie], [0.24 - tie, 0.16 + tie]])[None]
    c = glcm.Cooccurrence(jnp.asarray(p), jnp.asarray(p.sum(2)), *[None] * 6)
    exact = p[0].astype(np.float64) / p.sum(dtype=np.float64)
    expected = by_formula(exact, 2)
    np.testing.assert_allclose(glcm.information_measure_1(c)[0], expected["glcm_Imc1"], rtol=1e-3)
    np.testing.assert_allclose(glcm.information_measure_2(c)[0], expected["glcm_Imc2"], rtol=5e-4)


def test_directions_without_a_pair_are_told_apart():
    lonely = np.zeros(SIDES, int)
    lonely[1, 1], lonely[5, 4], lonely[7, 10] = 1, 2, 3
    assert not cooccurrence(lonely).where.any()
    lonely[6, 5] = 4  # on the diagonal of (5, 4)
    assert cooccurrence(lonely).where.tolist() == [angle == (1, 1) for angle in ANGLES]
    assert not cooccurrence(np.zeros(SIDES, int)).where.any()


def test_levels_that_do_not_occur_change_nothing_but_the_range():
    level = LEVELS["eight levels with holes"]
    wide = jax.jit(lambda level: {name: feature(cooccurrence(level, 20)) for name, feature in glcm.FEATURES.items()})(
        level
    )
    for name, value in measured(level).items():
        np.testing.assert_allclose(wide[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
