"""Every cell of the systems' tables, typed here from the published rules, and every threshold 0.1 mm around."""

import itertools

import pytest

from thyroid_jax import tirads
from thyroid_jax.tirads import Nodule, assess

SHAPES = ("wider than tall", "taller than wide")
MARGINS = ("smooth", "ill-defined", "lobulated or irregular")
KINDS = ("large comet-tail", "macrocalcification", "peripheral", "punctate")
FOCI = [kinds for count in range(5) for kinds in itertools.combinations(KINDS, count)]
DARK = ("hypoechoic", "very hypoechoic")
PATTERNS = [
    ("cystic", "anechoic"),
    *itertools.product(("spongiform", "mixed", "solid"), ("hyperechoic", "isoechoic", *DARK)),
]
RISKS = {
    "acr": {"TR1": "0.3 %", "TR2": "1.5 %", "TR3": "4.8 %", "TR4": "9.1 %", "TR5": "35 %"},
    "eu": {"2": "close to 0 %", "3": "2 to 4 %", "4": "6 to 17 %", "5": "26 to 87 %"},
    "k": {"2": "< 3 %", "3": "3 to 10 %", "4": "10 to 40 %", "5": "> 60 %"},
    "k2016": {"2": "< 3 %", "3": "3 to 15 %", "4": "15 to 50 %", "5": "> 60 %"},
    "c": {"2": "0 %", "3": "< 2 %", "4A": "2 to 10 %", "4B": "10 to 50 %", "4C": "50 to 90 %", "5": "> 90 %"},
    "kwak": {"3": "1.7 %", "4a": "3.3 %", "4b": "9.2 %", "4c": "44.4 to 72.4 %", "5": "87.5 %"},
}


def possible(system, *findings, **more):
    return assess(Nodule(*findings, **more), system).possible


def suspicious(shape, margin, foci):
    """The three features of K-TIRADS, which are also those of EU-TIRADS beside the echogenicity."""
    return shape == "taller than wide" or margin == "lobulated or irregular" or "punctate" in foci


@pytest.mark.parametrize(("composition", "echogenicity"), PATTERNS)
def test_eu_every_pattern(composition, echogenicity):
    benign = composition in ("cystic", "spongiform")
    for shape, margin, foci in itertools.product(SHAPES, MARGINS, FOCI):
        high = suspicious(shape, margin, foci)
        if benign:
            expected = ("2", "5") if high else ("2",)
        elif high or (composition == "solid" and echogenicity == "very hypoechoic"):
            expected = ("5",)
        else:
            expected = ("4",) if echogenicity in DARK else ("3",)
        assert possible("eu", composition, echogenicity, shape, margin, foci) == expected


# composition, echogenicity -> level without and with a suspicious feature
K2021 = {
    ("cystic", "anechoic"): "22",
    ("spongiform", "hyperechoic"): "22",
    ("spongiform", "isoechoic"): "22",
    ("spongiform", "hypoechoic"): "34",
    ("spongiform", "very hypoechoic"): "34",
    ("mixed", "hyperechoic"): "34",
    ("mixed", "isoechoic"): "34",
    ("mixed", "hypoechoic"): "34",
    ("mixed", "very hypoechoic"): "34",
    ("solid", "hyperechoic"): "34",
    ("solid", "isoechoic"): "34",
    ("solid", "hypoechoic"): "45",
    ("solid", "very hypoechoic"): "45",
}
K2016 = {key: "24" if key[0] in ("cystic", "spongiform") else levels for key, levels in K2021.items()}


@pytest.mark.parametrize(("system", "table", "comet"), [("k", K2021, "22"), ("k2016", K2016, "24")])
def test_k_every_pattern(system, table, comet):
    assert set(table) == set(PATTERNS)
    for (composition, echogenicity), levels in table.items():
        for shape, margin, foci in itertools.product(SHAPES, MARGINS, FOCI):
            row = comet if composition == "mixed" and "large comet-tail" in foci else levels
            got = possible(system, composition, echogenicity, shape, margin, foci)
            assert got == (row[suspicious(shape, margin, foci)],)


def test_k_entirely_calcified_has_a_rule_in_2021_only():
    findings = ("unclear", None, None, None, ("macrocalcification",))
    assert possible("k", *findings, entirely_calcified=True) == ("4",)
    assert possible("k2016", *findings, entirely_calcified=True) == ("2", "3", "4", "5")
    assert possible("k", *findings) == ("2", "3", "4", "5")


def test_c_every_score():
    names = {-1: "2", 0: "3", 1: "4A", 2: "4B", 3: "4C", 4: "4C", 5: "5"}
    seen = set()
    margins = (*MARGINS, "extrathyroidal extension")
    for (composition, echogenicity), shape, margin, foci in itertools.product(PATTERNS, SHAPES, margins, FOCI):
        score = (composition == "solid") + (echogenicity == "very hypoechoic") + (shape == "taller than wide")
        score += margin != "smooth"
        score += 1 if "punctate" in foci else -1 if foci == ("large comet-tail",) else 0
        result = assess(Nodule(composition, echogenicity, shape, margin, foci), "c")
        assert (result.points, result.level) == (score, names[score])
        seen.add(score)
    assert seen == set(names)


def test_kwak_every_number_of_features():
    names = ("3", "4a", "4b", "4c", "4c", "5")
    seen = set()
    for (composition, echogenicity), shape, margin, foci in itertools.product(PATTERNS, SHAPES, MARGINS, FOCI):
        for mostly_solid in (False, True) if composition == "mixed" else (None,):
            count = (composition == "solid") + bool(mostly_solid) + (echogenicity in DARK)
            count += (shape == "taller than wide") + (margin == "lobulated or irregular") + ("punctate" in foci)
            nodule = Nodule(composition, echogenicity, shape, margin, foci, mostly_solid=mostly_solid)
            result = assess(nodule, "kwak")
            assert (result.points, result.level) == (count, names[count])
            assert result.management is None and "has no size rule" in str(result)
            seen.add(count)
    assert seen == set(range(6))


def test_acr_levels_and_points_are_those_of_the_plain_functions():
    margins = tuple(tirads.MARGIN)
    for composition, echogenicity in [*PATTERNS, ("unclear", "unclear"), ("cystic", "isoechoic")]:
        for shape, margin, foci in itertools.product(SHAPES, margins, FOCI):
            total = tirads.points(composition, echogenicity, shape, margin, foci)
            result = assess(Nodule(composition, echogenicity, shape, margin, foci))
            assert result.points == total
            name = "TR1" if total == 0 else "TR2" if total < 3 else "TR3" if total == 3 else None
            assert result.level == (name or ("TR4" if total < 7 else "TR5"))


def test_acr_says_that_one_point_is_treated_as_two():
    result = assess(Nodule("cystic", "isoechoic", "wider than tall", "smooth", ()))
    assert (result.points, result.level) == (1, "TR2")
    assert "The chart has no level for 1 point. It is treated as TR2." in result.reasons


def test_a_mixed_nodule_with_a_known_solid_part_never_has_one_point():
    for echogenicity in ("hyperechoic", "isoechoic", *DARK, "unclear"):
        assert assess(Nodule("mixed", echogenicity, "wider than tall", "smooth", ())).points >= 2


# One nodule of each level of each system; the management below, at and above each bound.
EXAMPLES = {
    "TR1": ("cystic", "anechoic", "wider than tall", "smooth", ()),
    "TR2": ("mixed", "isoechoic", "wider than tall", "smooth", ()),
    "TR3": ("solid", "isoechoic", "wider than tall", "smooth", ()),
    "TR4": ("solid", "hypoechoic", "wider than tall", "smooth", ()),
    "TR5": ("solid", "hypoechoic", "taller than wide", "smooth", ()),
    "benign": ("cystic", "anechoic", "wider than tall", "smooth", ()),
    "low": ("solid", "isoechoic", "wider than tall", "smooth", ()),
    "intermediate": ("solid", "hypoechoic", "wider than tall", "smooth", ()),
    "high": ("solid", "hypoechoic", "wider than tall", "lobulated or irregular", ()),
    "score -1": ("mixed", "isoechoic", "wider than tall", "smooth", ("large comet-tail",)),
    "score 0": ("mixed", "isoechoic", "wider than tall", "smooth", ()),
    "score 1": ("solid", "isoechoic", "wider than tall", "smooth", ()),
    "score 2": ("solid", "isoechoic", "wider than tall", "ill-defined", ()),
    "score 3": ("solid", "isoechoic", "taller than wide", "ill-defined", ()),
    "score 4": ("solid", "isoechoic", "taller than wide", "ill-defined", ("punctate",)),
    "score 5": ("solid", "very hypoechoic", "taller than wide", "ill-defined", ("punctate",)),
}
THRESHOLDS = [  # system, nodule, bound in mm, management 0.1 mm below, at, and 0.1 mm above
    ("acr", "TR3", 15, "none", "follow-up", "follow-up"),
    ("acr", "TR3", 25, "follow-up", "FNA", "FNA"),
    ("acr", "TR4", 10, "none", "follow-up", "follow-up"),
    ("acr", "TR4", 15, "follow-up", "FNA", "FNA"),
    ("acr", "TR5", 5, "none", "follow-up", "follow-up"),
    ("acr", "TR5", 10, "follow-up", "FNA", "FNA"),
    ("eu", "low", 20, "no FNA", "no FNA", "FNA"),
    ("eu", "intermediate", 15, "no FNA", "no FNA", "FNA"),
    ("eu", "high", 10, "follow-up", "follow-up", "FNA"),
    ("k", "low", 20, "follow-up", "follow-up", "FNA"),
    ("k", "intermediate", 10, "follow-up", "follow-up", "consider FNA"),
    ("k", "intermediate", 15, "consider FNA", "consider FNA", "FNA"),
    ("k", "high", 10, "follow-up", "follow-up", "FNA"),
    ("k2016", "benign", 20, "no FNA", "FNA", "FNA"),
    ("k2016", "low", 15, "no FNA", "FNA", "FNA"),
    ("k2016", "intermediate", 10, "no FNA", "FNA", "FNA"),
    ("k2016", "high", 5, "no FNA", "no FNA", "consider FNA"),
    ("k2016", "high", 10, "consider FNA", "FNA", "FNA"),
    ("c", "score 1", 15, "no FNA", "FNA", "FNA"),
    ("c", "score 2", 10, "no FNA", "FNA", "FNA"),
    ("c", "score 3", 10, "no FNA", "FNA", "FNA"),
    ("c", "score 4", 10, "no FNA", "FNA", "FNA"),
    ("c", "score 5", 10, "no FNA", "FNA", "FNA"),
]
AT_ANY_SIZE = [
    ("acr", "TR1", "none"),
    ("acr", "TR2", "none"),
    ("eu", "benign", "no FNA"),
    ("k", "benign", "no FNA"),
    ("c", "score -1", "no FNA"),
    ("c", "score 0", "no FNA"),
]


@pytest.mark.parametrize(("system", "example", "bound", "below", "at", "above"), THRESHOLDS)
def test_every_threshold(system, example, bound, below, at, above):
    for size, action in ((bound - 0.1, below), (bound, at), (bound + 0.1, above)):
        result = assess(Nodule(*EXAMPLES[example], size_mm=size), system)
        assert (result.management, size) == (action, size)


def test_no_threshold_is_untested():
    bounds = {name: 0 for name in tirads.SYSTEMS}
    for system, *_ in THRESHOLDS:
        bounds[system] += 1
    coded = {
        name: sum(rule.from_mm > 0 for level in system.levels for rule in level.sizes)
        for name, system in tirads.SYSTEMS.items()
    }
    coded["c"] += 1  # 4C is tested with scores 3 and 4
    assert bounds == coded


@pytest.mark.parametrize(("system", "example", "action"), AT_ANY_SIZE)
def test_levels_whose_management_does_not_depend_on_the_size(system, example, action):
    for size in (None, 1, 4.9, 25, 80, 300):
        assert assess(Nodule(*EXAMPLES[example], size_mm=size), system).management == action


def test_follow_up_schedules():
    schedules = {
        ("acr", "TR3", 20): "after 1, 3 and 5 years",
        ("acr", "TR4", 12): "after 1, 2, 3 and 5 years",
        (
            "acr",
            "TR5",
            7,
        ): "every year for up to 5 years; of 5 to 9 mm see the white paper on papillary microcarcinomas",
        ("k", "low", 12): "after 1, 3 and 5 years",
        ("k", "intermediate", 9): "after 1, 3 and 5 years",
        ("k", "high", 9): "every 6 months for 1 to 2 years, then every year",
    }
    for (system, example, size), schedule in schedules.items():
        result = assess(Nodule(*EXAMPLES[example], size_mm=size), system)
        assert (result.management, result.management_detail) == ("follow-up", schedule)
        assert f"follow-up ({schedule})." in str(result)


@pytest.mark.parametrize("system", RISKS)
def test_the_published_risk_of_every_level(system):
    levels = tirads.SYSTEMS[system].levels
    assert {level.name: level.risk for level in levels} == RISKS[system]
    for findings in EXAMPLES.values():
        more = {"mostly_solid": False} if findings[0] == "mixed" else {}
        result = assess(Nodule(*findings, **more), system)
        assert result.malignancy_risk == RISKS[system][result.level]


def test_two_papers_that_differ_on_one_nodule():
    """The guideline of EU-TIRADS names it: partially cystic and hypoechoic is intermediate there and low in Korea."""
    findings = ("mixed", "hypoechoic", "wider than tall", "smooth", (), 18)
    assert (assess(Nodule(*findings), "eu").level, assess(Nodule(*findings), "eu").management) == ("4", "FNA")
    assert (assess(Nodule(*findings), "k").level, assess(Nodule(*findings), "k").management) == ("3", "follow-up")
