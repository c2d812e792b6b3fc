"""The curves of a log: which are drawn, by what, and that their points are the log's."""

import re

import numpy as np
import pytest
from report_samples import HOSTILE

from thyroid_jax.evaluate.report import training_curves
from thyroid_jax.evaluate.report.curves import curve


def points(svg):
    """The points of the first thick line of a drawing, in its own units."""
    path = re.search(r'<path d="([^"]*)"[^>]*style="[^"]*stroke-width: 1.6', str(svg))[1]
    return np.array(re.findall(r"[ML] ([\d.]+) ([\d.]+)", path), float)


def test_one_panel_a_quantity():
    log = [{"step": i, "split": "train", "loss": float(i)} for i in range(1000)] + [
        {"step": 5, "loss": float("inf"), "flag": True}
    ]
    (panel,) = training_curves(log)
    assert panel.name == "loss" and panel.x == "step" and panel.splits == ("train",) and panel.thinned
    assert str(panel.svg).startswith("<svg") and "#0102" not in panel.svg
    assert [panel.name for panel in training_curves([{"epoch": 1, "a": 1, "b": 2.0}], ["b", "c"])] == ["b"]
    twice = [{"step": i, "epoch": i // 2, "loss": 1.0} for i in range(4)]
    assert [panel.x for panel in training_curves(twice)] == ["step"]
    assert training_curves([]) == []


def test_training_and_validation_share_a_panel_and_keep_their_style():
    log = [
        {"step": e, "epoch": e, "split": split, "loss": e + (split == "train"), name: 0.5}
        for e in (1, 2, 3)
        for split, name in (("train", "learning_rate"), ("validation", "dice"))
    ]
    panels = {panel.name: panel for panel in training_curves(log)}
    assert panels["loss"].splits == ("train", "validation") and panels["loss"].styles == (0, 1)
    assert panels["dice"].splits == ("validation",) and panels["dice"].styles == (1,)
    assert "var(--first)" in panels["loss"].svg and "var(--second)" in panels["loss"].svg
    assert "var(--first)" not in panels["dice"].svg and "var(--second)" in panels["dice"].svg


def test_what_matters_first_comes_first():
    log = [{"step": 1, "zebra": 1.0, "malignant_auroc": 0.5, "dice": 0.5, "loss": 1.0, "loss_grading": 1.0}]
    panels = training_curves(log)
    assert [panel.name for panel in panels] == ["loss", "loss_grading", "dice", "malignant_auroc", "zebra"]
    assert [panel.is_first_look for panel in panels] == [True] * 4 + [False]


def test_the_line_has_the_points_of_the_log():
    log = [{"step": step, "split": "train", "loss": loss} for step, loss in ((0, 1.0), (10, 3.0), (40, 2.0))]
    (panel,) = training_curves(log)
    x, y = points(panel.svg).T
    # Equal up to a shift and a positive scale (the ordinate of SVG grows downwards).
    assert (x[1] - x[0]) / (x[2] - x[0]) == pytest.approx(0.25, abs=1e-3)
    assert (y[0] - y[2]) / (y[0] - y[1]) == pytest.approx(0.5, abs=1e-3) and y[0] > y[1]


def test_no_text_of_the_log_and_no_address_in_a_drawing():
    (panel,) = training_curves([{"step": 1, "split": HOSTILE, HOSTILE: 1.0}])
    assert panel.name == HOSTILE and "alert" not in panel.svg and "://" not in panel.svg


def test_ids_differ_between_drawings():
    panels = training_curves([{"step": i, "a": float(i), "b": 2.0 * i} for i in range(5)])
    found = [set(re.findall(r' id="([^"]*)"', str(panel.svg))) for panel in panels]
    assert not found[0] & found[1]


def test_values_of_one_curve():
    log = [{"step": 1, "split": "validation", "dice": 0.5}, {"step": 1, "dice": 0.7}, {"split": "validation"}]
    log += [{"step": 2, "split": "validation", "dice": None}, {"step": 3, "split": "validation", "dice": 0.6}]
    assert curve(log, "validation", "dice").tolist() == [0.5, 0.6] and curve(log, "train", "dice").tolist() == [0.7]
    assert curve([], "validation", "dice").tolist() == []
