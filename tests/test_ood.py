"""How unlike the training images an image is: the distance against its formula, percentiles against what they promise,
and pictures of another kind against pictures of the same kind.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predicted_runs import fresh_run
from sklearn.covariance import ledoit_wolf

from data_prep.phantom import PhantomOptions, read
from thyroid_jax import model
from thyroid_jax.data.pipeline import letterbox
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError
from thyroid_jax.runs import ood

NAN = (float("nan"), float("nan"))


def normal(count, d=6, seed=0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d))
    return rng.normal(size=(count, d)) @ mixing + np.arange(d)


def test_the_distance_is_mahalanobis_with_ledoit_and_wolfs_covariance():
    training, others = normal(40), normal(5, seed=1)
    reference = ood.fitted(training, normal(30, seed=2))
    scaled = (training - training.mean(0)) / training.std(0)
    covariance, shrinkage = ledoit_wolf(scaled, assume_centered=True)
    assert 0 < shrinkage < 1
    z = (others - training.mean(0)) / training.std(0)
    expected = [np.sqrt(row @ np.linalg.solve(covariance, row) / 6) for row in z]
    np.testing.assert_allclose(ood.distance(reference, others), expected, rtol=1e-9)


def test_percentiles_of_images_of_the_same_kind_are_uniform():
    reference = ood.fitted(normal(2000), normal(2000, seed=1))
    percentiles = ood.percentile(reference, ood.distance(reference, normal(4000, seed=2)))
    for level in (10, 50, 90, 99):
        assert (percentiles < level).mean() == pytest.approx(level / 100, abs=0.03)
    assert np.median(ood.distance(reference, normal(4000, seed=2))) == pytest.approx(1, abs=0.1)
    assert ood.percentile(reference, ood.distance(reference, normal(50) + 30)).min() == 100


def test_the_percentile_of_a_tie_is_its_middle():
    reference = ood.fitted(normal(10), normal(10, seed=1))._replace(validation=np.array([1.0, 2, 2, 3]))
    found = ood.percentile(reference, np.array([0.5, 1, 1.5, 2, 3, 4]))
    np.testing.assert_array_equal(found, [0, 12.5, 25, 50, 87.5, 100])


@given(st.integers(2, 12), st.integers(2, 5), st.integers(1, 30), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_few_images_of_many_and_constant_statistics_give_finite_distances(training, validation, d, seed):
    x = np.random.default_rng(seed).normal(size=(training + validation, d))
    x[:, 0] = 3.0
    reference = ood.fitted(x[:training], x[training:])
    assert np.isfinite(ood.distance(reference, x)).all() and (np.diff(reference.validation) >= 0).all()


def test_what_cannot_be_measured_is_refused():
    for training, validation in ((1, 5), (5, 1), (0, 5)):
        with pytest.raises(ValueError, match="at least 2 of each"):
            ood.fitted(normal(training), normal(validation))
    reference = ood.fitted(normal(5), normal(5))
    with pytest.raises(ValueError, match="not finite"):
        ood.distance(reference, np.full((1, 6), np.nan))


@pytest.fixture(scope="module")
def run(tiny_recipe):
    return fresh_run(tiny_recipe())


@pytest.fixture(scope="module")
def phantoms():
    return list(read(PhantomOptions(count=60, size=(48, 64)), Notes()))


@pytest.fixture(scope="module")
def reference(run, phantoms):
    return ood.fit(run, [phantoms[:20], phantoms[20:30]], phantoms[30:45])


def test_statistics_are_means_and_deviations_of_the_finer_levels(run):
    images = [np.random.default_rng(seed).integers(0, 256, (30, 50)).astype(np.uint8) for seed in range(3)]
    found = ood.features_of(run, images, [NAN] * 3, batch_size=2)
    small = np.stack([letterbox(image, (24, 32), NAN) for image in images])[..., None] / np.float32(255)
    latent = model.encode(run.params, run.recipe.model, small)
    levels = [np.asarray(level, np.float64) for level in (*latent.skips, latent.z)]
    assert len(levels) == 2  # of which the finer one is read
    expected = np.concatenate([levels[0].mean((1, 2)), np.log(levels[0].std((1, 2)) + 1e-3)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_noise_and_inverted_pictures_are_further_than_phantoms(run, phantoms, reference):
    images = [record.image for record in phantoms[45:]]
    rng = np.random.default_rng(0)
    kinds = {
        "same": images,
        "noise": [rng.integers(0, 256, image.shape).astype(np.uint8) for image in images],
        "inverted": [255 - image for image in images],
        "flat": [np.full_like(image, 90) for image in images],
    }
    found = {name: np.array(ood.measure([run], [reference], some, [NAN] * 15)) for name, some in kinds.items()}
    assert np.median(found["same"][:, 1]) < 95 and np.median(found["same"][:, 0]) < 2
    for name in ("noise", "inverted", "flat"):
        assert found[name][:, 0].min() > found["same"][:, 0].max(), name
        assert (found[name][:, 1] == 100).all()


def test_several_runs_give_their_mean_and_none_gives_nothing(run, reference, phantoms):
    images = [phantoms[50].image, phantoms[51].image]
    wider = reference._replace(spread=reference.spread * 2)
    alone = [np.array(ood.measure([run], [one], images, [NAN] * 2)) for one in (reference, wider)]
    both = np.array(ood.measure([run, run], [reference, wider], images, [NAN] * 2))
    np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2)
    assert ood.measure([run], [], images, [NAN] * 2) == [(), ()]


def test_a_part_is_sampled_without_repetition(monkeypatch):
    monkeypatch.setattr(ood, "MOST_IMAGES", 5)
    parts = [["a", "b", "c"], ["d", "e", "f", "g"]]
    drawn = [part[row] for part, row in ood._drawn(parts)]
    assert len(drawn) == len(set(drawn)) == 5 and drawn == sorted(drawn)
    assert len(ood._drawn([["a", "b"]])) == 2


def test_too_few_images_are_said(run, phantoms):
    with pytest.raises(InputError, match="30 training and 1 validation images are too few"):
        ood.fit(run, [phantoms[:30]], phantoms[30:31])


def test_the_file_is_read_as_it_was_written_for_its_own_parameters_only(run, reference, tmp_path, tiny_recipe):
    assert ood.of_run(tmp_path, run) is None
    ood.write(tmp_path / ood.FILE, reference)
    found = ood.of_run(tmp_path, run)
    for one, other in zip(found, reference, strict=True):
        np.testing.assert_array_equal(one, other)
    assert ood.of_run(tmp_path, fresh_run(tiny_recipe(), seed=1)) is None
    said = ood.describe([found])
    assert said[0]["training_images"] == 30 and said[0]["validation_images"] == 15
    assert "add --ood" in ood.describe([])


def test_a_damaged_file_is_refused(run, reference, tmp_path):
    path = tmp_path / ood.FILE
    ood.write(path, reference)
    whole = path.read_bytes()
    np.savez(path, **(reference._asdict() | {"centre": np.array(["x"], object)}))
    pickled = path.read_bytes()
    ood.write(path, reference._replace(centre=reference.centre[:-1]))
    uneven = path.read_bytes()
    ood.write(path, reference._replace(spread=np.full_like(reference.spread, np.nan)))
    infinite = path.read_bytes()
    ood.write(path, reference._replace(spread=np.zeros_like(reference.spread)))
    without_spread = path.read_bytes()
    ood.write(path, reference._replace(validation=reference.validation[::-1]))  # its percentiles would be wrong
    unsorted = path.read_bytes()
    damaged = (b"", b"no archive", whole[: len(whole) // 2], pickled, uneven, infinite, without_spread, unsorted)
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"ood\.npz: .*remove the file"):
            ood.of_run(tmp_path, run)


def test_an_archive_that_unpacks_to_more_than_a_file_may_have_is_not_unpacked(reference, tmp_path, monkeypatch):
    path = tmp_path / "ood.npz"
    ood.write(path, reference._replace(precision=np.zeros((200, 200))))
    monkeypatch.setattr(ood, "_LARGEST_FILE", 100_000)
    assert path.stat().st_size < 100_000 < 200 * 200 * 8
    with pytest.raises(InputError, match="unpacks to more than 100000 bytes"):
        ood.read(path)
