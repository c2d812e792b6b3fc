"""The diagnosis agrees with gradients taken by hand, adds up over batches, and ignores padding."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax import model
from thyroid_jax.config import Config, ModelConfig, RLARConfig
from thyroid_jax.losses import rlar
from thyroid_jax.train import objective
from thyroid_jax.train.diagnose import BINS, diagnose
from thyroid_jax.train.log import RunLog, read_log
from thyroid_jax.train.loop import add_up, averages
from thyroid_jax.train.objective import task_losses

TINY = ModelConfig.preset("tiny", radiomics=11)
CONFIG = Config(model=TINY, rlar=RLARConfig(margin=0.1))
WEIGHTS = {"segmentation": 1.0, "grading": 1.0, "guidance": 0.1}


@pytest.fixture(scope="module")
def params():
    return model.init(jax.random.key(0), TINY)


def test_angles_of_both_spaces(params, make_batch):
    batch = make_batch(b=4)
    found = averages(add_up([jax.device_get(diagnose(params, batch, CONFIG))]))
    z, skips = model.encode(params, TINY, batch.image)
    tasks = {name: task for name, task in task_losses(params, skips, batch, CONFIG).items() if name != "guidance"}
    for space in ("channel", "full"):
        directions = rlar.adversarial_directions(tasks, z, space=space)
        s = np.asarray(rlar.cosines(directions.unit)[0])
        assert found[f"cosine_{space}"] == pytest.approx(s.mean(), rel=1e-3, abs=1e-6)
        assert found[f"cosine_size_{space}"] == pytest.approx(np.abs(s).mean(), rel=1e-3)
        assert found[f"cosine_above_margin_{space}"] == pytest.approx((s > 0.1).mean())
        expected = np.histogram(s, bins=np.linspace(-1, 1, BINS + 1))[0] / 4
        np.testing.assert_allclose(found[f"cosine_histogram_{space}"], expected, atol=1e-6)
        norm = np.asarray(directions.norm)
        assert found[f"latent_gradient_grading_{space}"] == pytest.approx(norm[1].mean(), rel=1e-3)
        assert found[f"latent_gradient_ratio_{space}"] == pytest.approx(
            np.log10(norm[0] / norm[1]).mean(), rel=1e-3, abs=1e-5
        )


def test_the_penaltys_share_and_the_encoders_gramian(params, make_batch):
    batch = make_batch(b=4)
    found = averages(add_up([jax.device_get(diagnose(params, batch, CONFIG))]))
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    def alone(name):
        groups = {
            other: dataclasses.replace(getattr(CONFIG, other), weight=WEIGHTS[other] * (other == name))
            for other in WEIGHTS
        }
        config = dataclasses.replace(CONFIG, rlar=RLARConfig(weight=0.0), **groups)
        return flat(jax.grad(lambda p: objective(p, batch, config)[0])(params)["encoder"])

    jacobian = np.stack([alone(name) for name in WEIGHTS])
    gram = jacobian @ jacobian.T
    np.testing.assert_allclose(
        [found[f"parameter_gradient_{name}"] for name in WEIGHTS], np.sqrt(np.diag(gram)), rtol=1e-3
    )
    cosine = gram[0, 1] / np.sqrt(gram[0, 0] * gram[1, 1])
    assert found["parameter_cosine_segmentation_grading"] == pytest.approx(cosine, rel=1e-2, abs=1e-4)
    spectrum = np.linalg.eigvalsh(gram / np.trace(gram))
    np.testing.assert_allclose([found[f"gramian_eigenvalue_{i}"] for i in (1, 2, 3)], spectrum, rtol=1e-2, atol=1e-6)

    z, skips = model.encode(params, TINY, batch.image)
    tasks = task_losses(params, skips, batch, CONFIG)
    probed = {name: tasks[name] for name in ("segmentation", "grading")}
    penalty = jax.grad(lambda z: rlar.angular_penalty(rlar.adversarial_directions(probed, z).unit, margin=0.1).mean())(
        z
    )
    both = jax.grad(lambda z: sum(WEIGHTS[name] * task(z).mean() for name, task in tasks.items()))(z)
    share = float(jnp.linalg.norm(penalty.ravel()) / jnp.linalg.norm(both.ravel()))
    assert found["penalty_share_channel"] == pytest.approx(share, rel=1e-2, abs=1e-5)


def test_it_does_not_matter_whether_the_training_has_a_penalty(params, make_batch):
    """Hold, reliability and weight belong to the training; what is diagnosed is the representation."""
    other = dataclasses.replace(
        CONFIG, rlar=RLARConfig(weight=0.0, margin=0.1, hold=("grading",), reliability=1.0, derivative="forward")
    )
    one, two = diagnose(params, make_batch(), CONFIG), diagnose(params, make_batch(), other)
    chex.assert_trees_all_close(one, two, rtol=1e-5, atol=1e-7)


def test_padding_and_missing_labels_do_not_count(params, make_batch):
    batch = make_batch(b=3)
    padded = jax.tree.map(lambda a: np.concatenate([a, np.zeros((2, *a.shape[1:]), a.dtype)]), batch)
    chex.assert_trees_all_close(diagnose(params, padded, CONFIG), diagnose(params, batch, CONFIG), rtol=1e-3, atol=1e-5)
    unlabelled = batch._replace(grade_valid=np.zeros(3, bool))
    found = diagnose(params, unlabelled, CONFIG)
    assert float(found["cosine_channel"].count) == 0
    chex.assert_tree_all_finite(found)


def test_sums_over_batches_keep_the_histogram_a_distribution(params, make_batch):
    total = averages(add_up([jax.device_get(diagnose(params, make_batch(seed=seed), CONFIG)) for seed in range(3)]))
    assert sum(total["cosine_histogram_channel"]) == pytest.approx(1)
    assert len(total["cosine_histogram_full"]) == BINS


def test_batches_without_a_common_label_can_be_logged(params, make_batch, tmp_path):
    unlabelled = make_batch()._replace(grade_valid=np.zeros(3, bool))
    found = averages(add_up([jax.device_get(diagnose(params, unlabelled, CONFIG))]))
    assert "cosine_histogram_channel" not in found
    RunLog(tmp_path, after=0).add({"split": "diagnosis", "step": 1, **found})
    (row,) = read_log(tmp_path / "log.jsonl")
    assert row["cosine_channel"] is None and row["parameter_gradient_segmentation"] > 0


def test_a_single_task_has_no_angles(params, make_batch):
    off = {name: dataclasses.replace(getattr(CONFIG, name), weight=0.0) for name in ("grading", "guidance", "rlar")}
    found = diagnose(params, make_batch(), dataclasses.replace(CONFIG, **off))
    assert set(found) == {"parameter_gradient_segmentation", "gramian_eigenvalue_1"}
