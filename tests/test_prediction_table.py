"""The table of predictions: sizes of shapes that can be measured by hand, agreement, and what the columns mean."""

import inspect
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predicted_runs import fresh_run

from thyroid_jax.predict import Prediction
from thyroid_jax.radiomics import clinical
from thyroid_jax.runs import prediction_table as table
from thyroid_jax.runs.apply import Applied, averaged

UNKNOWN = (math.nan, math.nan)


@pytest.fixture(scope="module")
def run(tiny_recipe):
    return fresh_run(tiny_recipe(guidance={"weight": 0.1}))


def test_sizes_of_a_rectangle_with_a_speck():
    outline = np.zeros((40, 60), bool)
    outline[10:14, 20:32] = True
    outline[30, 5] = True  # a smaller part widens the box, not the diameter
    found = table.sizes(outline, (0.5, 0.25))
    assert found["outline_area_px"] == 49 and found["outline_area_mm2"] == pytest.approx(49 * 0.125)
    assert found["outline_parts"] == 2
    assert found["outline_height_mm"] == pytest.approx(21 * 0.5) and found["outline_width_mm"] == pytest.approx(27 / 4)
    assert found["outline_diameter_mm"] == pytest.approx(math.hypot(4 * 0.5, 12 * 0.25))
    assert list(found) == list(table.SIZES)


def test_the_diameter_of_a_disc_and_of_a_diagonal():
    rows, columns = np.ogrid[:200, :200]
    disc = (rows - 100) ** 2 + (columns - 100) ** 2 < 80**2
    assert table.diameter(disc, (0.1, 0.1)) == pytest.approx(16, rel=0.02)
    diagonal = np.eye(50, dtype=bool)  # pixels that share corners are one part
    assert table.sizes(diagonal, (1.0, 1.0))["outline_diameter_mm"] == pytest.approx(50 * math.sqrt(2))
    assert table.sizes(diagonal, (1.0, 1.0))["outline_parts"] == 1


@given(st.integers(0, 2**25 - 1), st.floats(0.05, 2), st.floats(0.05, 2))
@settings(max_examples=60, deadline=None)
def test_the_diameter_is_the_largest_distance_of_all_corners(bits, down, across):
    part = np.array([bits >> place & 1 for place in range(25)], bool).reshape(5, 5)
    part[2, 2] = True
    corners = np.argwhere(part)[:, None] + [[0, 0], [0, 1], [1, 0], [1, 1]]
    points = corners.reshape(-1, 2) * (down, across)
    largest = max(math.dist(one, other) for one in points for other in points)
    assert table.diameter(part, (down, across)) == pytest.approx(largest)


def test_without_outline_or_spacing_there_is_no_size():
    empty = table.sizes(np.zeros((4, 4), bool), (0.1, 0.1))
    assert empty["outline_area_px"] == empty["outline_area_mm2"] == empty["outline_parts"] == 0
    assert empty["outline_diameter_mm"] is empty["outline_height_mm"] is None
    unknown = table.sizes(np.ones((4, 4), bool), UNKNOWN)
    assert unknown["outline_area_px"] == 16 and unknown["outline_area_mm2"] is unknown["outline_width_mm"] is None


def prediction(share, grades=(0.2, 0.2, 0.2, 0.3, 0.1), malignant=0.5):
    probability = np.zeros((4, 4), np.float32)
    probability[1:3, : round(4 * share)] = 0.5
    return Prediction(probability, np.array(grades, np.float32), malignant, {"guidance": np.arange(13) / 2})


def test_a_row_of_two_runs(run):
    each = (prediction(0.5, malignant=0.4), prediction(1.0, (0.0, 0.0, 0.4, 0.5, 0.1), malignant=0.8))
    row = table.row_of(run, Applied(averaged(each), each), (0.5, 0.5), checks=("saturated",))
    assert row["grade"] == "4" and row["p_4"] == pytest.approx(0.4)
    assert row["grade_disagreement"] == pytest.approx(0.2)  # each 0.1, 0.1, 0.1, 0.1, 0 away from the mean: sum / 2
    assert row["p_malignant"] == pytest.approx(0.6) and row["p_malignant_sd"] == pytest.approx(0.2)
    assert row["outline_agreement"] == pytest.approx(2 * 4 / (4 + 8))
    assert row["outline_area_px"] == 4 and row["outline_area_mm2"] == 1  # the mean reaches 1/2 where both have 1/2
    assert row["guidance_elongation"] == 0.5
    assert row["quality"] == "saturated; outline touches the border"
    described = table.describe(run, 2, ood=True)
    assert set(row) | {"file", "frame", "remarks", "ood_distance", "ood_percentile"} == set(described)
    assert all(described.values())


def test_what_is_not_known_is_none_and_not_zero(run):
    each = (prediction(0.5),)
    row = table.row_of(run, Applied(averaged(each), each), UNKNOWN)
    assert row["outline_area_mm2"] is row["spacing_row_mm"] is row["spacing_column_mm"] is None
    assert row["outline_agreement"] is None  # one run agrees with nobody
    nothing = Prediction(None, None, None, {})
    alone = table.row_of(run, Applied(nothing, (nothing,)), UNKNOWN)
    assert set(alone) == {"quality", "spacing_row_mm", "spacing_column_mm"} and alone["quality"] == ""


def test_columns_depend_on_what_the_runs_were_trained_for(run):
    whole = list(table.describe(run, 1))
    assert whole[:4] == ["file", "frame", "grade", "p_1"] and "ood_percentile" not in whole
    outline_only = run._replace(facts=run.facts | {"tasks": ["segmentation"]})
    names = list(table.describe(outline_only, 3))
    assert names[:3] == ["file", "frame", "outline_area_px"] and "outline_agreement" in names
    assert not {"grade", "p_1", "p_malignant", "guidance_elongation", "grade_disagreement"} & set(names)
    assert "guidance_elongation" in whole and "guidance_elongation" not in table.brief(table.describe(run, 1))


def test_every_guidance_value_has_the_axis_that_its_definition_names(run):
    written = dict(re.findall(r'^    "(\w+)",  # ([\w ]+): ', inspect.getsource(clinical), re.MULTILINE))
    assert tuple(written) == clinical.TARGET
    assert {name: axis for name, (axis, _) in table.AXES.items()} == written
    described = table.describe(run, 1)
    for name, axis in written.items():
        said = "no axis of TI-RADS" if axis == "texture" else f"TI-RADS axis {axis}:"
        assert said in described[f"guidance_{name}"]
