"""Every value of the guidance target on every second outline of cases 1-300 of DDTI survives a random training view."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_prep.readers import ddti
from experiments import target_study
from thyroid_jax.data.augment import AugmentConfig
from thyroid_jax.data.pipeline import load, measure
from thyroid_jax.data.record import Notes
from thyroid_jax.fitting import measure_views
from thyroid_jax.radiomics import clinical

PLACES = [os.environ.get("THYROID_JAX_DATA"), Path(__file__).parents[3] / "shared" / "data"]
SOURCE = next((Path(place) / "ddti" for place in PLACES if place and (Path(place) / "ddti" / "1.xml").is_file()), None)
pytestmark = pytest.mark.skipif(SOURCE is None, reason="no DDTI: set THYROID_JAX_DATA to the folder that holds ddti/")


@pytest.mark.parametrize("size", [(128, 192), (96, 96)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_value_survives_a_random_view(size, outlined):
    """Also at 96 x 96, where the smallest nodule has 69 pixels."""
    batch = load(outlined, len(ddti.CARD.grades), size, reader="reference").batch
    image, mask = batch.image[..., 0], batch.mask
    original = measure(image, mask)
    views = [measure_views(image, mask, AugmentConfig(), cut=0.5, seed=view) for view in range(2)]
    found = target_study.stability(original, views, np.array([record.group for record in outlined]))
    assert original[1].all()
    bound = np.where(["smoothed" in name for name in clinical.TARGET], 0.6, 0.8)
    assert (found.rank.mean(0) >= bound).all(), dict(zip(clinical.TARGET, found.rank.mean(0)))
    assert (np.abs(found.mean) < 0.3).all(), dict(zip(clinical.TARGET, found.mean))
    assert (found.clipped < 0.08).all(), dict(zip(clinical.TARGET, found.clipped))


@pytest.fixture(scope="module")
def outlined():
    return [record for record in ddti.read(SOURCE, Notes()) if record.mask is not None][::2]
