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


def test_an_unknown_word_is_an_error_that_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"isoechogenic.*hyperechoic, isoechoic, hypoechoic, very hypoechoic"):
        tirads.points("solid", "isoechogenic", "wider than tall", "smooth")
    with pytest.raises(KeyError, match="nonsense"):
        tirads.points("spongiform", "nonsense", "wider than tall", "smooth")
    for axis, words in enumerate(("composition", "echogenicity", "shape", "margin", "foci")):
        named = ["solid", "isoechoic", "wider than tall", "smooth", ("none",)]
        named[axis] = ("nonsense",) if words == "foci" else "nonsense"
        with pytest.raises(KeyError, match=f"{words}: unknown name 'nonsense'"):
            tirads.points(*named)


SUSPICIOUS_STEPS = {  # axis -> names in the order of suspicion
    0: ("cystic", "mixed", "solid"),
    1: ("anechoic", "isoechoic", "hypoechoic", "very hypoechoic"),
    2: ("wider than tall", "taller than wide"),
    3: ("smooth", "lobulated or irregular", "extrathyroidal extension"),
}


def test_a_more_suspicious_finding_adds_points_to_every_other_combination():
    names = [list(getattr(tirads, axis)) for axis in CHART]
    for axis, steps in SUSPICIOUS_STEPS.items():
        for low, high in itertools.pairwise(steps):
            for row in itertools.product(*names):
                if row[0] != "spongiform":
                    before, after = list(row), list(row)
                    before[axis], after[axis] = low, high
                    assert tirads.points(*after[:4], (after[4],)) > tirads.points(*before[:4], (before[4],))


def test_one_more_kind_of_focus_never_lowers_the_points():
    kinds = [kind for kind in tirads.FOCI if kind != "none"]
    for count in range(4):
        for present in itertools.combinations(kinds, count):
            for more in set(kinds) - set(present):
                for composition in tirads.COMPOSITION:
                    axes = (composition, "hypoechoic", "wider than tall", "smooth")
                    assert tirads.points(*axes, (*present, more)) >= tirads.points(*axes, present)
