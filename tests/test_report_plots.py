"""The drawings of probabilities: their points are those of scikit-learn, and no text of the data is in them."""

import re

import numpy as np
import pytest
from report_samples import HOSTILE

from thyroid_jax.evaluate.cases import Case
from thyroid_jax.evaluate.report.plots import decision_plots, grade_plots, malignancy_plots, scatter
from thyroid_jax.evaluate.summary import decision_curve


def cases_of(truth, p, **more):
    return [
        Case(f"{i}", f"{i // 2}", malignant_truth=bool(t), p_malignant=float(q), **more)
        for i, (t, q) in enumerate(zip(truth, p))
    ]


def drawn_lines(svg, width):
    """The points of the lines of that width, in the drawing's units."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="[^"]*stroke-width: {width}', str(svg))
    return [np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path), float) for path in paths]


def in_data_units(svg, points):
    """Points of a drawing whose axes run from -0.02 to 1.02, by its frame."""
    frame = np.concatenate(drawn_lines(svg, "0.8"))
    low, high = frame.min(0), frame.max(0)
    x = -0.02 + 1.04 * (points[:, 0] - low[0]) / (high[0] - low[0])
    y = 1.02 - 1.04 * (points[:, 1] - low[1]) / (high[1] - low[1])
    return np.stack([x, y], axis=1)


@pytest.fixture(scope="module")
def judged():
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.4
    return truth, np.round(np.clip(0.3 * truth + rng.random(60) * 0.7, 0, 1), 1)  # with ties


def test_roc_and_precision_recall_are_those_of_scikit_learn(judged):
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    truth, p = judged
    roc, pr, _ = malignancy_plots(cases_of(truth, p))
    assert f"Area {roc_auc_score(truth, p):.3f}" in roc.caption
    called = p >= 0.5
    assert f"sensitivity {called[truth].mean():.2f} and specificity {(~called)[~truth].mean():.2f}" in roc.caption
    assert f"{truth.sum()} malignant, {(~truth).sum()} benign" in roc.caption
    assert f"Average precision {average_precision_score(truth, p):.3f}" in pr.caption
    assert f"share of malignant cases, {truth.mean():.2f}" in pr.caption
    (line,) = drawn_lines(roc.svg, "1.8")
    false, true, _ = roc_curve(truth, p, drop_intermediate=False)
    np.testing.assert_allclose(in_data_units(roc.svg, line), np.stack([false, true], 1), atol=0.01)


def test_nothing_is_drawn_without_both_classes():
    for cases in (cases_of([1, 1], [0.2, 0.3]), cases_of([0], [0.2]), [Case("x", "g", p_malignant=0.5)], []):
        assert malignancy_plots(cases) == []
    assert grade_plots([]) == [] == grade_plots([Case("x", "g", grade_truth="a", probability={"a": 1.0})])
    one = [Case("x", "g", grade_truth="a", grade_predicted="a", probability={"a": 1.0})]
    assert grade_plots(one) == []


def test_reliability_counts_every_case(judged):
    truth, p = judged
    *_, reliability = malignancy_plots(cases_of(truth, p))
    assert f"of {len(p)} cases each" in reliability.caption
    graded = [
        Case(f"{i}", f"{i}", grade_truth="a", grade_predicted="a", probability={"a": 0.75, "b": 0.25}) for i in range(8)
    ]
    (plot,) = grade_plots(graded)
    assert "8 to 8 of 8 cases each" in plot.caption and "grade" in plot.heading


def test_scatter_has_a_dot_for_every_pair():
    svg = str(scatter([0.1, 0.5, 0.9], [0.2, 0.4, 1.0], salt="x"))
    assert svg.count("<use ") >= 3 and svg.startswith("<svg") and "://" not in svg


def test_no_text_of_the_data(judged):
    truth, p = judged
    cases = cases_of(truth, p, about={HOSTILE: HOSTILE})
    for plot in malignancy_plots(cases):
        assert "alert" not in plot.svg + plot.caption + plot.heading and "://" not in plot.svg
    first, second, third = (set(re.findall(r' id="([^"]*)"', str(plot.svg))) for plot in malignancy_plots(cases))
    assert not first & second and not first & third and not second & third


def test_the_decision_curve_has_the_points_of_the_model_and_of_treating_all():
    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.4
    cases = cases_of(truth, np.clip(0.3 * truth + rng.random(60) * 0.7, 0, 1))
    curve = decision_curve(cases, np.arange(1, 10) / 20, samples=50)
    (plot,) = decision_plots(curve)
    assert "60 cases of 30 groups" in plot.caption and "calibrated" in plot.caption
    (model,) = drawn_lines(plot.svg, "1.8")
    slope, start = np.polyfit(curve.model, model[:, 1], 1)  # one scale, upside down, for both lines
    np.testing.assert_allclose(model[:, 1], start + slope * curve.model, atol=1e-3)
    (everyone,) = drawn_lines(plot.svg, "1.4")
    np.testing.assert_allclose(everyone[:, 1], start + slope * curve.treat_all[: len(everyone)], atol=1e-3)
    assert slope < 0
    assert decision_plots(None) == []


def test_a_decision_curve_without_a_band_or_a_benefit_can_be_drawn():
    alone = [Case(f"{i}", "patient", malignant_truth=False, p_malignant=i / 10) for i in range(10)]
    curve = decision_curve(alone, [0.1, 0.5], samples=5)
    assert np.isnan(curve.low).all() and "10 cases of 1 group." in decision_plots(curve)[0].caption
