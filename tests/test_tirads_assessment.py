"""Missing findings, contradictions, refused input, and the text of an assessment."""

import inspect
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyroid_jax import tirads
from thyroid_jax.tirads import Nodule, assess, compare, nodule

PLAIN = ("solid", "isoechoic", "wider than tall", "smooth", ())
AXES = ("composition", "echogenicity", "shape", "margin", "foci")
KINDS = ("large comet-tail", "macrocalcification", "peripheral", "punctate")
SOLID_ECHOES = ("hyperechoic", "isoechoic", "hypoechoic", "very hypoechoic")
VALUES = {
    "composition": ("cystic", "spongiform", "mixed", "solid"),
    "echogenicity": ("anechoic", *SOLID_ECHOES),
    "shape": ("wider than tall", "taller than wide"),
    "margin": ("smooth", "ill-defined", "lobulated or irregular", "extrathyroidal extension"),
    "foci": tuple(kinds for count in range(5) for kinds in itertools.combinations(KINDS, count)),
}


def is_consistent(findings):
    return findings["echogenicity"] != "anechoic" or findings["composition"] == "cystic"


complete = st.fixed_dictionaries({axis: st.sampled_from(values) for axis, values in VALUES.items()}).filter(
    is_consistent
)
sizes = st.floats(1, 300, allow_nan=False)
systems = st.sampled_from(sorted(tirads.SYSTEMS))


def nodules_of(findings, **more):
    """The nodule, or for a mixed one both: with the larger part solid and not."""
    for mostly_solid in (False, True) if findings["composition"] == "mixed" else (None,):
        yield Nodule(**findings, mostly_solid=mostly_solid, **more)


@settings(max_examples=60, deadline=None)
@given(complete, st.sets(st.sampled_from(AXES), min_size=1, max_size=2), systems)
def test_hidden_findings_leave_exactly_the_levels_that_their_values_give(findings, hidden, system):
    left = {axis: None if axis in hidden else value for axis, value in findings.items()}
    union = set()
    for values in itertools.product(*(VALUES[axis] for axis in hidden)):
        filled = {**findings, **dict(zip(hidden, values))}
        if is_consistent(filled):
            for nodule in nodules_of(filled):
                union |= set(assess(nodule, system).possible)
    result = assess(Nodule(**left), system)
    assert set(result.possible) == union
    assert set(hidden) <= set(result.missing)


@settings(max_examples=80, deadline=None)
@given(complete, sizes, sizes, systems)
def test_a_larger_nodule_never_gets_less(findings, one, other, system):
    ranks = []
    for size in sorted((one, other)):
        (nodule, *_) = nodules_of(findings, size_mm=size)
        result = assess(nodule, system)
        if len(result.possible) > 1 or system == "kwak":
            return
        ranks.append(tirads.ACTIONS.index(result.management))
    assert ranks[0] <= ranks[1]


@settings(max_examples=120, deadline=None)
@given(complete, systems, st.sampled_from(("shape", "margin", "foci")))
def test_a_suspicious_finding_never_lowers_the_level(findings, system, axis):
    more = {
        "shape": "taller than wide",
        "margin": "lobulated or irregular" if findings["margin"] != "extrathyroidal extension" else findings["margin"],
        "foci": (*findings["foci"], "punctate"),
    }
    order = [level.name for level in tirads.SYSTEMS[system].levels]
    before = assess(next(nodules_of(findings)), system)
    after = assess(next(nodules_of({**findings, axis: more[axis]})), system)
    assert order.index(after.lowest) >= order.index(before.lowest)
    assert order.index(after.highest) >= order.index(before.highest)


def test_an_axis_that_cannot_change_the_level_is_named_and_the_level_given():
    result = assess(Nodule("spongiform", None, None, None, None, 30))
    assert (result.level, result.points, result.management) == ("TR1", 0, "none")
    assert result.missing == ("echogenicity", "shape", "margin", "foci")
    assert "The level is TR1 for every possible value." in str(result)


def test_missing_findings_give_a_range_and_no_number():
    result = assess(Nodule("solid", None, "wider than tall", "smooth", (), 12))
    assert (result.level, result.points, result.malignancy_risk, result.management) == (None, None, None, None)
    assert (result.lowest, result.highest, result.possible) == ("TR3", "TR4", ("TR3", "TR4"))
    assert "Not known: echogenicity. The level can be TR3 or TR4 (3 to 5 points)." in result.reasons
    assert "The possible levels ask for different management." in result.reasons
    assert "Composition solid: 2 points." in result.reasons
    assert not any("Echogenicity" in reason for reason in result.reasons)


def test_a_cyst_of_unknown_echogenicity_may_be_anechoic_or_have_a_solid_part():
    results = compare(Nodule("cystic", None, "wider than tall", "smooth", ()))
    assert results["acr"].possible == ("TR1", "TR2", "TR3")
    assert results["eu"].possible == ("2", "3", "4")
    assert results["k"].possible == results["k2016"].possible == ("2", "3")
    assert results["c"].possible == ("3", "4A")
    assert results["kwak"].possible == ("3", "4a")


def test_anechoic_of_unknown_composition_is_cystic():
    results = compare(Nodule(None, "anechoic", "wider than tall", "smooth", ()))
    assert [result.possible for result in results.values()] == [("TR1",), ("2",), ("2",), ("2",), ("3",), ("3",)]
    assert all(result.missing == ("composition",) for result in results.values())


def test_nothing_known():
    for name, result in compare(Nodule()).items():
        assert result.possible == tuple(level.name for level in tirads.SYSTEMS[name].levels)
        assert result.missing == AXES and result.level is result.management is result.points is None
    assert "(0 to 17 points)" in str(assess(Nodule()))


def test_the_same_management_at_every_possible_level_is_given():
    result = assess(Nodule("solid", None, "wider than tall", "smooth", (), 4.9))
    assert (result.level, result.management) == (None, "none")
    assert assess(Nodule("solid", "isoechoic", None, "smooth", (), 25)).management == "FNA"
    # follow-up at both levels, but at other times: not the same management
    assert assess(Nodule("solid", "hyperechoic", None, "smooth", ("macrocalcification",), 7)).management is None


def test_without_a_size_there_is_no_management():
    for name, result in compare(Nodule(*PLAIN)).items():
        assert result.level and result.management is None, name
        needed = "A size in millimetres is needed for management; none is known."
        assert (needed in result.reasons) == (name != "kwak")


def test_unclear_has_points_in_acr_and_is_open_elsewhere():
    nodule = Nodule("unclear", "unclear", "wider than tall", "unclear", ())
    results = compare(nodule)
    assert (results["acr"].points, results["acr"].level, results["acr"].missing) == (3, "TR3", ())
    for name in ("eu", "k", "k2016", "c", "kwak"):
        assert results[name].missing == ("composition", "echogenicity", "margin")
        assert results[name].level is None
    # None is not "unclear": it was not looked at
    assert assess(Nodule(None, None, "wider than tall", None, ())).possible == ("TR1", "TR2", "TR3", "TR4", "TR5")


def test_extrathyroidal_extension_leaves_the_margin_open_where_it_is_not_named():
    results = compare(Nodule("solid", "isoechoic", "wider than tall", "extrathyroidal extension", ()))
    assert (results["acr"].level, results["acr"].points) == ("TR4", 6)
    assert any("malignant until proven otherwise" in reason for reason in results["acr"].reasons)
    assert (results["c"].level, results["c"].points) == ("4B", 2)
    assert results["eu"].possible == ("3", "5") and results["eu"].missing == ("margin",)
    assert results["k"].possible == results["k2016"].possible == ("3", "4")
    assert results["kwak"].possible == ("4a", "4b") and results["kwak"].points is None


def test_kwak_asks_which_part_of_a_mixed_nodule_is_larger():
    findings = ("mixed", "hypoechoic", "wider than tall", "smooth", ())
    result = assess(Nodule(*findings), "kwak")
    assert (result.possible, result.missing) == (("4a", "4b"), ("mostly_solid",))
    assert assess(Nodule(*findings, mostly_solid=False), "kwak").level == "4a"
    assert assess(Nodule(*findings, mostly_solid=True), "kwak").level == "4b"
    assert assess(Nodule(*findings)).missing == ()


CONTRADICTIONS = [
    # findings, words of the reason, possible levels in acr, eu, k, k2016
    (("solid", "anechoic", "wider than tall", "smooth", ()), "Contradiction: anechoic", "TR3 TR4|3 4 5|3 4|3 4"),
    (("mixed", "anechoic", "wider than tall", "smooth", ()), "Contradiction: anechoic", "TR2 TR3 TR4|3 4|3|3"),
    (("spongiform", "anechoic", "wider than tall", "smooth", ()), "Contradiction: anechoic", "TR1|2|2 3|2"),
    (("cystic", "hypoechoic", "wider than tall", "smooth", ()), "no solid part that could be", "TR2|2 4|2 3|2 3"),
    (("cystic", "isoechoic", "taller than wide", "smooth", ()), "no solid part that could be", "TR4|2 5|2 4|4"),
    (("cystic", "anechoic", "wider than tall", "smooth", ("punctate",)), "cystic hardly goes", "TR3|2 5|2|4"),
    (("spongiform", "isoechoic", "wider than tall", "smooth", ("peripheral",)), "spongiform hardly goes", "TR1|2|2|2"),
    (("spongiform", "isoechoic", "taller than wide", "smooth", ()), "spongiform hardly goes", "TR1|2 5|2|4"),
    (("solid", "isoechoic", "wider than tall", "smooth", ("large comet-tail",)), "Check the foci", "TR3|3|3|3"),
]


@pytest.mark.parametrize(("findings", "words", "levels"), CONTRADICTIONS)
def test_findings_that_hardly_go_together_are_named(findings, words, levels):
    results = compare(Nodule(*findings))
    assert all(any(words in reason for reason in result.reasons) for result in results.values())
    got = "|".join(" ".join(results[name].possible) for name in ("acr", "eu", "k", "k2016"))
    assert got == levels


def test_ordinary_findings_raise_no_doubt():
    for result in compare(Nodule(*PLAIN, size_mm=12)).values():
        assert not any(word in reason for reason in result.reasons for word in ("Check", "Contradiction", "Not known"))


def test_a_spongiform_nodule_with_suspicious_findings_says_what_it_would_be_as_mixed():
    result = assess(Nodule("spongiform", "isoechoic", "taller than wide", "smooth", ("punctate",)))
    assert (result.points, result.level) == (0, "TR1")
    assert "Read as mixed cystic and solid it would have 8 points: TR5." in result.reasons
    assert any("back walls of minute cysts" in reason for reason in result.reasons)


REFUSED = [
    (
        {"composition": "cyst"},
        "composition: unknown name 'cyst'. Known names: cystic, spongiform, mixed, solid, unclear",
    ),
    ({"echogenicity": "Hypoechoic"}, "echogenicity: unknown name 'Hypoechoic'. Known names: anechoic, hyperechoic"),
    ({"shape": "round"}, "shape: unknown name 'round'. Known names: wider than tall, taller than wide"),
    ({"margin": "irregular"}, "margin: unknown name 'irregular'. Known names: smooth, ill-defined"),
    ({"foci": ("microcalcification",)}, "foci: unknown name 'microcalcification'. Known names: none, large comet-tail"),
    ({"foci": "punctate"}, "foci: 'punctate' is one word. Give a tuple"),
    ({"foci": ("none", "punctate")}, "foci: 'none' beside punctate"),
    ({"size_mm": float("nan")}, "size_mm: nan is not a diameter in millimetres"),
    ({"size_mm": float("inf")}, "size_mm: inf"),
    ({"size_mm": 0.0}, "size_mm: 0.0"),
    ({"size_mm": -5}, "size_mm: -5"),
    ({"size_mm": 0.9}, "size_mm: 0.9 is not a diameter in millimetres from 1 to 300. None means not known"),
    ({"size_mm": 300.1}, "size_mm: 300.1"),
    ({"composition": "solid", "mostly_solid": True}, "mostly_solid: only of a mixed nodule"),
    ({"mostly_solid": False}, "mostly_solid: only of a mixed nodule"),
    ({"composition": "solid", "entirely_calcified": True}, "entirely_calcified: the inside is not seen"),
    ({"echogenicity": "isoechoic", "entirely_calcified": True}, "entirely_calcified: the inside is not seen"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_refused_findings(fields, words):
    with pytest.raises(ValueError) as error:
        Nodule(**fields)
    assert words in str(error.value)


def test_an_unknown_system_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown name 'tirads'. Known systems: acr, eu, k, k2016, c, kwak"):
        assess(Nodule(*PLAIN), "tirads")


def test_the_ways_to_write_foci():
    for foci in ((), ("none",), [], {"none"}, frozenset()):
        assert Nodule(*PLAIN[:4], foci).foci == ()
    assert Nodule(*PLAIN[:4], ["punctate", "peripheral", "punctate"]).foci == ("peripheral", "punctate")
    assert Nodule(*PLAIN[:4]).foci is None
    assert len({Nodule(*PLAIN), Nodule(*PLAIN[:4], ["none"])}) == 1  # hashable, and equal


def test_sizes_of_any_number_type():
    for size in (15, 15.0, np.float64(15)):
        assert assess(Nodule("solid", "hypoechoic", "wider than tall", "smooth", (), size)).management == "FNA"


def test_every_text_says_research_use_and_its_source():
    for findings in (PLAIN, (None,) * 5, ("spongiform", "anechoic", None, None, ("punctate",))):
        for size in (None, 12):
            for name, result in compare(Nodule(*findings, size_mm=size)).items():
                text = str(result)
                assert text.endswith("Research use, not advice about a patient.")
                assert text.startswith(f"{tirads.SYSTEMS[name].name}: level ")
                assert "doi 10." in text and result.source == tirads.SYSTEMS[name].source
                assert "None" not in text


def test_the_text_of_a_determined_and_of_an_undetermined_assessment():
    text = str(assess(Nodule(*PLAIN, size_mm=15)))
    assert text.splitlines()[:3] == [
        "ACR TI-RADS 2017: level TR3, risk of malignancy as published 4.8 %.",
        "Management by size: follow-up (after 1, 3 and 5 years).",
        "- Composition solid: 2 points.",
    ]
    text = str(assess(Nodule("solid", None, *PLAIN[2:])))
    assert text.splitlines()[:2] == [
        "ACR TI-RADS 2017: level TR3 or TR4, not determined.",
        "Management by size: not determined.",
    ]


def test_assess_is_pure_and_compare_is_assess():
    nodule = Nodule(*PLAIN, size_mm=15)
    for name, result in compare(nodule).items():
        assert result == assess(nodule, name)


def findings(**fields):
    """A nodule without the tests' check of types, which a notebook does not have either."""
    unchecked = object.__new__(Nodule)
    for name, value in (vars(Nodule()) | fields).items():
        object.__setattr__(unchecked, name, value)
    inspect.unwrap(Nodule.__post_init__)(unchecked)
    return unchecked


def test_foci_are_counted_from_any_collection_and_a_missing_one_is_not_none(monkeypatch):
    for name in ("_checked_foci", "_check_name", "_check_truth"):
        monkeypatch.setattr(nodule, name, inspect.unwrap(getattr(nodule, name)))
    assert findings(foci=(kind for kind in ["punctate", "peripheral"])).foci == ("peripheral", "punctate")
    with pytest.raises(ValueError, match="foci: None beside names"):
        findings(foci=["punctate", None])
    assert findings(composition="mixed", mostly_solid=np.bool_(False)).mostly_solid == 0
    with pytest.raises(ValueError, match="mostly_solid: 'no' is not one of True, False, None"):
        findings(composition="mixed", mostly_solid="no")
    with pytest.raises(ValueError, match="entirely_calcified: 'no' is not one of True, False"):
        findings(entirely_calcified="no")
