"""The function for notebooks: what it refuses, and that an image's prediction depends on nothing but the image."""

import math

import jax
import numpy as np
import pytest
from PIL import Image
from predicted_runs import SIZE, fresh_run

from thyroid_jax import model
from thyroid_jax.data.pipeline import letterbox, undo_letterbox
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.calibration import Calibration, Scaling
from thyroid_jax.predict import Prediction, calibrated, check_finite, check_spacing, fingerprint, load, predict

UNKNOWN = (math.nan, math.nan)


@pytest.fixture(scope="module")
def run(tiny_recipe):
    return fresh_run(tiny_recipe(guidance={"weight": 0.1}))


def pictures(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(1, 255, shape).astype(np.uint8) for shape in shapes]


GREY = pictures((20, 30))[0]


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (GREY / np.float32(255), r"float32\[20, 30\].*np.round\(image \* 255\).astype\(np.uint8\)"),
        (GREY / 255, r"float64\[20, 30\].*uint8 from 0 to 255"),
        (GREY.astype(np.uint16) * 257, r"uint16\[20, 30\].*image / 257"),
        (GREY.astype(np.int64), r"int64\[20, 30\].*uint8 from 0 to 255"),
        (GREY > 100, r"bool\[20, 30\].*a mask"),
        (np.dstack([GREY] * 3), r"uint8\[20, 30, 3\], a colour picture.*convert\('L'\)"),
        (np.dstack([GREY] * 4), r"a colour picture"),
        (GREY[..., None], r"uint8\[20, 30, 1\].*image\[\.\.\., 0\] of one channel"),
        (GREY[:0], r"\[0, 30\], without a pixel"),
        (Image.fromarray(GREY), r"of type Image.*np.asarray\(image\)"),
        (GREY.tolist(), r"of type list"),
        (GREY[0], r"one axis; a single picture is given as a list"),
    ],
)
def test_what_is_no_grey_picture_is_refused_with_advice_before_any_work(run, image, words):
    below_the_type_checker = getattr(predict, "__wrapped__", predict)
    with pytest.raises(ValueError, match=rf"image 1: .*{words}"):
        below_the_type_checker(run, [GREY, image])


def test_one_picture_without_a_list_is_refused(run):
    with pytest.raises(ValueError, match=r"image 0: has one axis; .* \[picture\]"):
        predict(run, GREY)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": -1}, "batch_size -1"),
        ({"spacings": []}, "0 spacings for 1 images"),
        ({"spacings": [(0.1, 0.1)] * 2}, "2 spacings for 1 images"),
        ({"spacings": [(0.0, 0.1)]}, "spacing 0: .*above 0"),
        ({"spacings": [(-0.1, 0.1)]}, "spacing 0: .*above 0"),
        ({"spacings": [(math.inf, 0.1)]}, "spacing 0: .*finite"),
        ({"spacings": [(math.nan, 0.1)]}, "spacing 0: .*unknown"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_any_work(run, options, words):
    with pytest.raises(ValueError, match=words):
        predict(run, [GREY], **options)


def test_a_spacing_has_two_sides():
    with pytest.raises(ValueError, match=r"here: \(1.0,\)"):
        check_spacing((1.0,), "here")
    check_spacing(UNKNOWN, "here")
    check_spacing((0.1, 2.0), "here")


def test_a_prediction_is_that_of_the_network_on_the_letterboxed_image(run):
    (image,), spacing = pictures((40, 31)), (0.1, 0.2)
    (found,) = predict(run, [image], spacings=[spacing])
    small = letterbox(image, SIZE, spacing)[None, ..., None].astype(np.float32) / 255
    outputs = jax.jit(model.apply, static_argnums=1)(run.params, run.recipe.model, small)
    outline = np.asarray(jax.nn.sigmoid(outputs.mask_logits))[0]
    np.testing.assert_allclose(found.probability, undo_letterbox(outline, image.shape, spacing), atol=1e-5)
    np.testing.assert_allclose(found.grades, jax.nn.softmax(outputs.grade_logits)[0], atol=1e-5)
    assert found.malignant == pytest.approx(float(jax.nn.sigmoid(outputs.malignant_logit)[0]), abs=1e-5)
    np.testing.assert_allclose(found.answers["guidance"], outputs.radiomics[0], atol=1e-4)


def test_an_image_is_predicted_alike_in_any_batch_and_place(run):
    images = pictures((24, 32), (60, 20), (7, 91), (33, 33), (1, 1))
    alone = [next(predict(run, [image], batch_size=3)) for image in images]
    together = list(predict(run, images, batch_size=3))
    assert [found.probability.shape for found in together] == [image.shape for image in images]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.probability, other.probability)
        np.testing.assert_array_equal(one.grades, other.grades)
        assert one.malignant == other.malignant


def test_an_array_of_frames_is_as_good_as_a_list(run):
    frames = np.stack(pictures((24, 30), (24, 30)))
    both = [[found.malignant for found in predict(run, given)] for given in (frames, list(frames))]
    assert both[0] == both[1] and len(both[0]) == 2


def test_no_image_gives_no_prediction(run):
    assert list(predict(run, [])) == []


def test_one_program_serves_images_of_all_shapes_and_the_last_batch(run, monkeypatch):
    traces = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *a: traces.append(1) or encode(*a))
    jax.clear_caches()
    list(predict(run, pictures((24, 32), (60, 20), (7, 91), (33, 33), (1, 1)), batch_size=2))
    list(predict(run, pictures((50, 32)), spacings=[(0.1, 0.3)], batch_size=2))
    assert len(traces) == 1


def test_flip_averages_over_the_mirror_image(run):
    (image,) = pictures((24, 32))
    plain, mirrored = (next(predict(run, [picture])) for picture in (image, image[:, ::-1].copy()))
    (both,) = predict(run, [image], flip=True)
    np.testing.assert_allclose(both.grades, (plain.grades + mirrored.grades) / 2, atol=1e-5)
    np.testing.assert_allclose(both.probability, (plain.probability + mirrored.probability[:, ::-1]) / 2, atol=1e-5)


def scaling(method, temperature, bias=0.0):
    return Scaling(method, temperature, bias, cases=30, groups=20, nll_before=1.0, nll_after=0.9)


def test_answers_that_are_not_finite_are_refused_and_are_no_first_grade(run):
    """The largest of NaN is the first grade, and an outline of NaN is empty: both look like a prediction."""
    broken = run._replace(params=jax.tree.map(lambda leaf: leaf * np.nan, run.params))
    with pytest.raises(InputError, match=r"the run's answers for .* are not finite.*diverged.*another"):
        next(predict(broken, [GREY]))
    (found,) = predict(run, [GREY])
    check_finite({"grading": np.array([[0.5, 0.5], [np.nan, np.nan]])}, 1)  # a row that only fills the batch up
    with pytest.raises(InputError, match="malignancy"):
        check_finite(found.answers | {"grading": found.grades[None], "malignancy": np.array([0.5, np.inf])}, 2)


def test_a_calibration_scales_the_probabilities_and_not_the_answers(run):
    (plain,) = predict(run, [GREY])
    with_one = run._replace(
        calibration=Calibration("validation", tuple("12345"), scaling("temperature", 2.0), scaling("platt", 2.0, 0.5))
    )
    (found,) = predict(with_one, [GREY])
    logits = np.log(plain.grades.astype(np.float64)) / 2
    np.testing.assert_allclose(found.grades, np.exp(logits) / np.exp(logits).sum(), atol=1e-6)
    logit = math.log(plain.malignant / (1 - plain.malignant))
    assert found.malignant == pytest.approx(1 / (1 + math.exp(-(logit / 2 + 0.5))), abs=1e-6)
    np.testing.assert_array_equal(found.answers["grading"], plain.answers["grading"])
    np.testing.assert_array_equal(found.probability, plain.probability)


def test_what_has_no_scaling_or_no_prediction_stays():
    one = Prediction(None, np.array([0.25, 0.75], np.float32), None, {})
    only_malignant = Calibration("validation", (), None, scaling("temperature", 2.0))
    assert calibrated(one, only_malignant) == one
    other = one._replace(grades=None, malignant=0.2)
    assert calibrated(other, only_malignant).malignant == pytest.approx(1 / 3)  # logit log(1/4), halved
    assert calibrated(other, Calibration("validation", ("a", "b"), scaling("temperature", 2.0), None)) == other


def test_a_run_is_read_only_as_it_is_asked_for(finished):
    with pytest.raises(ValueError, match="'newest': choose one of best, last"):
        load(finished, checkpoint="newest")
    other = Calibration("validation", ("a", "b"), scaling("temperature", 2.0), None)
    with pytest.raises(InputError, match="its grades are not those of the calibration, a b"):
        load(finished, calibration=other)
    with pytest.raises(InputError, match=r"config.json: no such file"):
        load(finished / "nowhere")
    own = Calibration("validation", ("low", "middle", "high"), scaling("temperature", 2.0), None)
    assert load(finished, calibration=own).calibration == own


def test_the_fingerprint_is_that_of_the_parameters(run, tiny_recipe):
    same = fresh_run(tiny_recipe(guidance={"weight": 0.1}))
    assert fingerprint(run) == fingerprint(same) and len(fingerprint(run)) == 64
    assert fingerprint(run) != fingerprint(fresh_run(tiny_recipe(guidance={"weight": 0.1}), seed=1))
