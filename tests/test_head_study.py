"""The study of heads: no label of a held-out fold is seen, its settings are those of a run, every image once a seed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import head_study as study
from thyroid_jax import runs
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.data.distort import DistortConfig, distort
from thyroid_jax.data.storage import open_records
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.evaluate.summary import summary
from thyroid_jax.fitting import class_weights
from thyroid_jax.model import Latent
from thyroid_jax.radiomics import clinical
from thyroid_jax.recipe import Fitted, measure_evidence

FIELDS = "--data.height 32 --data.width 32 --views 2 --steps 120 --batch-size 8 --samples 50 --seeds 0"


@pytest.fixture
def darkness(monkeypatch):
    """In place of an encoder's features: the darkness of the nodule, which the grades of drawn nodules follow."""

    def views(arguments, image, mask, cut):
        inside = np.where(mask > 127, image[..., 0] / 255, np.nan)
        features = np.nanmean(inside, axis=(1, 2))[:, None] ** np.arange(1, 9) * np.ones(9)[:, None, None] ** 2
        features = features[:1].repeat(arguments.views + 1, axis=0)
        rng = np.random.default_rng(0)
        levels = tuple(np.tile(features, (1, 1, width // 8)) for width in (40, 112, 320))
        levels = tuple((level + 0.01 * rng.normal(size=level.shape)).astype(np.float32) for level in levels)
        target = rng.normal(size=(*features.shape[:2], len(clinical.TARGET))).astype(np.float32)
        known = np.ones(target.shape, bool)
        return study.Views(levels, target, known, target + rng.normal(size=target.shape).astype(np.float32), known)

    monkeypatch.setattr(study, "views_of", views)


def arguments_of(drawn_data, **changes):
    data = replace_groups(Config(), data={"name": "drawn", "dir": str(drawn_data), "height": 32, "width": 32}).data
    return study.Arguments(data=data, views=2, steps=120, batch_size=8, seeds=(0,), **changes)


def opened(arguments):
    folds = study.open_folds(arguments.data)
    return folds, study.views_of(arguments, folds.batch.image, folds.batch.mask, 0.5)


def test_every_image_with_an_outline_is_predicted_once_beside_its_own_truth(drawn_data, darkness, tmp_path, capsys):
    command = (
        f"{FIELDS} --data.name drawn --data.dir {drawn_data} --out {tmp_path} --part test --variants default".split()
    )
    study.main([*command, "head-decay-10+averaged"])
    printed = capsys.readouterr().out
    assert printed.startswith("| measure | predictions | groups | default | head-decay-10+averaged |")
    card, every = open_records(drawn_data, "drawn")
    records = {record.case: record for record in every if record.mask is not None}
    for variant in ("default", "head-decay-10+averaged"):
        cases = read_cases(tmp_path / "test" / f"{variant}.csv")
        assert sorted(case.case for case in cases) == sorted(records)
        for case in cases:
            record = records[case.case]
            assert case.group == record.group and case.malignant_truth == record.malignant
            assert case.grade_truth == ("" if record.grade is None else card.grades[record.grade])
        assert summary(cases, samples=50)["malignant_auroc"]["value"] > 0.9


@pytest.mark.parametrize("part", ["test", "validation"])
def test_predictions_do_not_depend_on_labels_of_their_own_fold(drawn_data, darkness, part):
    arguments = arguments_of(drawn_data, part=part)
    folds, views = opened(arguments)
    config = study.config_of(arguments, "default")
    before = study.trained_answers(config, folds, views, arguments)
    labels, of_fold_0 = folds.batch, folds.fold == 0
    swapped = labels._replace(
        malignant=np.where(of_fold_0, 1 - labels.malignant, labels.malignant),
        grade=np.where(of_fold_0[:, None], labels.grade[:, ::-1], labels.grade),
    )
    after = study.trained_answers(config, folds._replace(batch=swapped), views, arguments)
    predictions = [
        {(case.case, case.part): (case.p_malignant, tuple(case.probability.values())) for case in cases}
        for cases in (study.cases_of(found, folds, arguments) for found in (before, after))
    ]
    did_not_train_on_it = {
        "fold0-seed0",
        "fold4-seed0",
    }  # fold 0 is held out by one, and the validation fold of the other
    assert {cell for _, cell in predictions[0]} > did_not_train_on_it
    for (case, cell), values in predictions[0].items():
        assert (values == predictions[1][case, cell]) == (cell in did_not_train_on_it)


def test_the_parts_are_those_of_a_run(drawn_data, darkness):
    arguments = arguments_of(drawn_data)
    folds, _ = opened(arguments)
    for held in range(5):
        parts = runs.open_parts(replace_groups(Config(data=arguments.data), data={"fold": held}))
        names = lambda part: {record.case for record in part if record.mask is not None}
        of_fold = lambda fold: {r.case for r, place in zip(folds.records, folds.fold) if place == fold}
        assert names(parts.test) == of_fold(held)
        assert names(parts.validation) == of_fold(study.validation_of(held, 5))


def test_what_is_fitted_is_of_the_training_images_alone(drawn_data, darkness):
    arguments = arguments_of(drawn_data)
    folds, views = opened(arguments)
    training = folds.fold > 1
    config = study.config_of(arguments, "guidance")
    recipe = study.recipe_for(config, folds, views, training)
    assert [task.name for task in recipe.tasks] == ["grading", "malignancy", "guidance"]
    graded = folds.batch.grade[training & folds.batch.grade_valid]
    np.testing.assert_array_equal(recipe.fitted.class_weights, class_weights(graded, config.grading.balance))
    target = views.target.copy()
    target[:, ~training] += 100
    target[0] += 100  # the plain view is not trained on
    again = study.recipe_for(config, folds, views._replace(target=target), training)
    jax.tree.map(np.testing.assert_array_equal, again.fitted, recipe.fitted)


def test_guidance_learns_the_target_and_measured_evidence_is_read_from_the_moved_outline(drawn_data, darkness):
    arguments = dataclasses.replace(arguments_of(drawn_data), steps=3)
    folds, views = opened(arguments)
    backwards = lambda values: np.concatenate([values[:1], values[:0:-1]])  # among views: the fitted scaling stays
    changed = {name: views._replace(**{name: backwards(getattr(views, name))}) for name in ("target", "measured")}
    for variant, read, task in (("guidance", "target", "guidance"), ("measured", "measured", "grading")):
        config = study.config_of(arguments, variant)
        found = study.trained_answers(config, folds, views, arguments)[task]
        for name, seen in changed.items():
            same = np.array_equal(study.trained_answers(config, folds, seen, arguments)[task], found)
            assert same == (name != read)


def test_measured_evidence_is_that_of_a_training_step(drawn_data, monkeypatch):
    """Cut from the moved outline: measured on its soft edge, the first four values would be others than in a run."""
    flat_latent = lambda params, config, image: Latent(
        jnp.ones((len(image), 1, 1, 4)), (jnp.ones((len(image), 2, 2, 4)),) * 4
    )
    monkeypatch.setattr(study.model, "encode", flat_latent)
    monkeypatch.setattr(study.pretrained, "load", lambda *_: ({}, ""))
    arguments = dataclasses.replace(arguments_of(drawn_data), views=0)
    batch = study.open_folds(arguments.data).batch
    image, mask = batch.image[: study.CHUNK], batch.mask[: study.CHUNK]
    views = study.views_of(arguments, image, mask, 0.25)
    recipe = recipe_of(Config(), fitted=Fitted.neutral(5, len(clinical.TARGET))._replace(mask_cut=np.float32(0.25)))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 0), 1)
    moved = distort(key, mask / np.float32(255), DistortConfig())
    expected = np.asarray(measure_evidence(image / np.float32(255), moved, recipe))
    values, defined = np.split(expected, 2, axis=1)
    np.testing.assert_array_equal(views.defined[0], defined > 0)
    assert defined.any()
    np.testing.assert_allclose(np.clip(views.measured[0], -3, 3) * defined, values, rtol=1e-3, atol=1e-4)


def test_an_unknown_variant_and_a_single_fold_are_refused(drawn_data, capsys):
    for more, message in ((["--variants", "focal"], "'focal' does not exist"), (["--data.fold", "1"], "every fold")):
        with pytest.raises(SystemExit):
            study.main([*FIELDS.split(), "--data.name", "drawn", "--data.dir", str(drawn_data), *more])
        assert message in " ".join(capsys.readouterr().err.split())
