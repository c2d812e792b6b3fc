"""Calibration of a table: fitted on validation cases only, applied to others, kept as JSON."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.calibration import (
    Calibration,
    apply,
    calibrated,
    calibration_summary,
    fit,
    fit_grades,
    fit_malignancy,
    from_dict,
    to_dict,
)
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.files import read_json, write_json

NAMES = ("2", "3", "4a", "5")


def table(seed=0, n=300, part="validation", factor=2.0):
    """Cases of a model that is too sure by ``factor``; two images a patient."""
    rng = np.random.default_rng(seed)
    right = softmax(rng.normal(0, 1.5, (n, 4)), axis=1)
    truth = (rng.random((n, 1)) >= right.cumsum(1)[:, :-1]).sum(1)
    said = softmax(factor * np.log(right), axis=1)
    chance = expit(rng.normal(0, 1.2, n))
    malignant = rng.random(n) < chance
    return [
        Case(
            case=f"{part}{i}",
            group=str(i // 2),
            part=part,
            dice=0.5,
            grade_truth=NAMES[truth[i]],
            grade_predicted=NAMES[said[i].argmax()],
            probability=dict(zip(NAMES, map(float, said[i]))),
            malignant_truth=bool(malignant[i]),
            p_malignant=float(expit(factor * logit(chance[i]))),
            about={"device": "a"},
        )
        for i in range(n)
    ]


def test_fit_is_that_of_the_arrays_and_says_from_what():
    cases = table()
    unlabelled = [
        replace(cases[0], grade_truth="", malignant_truth=None),
        replace(cases[1], grade_predicted="", probability={}, p_malignant=float("nan")),
    ]
    found = fit([*cases, *unlabelled], grade="ordinal", malignant="platt")
    probability = np.array([list(case.probability.values()) for case in cases])
    truth = np.array([NAMES.index(case.grade_truth) for case in cases])
    groups = [case.group for case in cases]
    assert found.grade == fit_grades(probability, truth, method="ordinal", groups=groups)
    forecast, malignant = np.array([(case.p_malignant, case.malignant_truth) for case in cases]).T
    assert found.malignant == fit_malignancy(forecast, malignant, method="platt", groups=groups)
    assert (found.part, found.names, found.remarks) == ("validation", NAMES, ())
    assert (found.grade.cases, found.grade.groups) == (300, 150)
    only = fit(cases, malignant=None)
    assert only.malignant is None and only.remarks == () and only.grade.method == "temperature"


def test_other_cases_become_better_and_keep_everything_else():
    calibration = fit(table(0, 1000))
    assert calibration.grade.temperature == pytest.approx(2, rel=0.15)
    assert calibration.malignant.temperature == pytest.approx(2, rel=0.25)
    before = table(1, 500, "test")
    after = calibrated(before, calibration)
    kept = lambda case: {k: v for k, v in asdict(case).items() if k not in ("probability", "p_malignant")}
    assert [kept(case) for case in after] == [kept(case) for case in before]
    assert all(tuple(case.probability) == NAMES for case in after)
    assert all(sum(case.probability.values()) == pytest.approx(1) for case in after)
    old, new = (calibration_summary(cases, samples=1) for cases in (before, after))
    for name in ("grade_nll", "grade_ece_mass", "grade_brier", "malignant_nll", "malignant_ece_mass"):
        assert new[name]["value"] < old[name]["value"], name


def test_ordinal_scaling_gives_the_most_probable_grade():
    cases = table()
    calibration = fit([replace(case, grade_truth=NAMES[min(NAMES.index(case.grade_truth) + 1, 3)]) for case in cases],
                      grade="ordinal")  # fmt: skip
    assert calibration.grade.bias > 0.5
    after = calibrated(cases, calibration)
    for case in after:
        assert case.grade_predicted == max(NAMES, key=case.probability.__getitem__)
    assert any(case.grade_predicted != old.grade_predicted for case, old in zip(after, cases))
    ungraded = apply(calibration, replace(cases[0], grade_predicted=""))
    assert ungraded.grade_predicted == "" and ungraded.probability == after[0].probability
    least = min(NAMES, key=cases[0].probability.__getitem__)
    with pytest.raises(InputError, match="another rule"):
        apply(calibration, replace(cases[0], grade_predicted=least))
    # A temperature leaves such a grade as it is.
    by_rule = replace(cases[0], grade_predicted=least)
    assert apply(fit(cases), by_rule).grade_predicted == least


def test_a_case_without_probabilities_stays():
    calibration = fit(table())
    bare = Case("a", "a", dice=0.3)
    assert repr(apply(calibration, bare)) == repr(bare)
    assert apply(calibration, bare).probability == {} and np.isnan(apply(calibration, bare).p_malignant)
    nothing = Calibration("validation", (), None, calibration.malignant)
    graded = table(n=1)[0]
    assert apply(nothing, graded).probability == graded.probability


def test_parts_are_kept_apart():
    cases = table()
    with pytest.raises(InputError, match="2 of 'test', 1 of ''"):
        fit([*cases, *table(1, 2, "test"), replace(cases[0], part="")])
    with pytest.raises(InputError, match="part 'validation'"):
        fit(table(part="test"))
    assert fit(table(part="fold0-seed1"), part="fold0-seed1").part == "fold0-seed1"
    with pytest.raises(InputError, match="no case"):
        fit([])


def test_what_cannot_be_fitted_is_said():
    cases = table()
    benign = fit([replace(case, malignant_truth=False) for case in cases])
    assert benign.malignant is None and benign.grade is not None
    assert benign.remarks == ("malignancy: all cases have the same true label; a scaling needs two of them.",)
    unproven = fit([replace(case, malignant_truth=None) for case in cases])
    assert unproven.remarks == ("malignancy: no case has both a prediction and the truth.",)
    with pytest.raises(InputError, match=r"nothing can be fitted.*grades: 10 cases are too few.*malignancy: 10 cases"):
        fit(cases[:10])
    assert fit(cases[:10], least=10).grade.cases == 10
    with pytest.raises(ValueError, match="isotonic"):
        fit(cases, grade="isotonic")
    with pytest.raises(ValueError, match="ordinal"):
        fit(cases, malignant="ordinal")


def test_faulty_tables_are_refused():
    cases = table()
    with pytest.raises(InputError, match="sum to 1"):
        fit([*cases, replace(cases[0], probability=dict.fromkeys(NAMES, 0.3))])
    with pytest.raises(InputError, match="different scales"):
        fit([*cases, replace(cases[0], probability={"2": 0.5, "3": 0.5}, grade_truth="2", grade_predicted="2")])
    calibration = fit(cases)
    reverse = dict(reversed(cases[0].probability.items()))
    for other in ({"3": 0.5, "2": 0.5}, reverse):
        with pytest.raises(InputError, match="fitted on 2, 3, 4a, 5"):
            apply(calibration, replace(cases[0], probability=other))
    with pytest.raises(InputError, match=r"validation0.*sum to 1"):
        apply(calibration, replace(cases[0], probability=dict.fromkeys(NAMES, 0.3)))


@pytest.mark.parametrize(
    "calibration",
    [
        fit(table(n=60), grade="ordinal", malignant="platt"),
        fit([replace(case, malignant_truth=None) for case in table(n=60)]),
    ],
)
def test_json_gives_the_same_calibration(calibration, tmp_path):
    write_json(tmp_path / "calibration.json", to_dict(calibration))
    assert from_dict(read_json(tmp_path / "calibration.json")) == calibration


def changed(path, value):
    values = to_dict(fit(table(n=60), grade="ordinal", malignant="platt"))
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "expected the fields"),
        ({}, "expected the fields"),
        (changed(["extra"], 1), "extra"),
        (changed(["part"], 3), "file.part"),
        (changed(["names"], "2345"), "file.names"),
        (changed(["names"], ["2", 3]), "file.names"),
        (changed(["names"], ["2", "2"]), "two different"),
        (changed(["remarks"], None), "file.remarks"),
        (changed(["grade"], "temperature"), "file.grade"),
        (changed(["grade", "method"], "platt"), "grades are scaled"),
        (changed(["malignant", "method"], "ordinal"), "malignancy is scaled"),
        (changed(["grade", "temperature"], 0), "temperature"),
        (changed(["grade", "temperature"], True), "temperature"),
        (changed(["grade", "temperature"], "1"), "temperature"),
        (changed(["grade", "bias"], 1e9), "bias"),
        (changed(["grade", "cases"], 60.5), "cases"),
        (changed(["grade", "groups"], 61), "groups"),
        (changed(["grade", "surprise"], 1), "surprise"),
        (changed(["malignant"], {}), "missing"),
    ],
)
def test_faulty_json_is_refused(values, message):
    with pytest.raises(InputError, match=rf"(?s)file.*{message}|{message}"):
        from_dict(values, where="file")
