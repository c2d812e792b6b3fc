"""The ACR chart: every value of its tables, every boundary of its levels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import tirads

# Typed from the chart (Tessler et al. 2017, figure 1), not from the module.
CHART = {
    "COMPOSITION": [("cystic", 0), ("spongiform", 0), ("mixed", 1), ("solid", 2), ("unclear", 2)],
    "ECHOGENICITY": [
        ("anechoic", 0),
        ("hyperechoic", 1),
        ("isoechoic", 1),
        ("hypoechoic", 2),
        ("very hypoechoic", 3),
        ("unclear", 1),
    ],
    "SHAPE": [("wider than tall", 0), ("taller than wide", 3)],
    "MARGIN": [
        ("smooth", 0),
        ("ill-defined", 0),
        ("lobulated or irregular", 2),
        ("extrathyroidal extension", 3),
        ("unclear", 0),
    ],
    "FOCI": [("none", 0), ("large comet-tail", 0), ("macrocalcification", 1), ("peripheral", 2), ("punctate", 3)],
}


@pytest.mark.parametrize("axis", CHART)
def test_tables_are_the_chart_in_its_order(axis):
    assert list(getattr(tirads, axis).items()) == CHART[axis]


@pytest.mark.parametrize(
    ("total", "name"),
    [
        (0, "TR1"),
        (1, "TR2"),
        (2, "TR2"),
        (3, "TR3"),
        (4, "TR4"),
        (5, "TR4"),
        (6, "TR4"),
        (7, "TR5"),
        (8, "TR5"),
        (14, "TR5"),
        (17, "TR5"),
    ],
)
def test_level_of_every_boundary(total, name):
    assert tirads.LEVELS[int(tirads.level(jnp.array(total)))] == name


def test_level_works_on_traced_arrays_of_any_shape():
    totals = jnp.arange(18).reshape(3, 6)
    expected = np.array([0, 1, 1, 2, 3, 3, 3] + [4] * 11).reshape(3, 6)
    np.testing.assert_array_equal(jax.jit(tirads.level)(totals), expected)


def test_worked_examples():
    assert tirads.points("cystic", "anechoic", "wider than tall", "smooth") == 0
    assert tirads.points("solid", "isoechoic", "wider than tall", "smooth") == 3
    assert tirads.points("solid", "hypoechoic", "wider than tall", "ill-defined", ("none",)) == 4
    assert tirads.points("solid", "very hypoechoic", "taller than wide", "lobulated or irregular", ("punctate",)) == 13
    most = ("large comet-tail", "macrocalcification", "peripheral", "punctate")
    assert tirads.points("solid", "very hypoechoic", "taller than wide", "extrathyroidal extension", most) == 17


def test_foci_add_up_and_count_once():
    base = ("solid", "isoechoic", "wider than tall", "smooth")
    assert tirads.points(*base, ("macrocalcification", "peripheral", "punctate")) == 3 + 1 + 2 + 3
    assert tirads.points(*base, ("punctate", "punctate")) == tirads.points(*base, ("punctate",))


def test_nothing_else_counts_in_a_spongiform_nodule():
    others = itertools.product(tirads.ECHOGENICITY, tirads.SHAPE, tirads.MARGIN, tirads.FOCI)
    assert all(tirads.points("spongiform", *axes[:3], axes[3:]) == 0 for axes in others)


def test_an_unknown_word_is_an_error():
    with pytest.raises(KeyError, match="isoechogenic"):
        tirads.points("solid", "isoechogenic", "wider than tall", "smooth")
    with pytest.raises(KeyError, match="nonsense"):
        tirads.points("spongiform", "nonsense", "wider than tall", "smooth")
