"""Calibration of a table: entries are the measures of its arrays, intervals hold the value, chance is chance."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from thyroid_jax.evaluate.calibration import (
    binary_brier,
    binary_nll,
    brier,
    calibration_by_chance,
    calibration_summary,
    classwise_ece,
    ece,
    grade_reliability,
    malignancy_reliability,
    mce,
    nll,
    ranked_probability_score,
    reliability_table,
    top_label,
)
from thyroid_jax.evaluate.calibration.summaries import _drawn_truth, centred_interval
from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.statistics import cluster_bootstrap, cluster_replicates

NAMES = ("2", "3", "4a")
BINNED = [f"grade_{error}_{kind}" for error in ("ece", "classwise_ece", "mce") for kind in ("width", "mass")]
OF_GRADES = [*BINNED, "grade_brier", "grade_nll", "grade_rps"]
OF_MALIGNANCY = [f"malignant_{error}_{kind}" for error in ("ece", "mce") for kind in ("width", "mass")]
OF_MALIGNANCY += ["malignant_brier", "malignant_nll"]


def arrays(seed=0, n=200, factor=1.0):
    """Probabilities that are too sure by ``factor``, with the truth drawn from the right ones."""
    rng = np.random.default_rng(seed)
    right = softmax(rng.normal(0, 1.2, (n, 3)), axis=1)
    truth = (rng.random((n, 1)) >= right.cumsum(1)[:, :-1]).sum(1)
    chance = expit(rng.normal(0, 1.2, n))
    malignant = rng.random(n) < chance
    return softmax(factor * np.log(right), axis=1), truth, expit(factor * logit(chance)), malignant


def table(probability, truth, forecast, malignant, images=2):
    return [
        Case(
            case=str(i),
            group=str(i // images),
            part="test",
            grade_truth=NAMES[truth[i]],
            grade_predicted=NAMES[probability[i].argmax()],
            probability=dict(zip(NAMES, map(float, probability[i]))),
            malignant_truth=bool(malignant[i]),
            p_malignant=float(forecast[i]),
        )
        for i in range(len(truth))
    ]


def test_values_are_those_of_the_arrays():
    probability, truth, forecast, malignant = drawn = arrays()
    found = calibration_summary(table(*drawn), samples=40)
    assert list(found) == OF_GRADES + OF_MALIGNANCY
    expected = {
        "grade_brier": brier(probability, truth),
        "grade_nll": nll(probability, truth),
        "grade_rps": ranked_probability_score(probability, truth),
        "malignant_brier": binary_brier(forecast, malignant),
        "malignant_nll": binary_nll(forecast, malignant),
    }
    for kind in ("width", "mass"):
        expected[f"grade_ece_{kind}"] = ece(*top_label(probability, truth), kind=kind)
        expected[f"grade_mce_{kind}"] = mce(*top_label(probability, truth), kind=kind)
        expected[f"grade_classwise_ece_{kind}"] = classwise_ece(probability, truth, kind=kind)
        expected[f"malignant_ece_{kind}"] = ece(forecast, malignant, kind=kind)
        expected[f"malignant_mce_{kind}"] = mce(forecast, malignant, kind=kind)
    for name, entry in found.items():
        assert entry["value"] == pytest.approx(float(expected[name])), name
        assert entry["low"] <= entry["value"] <= entry["high"], name
        counts = {key: entry[key] for key in ("n", "undefined", "groups", "replicates", "replicates_undefined")}
        assert counts == {"n": 200, "undefined": 0, "groups": 100, "replicates": 40, "replicates_undefined": 0}
    few = calibration_summary(table(*drawn), bins=3, samples=5)
    assert few["grade_ece_width"]["value"] == pytest.approx(float(ece(*top_label(probability, truth), bins=3)))


def test_intervals_of_scores_are_those_of_the_bootstrap():
    _, _, forecast, malignant = drawn = arrays()
    found = calibration_summary(table(*drawn), samples=60, seed=5)["malignant_brier"]
    judge = cluster_bootstrap(
        lambda loss, weight: weight @ loss / weight.sum(-1),
        [str(i // 2) for i in range(200)],
        (forecast - malignant) ** 2,
        samples=60,
        seed=5,
        weighted=True,
        expanded=True,
    )
    assert (found["value"], found["low"], found["high"]) == pytest.approx((judge.value, judge.low, judge.high))


def test_intervals_of_binned_errors_lie_about_the_value():
    """Every replicate adds the noise of the bins once more: unmoved percentiles lie above the value."""
    _, _, forecast, malignant = arrays(n=60)
    replicates = cluster_replicates(
        lambda f, y, weight: ece(f, y, kind="mass", weight=weight),
        np.arange(60), forecast, malignant, samples=300, weighted=True,
    )  # fmt: skip
    assert np.median(replicates.values) > replicates.value + 0.01
    found = centred_interval(replicates, 0.95)
    assert 0 <= found.low < replicates.value < found.high <= 1
    # Nothing but moved: as wide as before where the bounds of [0, 1] do not cut.
    plain = cluster_bootstrap(
        lambda f, y, weight: ece(f, y, kind="mass", weight=weight),
        np.arange(60), forecast, malignant, samples=300, weighted=True, expanded=True,
    )  # fmt: skip
    shift = replicates.value - np.median(replicates.values)
    assert (found.low, found.high) == pytest.approx((plain.low + shift, plain.high + shift))
    assert (found.value, found.samples, found.undefined) == (plain.value, plain.samples, plain.undefined)


def test_only_cases_with_both_values_count():
    cases = table(*arrays(n=20))
    nan = float("nan")
    cases[0] = replace(cases[0], grade_truth="", malignant_truth=None)
    cases[1] = replace(cases[1], grade_predicted="", probability={}, p_malignant=nan)
    cases[2] = replace(cases[2], p_malignant=nan)
    found = calibration_summary(cases, samples=5)
    assert (found["grade_nll"]["n"], found["malignant_nll"]["n"]) == (18, 17)
    unproven = [replace(case, malignant_truth=None) for case in cases]
    assert (
        list(calibration_summary(unproven, samples=5)) == OF_GRADES == list(calibration_by_chance(unproven, samples=5))
    )
    ungraded = [replace(case, grade_truth="") for case in cases]
    assert list(calibration_summary(ungraded, samples=5)) == OF_MALIGNANCY
    for cases in ([], [Case("a", "a")]):
        assert calibration_summary(cases) == {} == calibration_by_chance(cases)
        assert len(grade_reliability(cases).size) == len(malignancy_reliability(cases).size) == 0


def test_an_impossible_event_is_infinite_and_has_no_interval():
    cases = table(*arrays(n=20))
    cases[3] = replace(cases[3], p_malignant=0.0, malignant_truth=True)
    cases[4] = replace(cases[4], probability=dict(zip(NAMES, (0.0, 0.5, 0.5))), grade_truth="2")
    found = calibration_summary(cases, samples=20)
    for name in ("malignant_nll", "grade_nll"):
        assert found[name]["value"] == np.inf and np.isnan([found[name]["low"], found[name]["high"]]).all()
        assert (found[name]["replicates"], found[name]["n"]) == (0, 20)
    assert np.isfinite([found[name][key] for name in ("grade_brier", "grade_rps") for key in ("low", "high")]).all()


def test_few_and_equal_cases():
    lone = calibration_summary(table(*arrays(n=20), images=20), samples=20)
    assert all(
        np.isnan(entry["low"]) and entry["groups"] == 1 and np.isfinite(entry["value"]) for entry in lone.values()
    )
    probability, truth, _, _ = arrays(n=20)
    benign = calibration_summary(table(probability, truth, np.full(20, 0.25), np.zeros(20, bool)), samples=20)
    assert benign["malignant_ece_width"]["value"] == benign["malignant_mce_mass"]["value"] == pytest.approx(0.25)
    assert benign["malignant_ece_width"]["high"] == pytest.approx(0.25)
    single = calibration_summary(table(*(column[:1] for column in arrays(n=20))), samples=5)
    assert all(np.isfinite(entry["value"]) for entry in single.values())


def test_the_probabilities_are_judged_whatever_grade_was_called():
    cases = table(*arrays(n=40))
    called = [replace(case, grade_predicted="3") for case in cases]
    assert calibration_summary(called, samples=5) == calibration_summary(cases, samples=5)


def test_faulty_probabilities_are_refused():
    cases = table(*arrays(n=10))
    with pytest.raises(ValueError, match="sum to 1"):
        calibration_summary([*cases, replace(cases[0], probability=dict.fromkeys(NAMES, 0.5))])
    with pytest.raises(ValueError, match="not one of"):
        calibration_by_chance([*cases, replace(cases[0], grade_truth="9")])
    for options in ({"level": 1.0}, {"samples": 0}):
        with pytest.raises(ValueError, match="level"):
            calibration_by_chance(cases, **options)


# --- by chance --------------------------------------------------------------------------------------------------------


def test_labels_are_drawn_with_their_probabilities():
    probability = np.array([[0.0, 0.3, 0.7], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]])
    drawn = np.concatenate(list(_drawn_truth(probability, 20000, seed=0, largest=5000)))
    assert drawn.shape == (20000, 4)
    shares = np.stack([(drawn == grade).mean(0) for grade in range(3)], axis=1)
    np.testing.assert_allclose(shares, probability, atol=0.015)
    assert (shares[probability == 0] == 0).all()
    outcome = np.concatenate(list(_drawn_truth(np.array([0.0, 0.25, 1.0]), 20000, seed=0)))
    np.testing.assert_allclose(outcome.mean(0), [0, 0.25, 1], atol=0.015)


def test_expectations_by_chance_are_the_closed_forms():
    probability, _, forecast, _ = drawn = arrays(n=300)
    found = calibration_by_chance(table(*drawn), samples=400)
    expected = {
        "grade_brier": 1 - (probability**2).sum(1).mean(),
        "grade_nll": -(probability * np.log(probability)).sum(1).mean(),
        "malignant_brier": (forecast * (1 - forecast)).mean(),
    }
    for name, value in expected.items():
        entry = found[name]
        error = (entry["high"] - entry["low"]) / 4 / np.sqrt(400)
        assert entry["value"] == pytest.approx(value, abs=4 * error), name
        assert (entry["n"], entry["groups"], entry["replicates"]) == (300, 150, 400)
    assert found["malignant_ece_mass"]["value"] == pytest.approx(
        np.sqrt(2 / np.pi) * np.sqrt(forecast * (1 - forecast) / 20).mean(), rel=0.05
    )


def test_right_probabilities_lie_within_chance_and_too_sure_ones_outside():
    right, sure = (table(*arrays(seed=1, n=400, factor=factor)) for factor in (1.0, 3.0))
    inside = {}
    for name, cases in (("right", right), ("sure", sure)):
        chance, found = calibration_by_chance(cases, samples=200, level=0.99), calibration_summary(cases, samples=2)
        inside[name] = {key: chance[key]["low"] <= found[key]["value"] <= chance[key]["high"] for key in found}
    assert all(inside["right"].values())
    beyond = ("ece_width", "ece_mass", "brier", "nll")
    assert not any(inside["sure"][f"{of}_{key}"] for of in ("grade", "malignant") for key in beyond)


def test_the_same_seed_gives_the_same_numbers():
    cases = table(*arrays(n=30))
    for summarise in (calibration_summary, calibration_by_chance):
        assert summarise(cases, samples=20, seed=3) == summarise(cases, samples=20, seed=3)
        assert summarise(cases, samples=20, seed=3) != summarise(cases, samples=20, seed=4)


def test_reliability_of_a_table():
    probability, truth, forecast, malignant = drawn = arrays(n=60)
    alone = table(*drawn, images=1)
    for found, expected in (
        (grade_reliability(alone, bins=4), reliability_table(*top_label(probability, truth), bins=4)),
        (malignancy_reliability(alone, kind="mass"), reliability_table(forecast, malignant, kind="mass")),
    ):
        assert set(found.interval) == {"wilson"}
        for column, wanted in zip(found[:-1], expected[:-1]):
            np.testing.assert_allclose(column, wanted, atol=1e-12)
    pairs = malignancy_reliability(table(*drawn), bins=3, samples=50)
    groups = [str(i // 2) for i in range(60)]
    expected = reliability_table(forecast, malignant, bins=3, groups=groups, samples=50)
    np.testing.assert_array_equal(pairs.low, expected.low)
    assert "bootstrap" in pairs.interval
