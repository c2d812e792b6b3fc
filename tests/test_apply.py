"""Several runs together: the mean of what each predicts, in one unit, of runs that fit together."""

import numpy as np
import pytest
from predicted_runs import fresh_run

from thyroid_jax import predict
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate.calibration import Calibration, Scaling
from thyroid_jax.predict import Prediction
from thyroid_jax.radiomics.clinical import Scaling as GuidanceScaling
from thyroid_jax.runs import apply

SCALING = Scaling("temperature", 2.0, 0.0, cases=30, groups=20, nll_before=1.0, nll_after=0.9)


@pytest.fixture(scope="module")
def runs(tiny_recipe):
    recipe = tiny_recipe(guidance={"weight": 0.1})
    centre, spread = np.arange(13, dtype=np.float32), np.linspace(1, 2, 13, dtype=np.float32)
    scaled = recipe.replace(fitted=recipe.fitted._replace(scaling=GuidanceScaling(centre, spread)))
    return [fresh_run(recipe), fresh_run(scaled, seed=1)]


@pytest.fixture
def loaded(runs, monkeypatch):
    """``apply.load`` gives the fresh runs by the name of the folder, with the calibration that it was given."""
    by_name = dict(zip("ab", runs))
    load = lambda run_dir, checkpoint, calibration: by_name[str(run_dir)[-1]]._replace(calibration=calibration)
    monkeypatch.setattr(apply, "load", load)


def test_all_runs_together_predict_the_mean_of_each(runs):
    image = np.random.default_rng(0).integers(0, 256, (31, 40)).astype(np.uint8)
    options = {"spacings": [(0.1, 0.2)], "batch_size": 2, "flip": True}
    first, second = (next(predict.predict(run, [image], **options)) for run in runs)
    (found,) = apply.apply(runs, [image], [(0.1, 0.2)], batch_size=2, flip=True)
    np.testing.assert_allclose(found.together.grades, (first.grades + second.grades) / 2, atol=1e-7)
    np.testing.assert_allclose(found.together.probability, (first.probability + second.probability) / 2, atol=1e-7)
    assert found.together.malignant == pytest.approx((first.malignant + second.malignant) / 2)
    own = second.answers["guidance"] * np.linspace(1, 2, 13) + np.arange(13)
    np.testing.assert_allclose(found.each[1].answers["guidance"], own, rtol=1e-6)
    np.testing.assert_allclose(
        found.together.answers["guidance"], (first.answers["guidance"] + own) / 2, rtol=1e-5, atol=1e-6
    )


def test_what_no_run_predicts_is_missing_in_the_mean():
    nothing = Prediction(None, None, None, {})
    assert apply.averaged([nothing, nothing]) == nothing
    assert apply.averaged([nothing, nothing._replace(malignant=0.5)]).malignant == 0.5


def test_runs_that_do_not_fit_together_are_refused(runs, loaded, monkeypatch):
    assert len(apply.load_all(["a", "b"])) == 2
    with pytest.raises(InputError, match=r"\./a: is named twice"):
        apply.load_all(["a", "b", "./a"])
    for fact, value in (("grades", ["x", "y"]), ("tasks", ["grading"]), ("grade_system", "Z"), ("target", ["q"])):
        other = runs[1]._replace(facts=runs[1].facts | {fact: value})
        monkeypatch.setattr(
            apply, "load", lambda run_dir, other=other, **_: other if str(run_dir)[-1] == "b" else runs[0]
        )
        with pytest.raises(
            InputError, match=rf"b: its {fact} \({'.'.join(value) if fact != 'grade_system' else 'Z'}\)"
        ):
            apply.load_all(["a", "b"])


def test_a_calibration_is_read_from_each_folder(tmp_path, runs, loaded):
    places = [tmp_path / "a", tmp_path / "b"]
    calibration = Calibration("validation", tuple("12345"), SCALING, None)
    for place in places:
        (place / "report").mkdir(parents=True)
    apply.write_calibration(places[0], runs[0], calibration)
    assert apply.calibration_in(places[0]) == calibration and apply.calibration_in(places[1]) is None
    with pytest.raises(InputError, match=r"b: has no report/calibration.json"):
        apply.load_all(places, calibrate=True)
    assert [run.calibration for run in apply.load_all(places)] == [None, None]
    apply.write_calibration(places[1], runs[0], calibration)
    with pytest.raises(InputError, match=r"b/report/calibration.json: was not fitted for these parameters"):
        apply.load_all(places, calibrate=True)
    apply.write_calibration(places[1], runs[1], calibration)
    assert [run.calibration for run in apply.load_all(places, calibrate=True)] == [calibration] * 2
    (places[1] / apply.CALIBRATION).write_text('{"part": 1}')
    with pytest.raises(InputError, match=r"b/report/calibration.json: expected the fields"):
        apply.load_all(places, calibrate=True)


def test_a_scaling_that_only_some_runs_have_is_used_for_none(tmp_path, runs, loaded, capsys):
    places = [tmp_path / "a", tmp_path / "b"]
    for place, run, malignant in zip(places, runs, (SCALING, None)):
        (place / "report").mkdir(parents=True)
        apply.write_calibration(place, run, Calibration("validation", tuple("12345"), SCALING, malignant))
    found = [run.calibration for run in apply.load_all(places, calibrate=True)]
    said = f"malignancy: uncalibrated in all runs, because {places[1]} has no scaling of it"
    assert capsys.readouterr().out == f"{said}\n"
    for own in found:
        assert own.malignant is None and own.grade == SCALING and own.remarks == (said,)
    assert apply.load_all(places[:1], calibrate=True)[0].calibration.malignant == SCALING
    assert capsys.readouterr().out == ""


def test_each_run_is_scaled_before_the_mean(runs):
    image = np.random.default_rng(1).integers(0, 256, (24, 32)).astype(np.uint8)
    calibration = Calibration("validation", tuple("12345"), SCALING, None)
    both = [run._replace(calibration=calibration) for run in runs]
    (found,) = apply.apply(both, [image], [(1.0, 1.0)])
    roots = [np.sqrt(next(predict.predict(run, [image])).grades.astype(float)) for run in runs]  # p^(1/T), T = 2
    np.testing.assert_allclose(found.together.grades, np.mean([root / root.sum() for root in roots], axis=0), atol=1e-6)


def test_the_digest_depends_on_every_run(runs):
    assert len(apply.digest(runs)) == 64
    assert len({apply.digest(runs), apply.digest(runs[:1]), apply.digest(runs[::-1])}) == 3
