"""Tasks as entries: measures against scikit-learn, and a task that a user adds, everywhere, without another file."""

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as judge

from thyroid_jax import model
from thyroid_jax.batch import Label
from thyroid_jax.config import Config, recipe_of, replace_groups
from thyroid_jax.data import pipeline
from thyroid_jax.data.record import Record
from thyroid_jax.predict import forward
from thyroid_jax.recipe import Task, TaskConfig
from thyroid_jax.settings import settings
from thyroid_jax.tasks import MEASURES, TASKS
from thyroid_jax.train import evaluate_step, init_state, train_step
from thyroid_jax.train.devices import by_jit, by_pmap
from thyroid_jax.train.optimizer import optimizer
from thyroid_jax.train.validation import validate

BY_NAME = {task.name: task for task in TASKS}


@pytest.fixture
def judged():
    """Thirty examples, some without label: probabilities, one-hot grades, flags, malignancy."""
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(4), 30)
    grade = np.eye(4)[rng.integers(4, size=30)]
    return probability, grade, rng.random(30) < 0.8, (rng.random(30) < 0.4).astype(float)


def test_grading_measures_are_scikit_learns(judged):
    probability, grade, where, _ = judged
    found = BY_NAME["grading"].measures(probability, grade, where)
    truth, chosen = grade[where].argmax(-1), probability[where].argmax(-1)
    assert found["accuracy"] == pytest.approx(judge.accuracy_score(truth, chosen))
    assert found["balanced_accuracy"] == pytest.approx(judge.balanced_accuracy_score(truth, chosen))
    assert found["quadratic_kappa"] == pytest.approx(judge.cohen_kappa_score(truth, chosen, weights="quadratic"))
    areas = [judge.roc_auc_score(truth == k, probability[where][:, k]) for k in range(4)]
    assert found["macro_auroc"] == pytest.approx(np.mean(areas))


def test_malignancy_and_guidance_measures_are_scikit_learns(judged):
    probability, _, where, malignant = judged
    found = BY_NAME["malignancy"].measures(probability[:, 0], malignant, where)
    truth, score = malignant[where] > 0.5, probability[where, 0]
    assert found["malignant_auroc"] == pytest.approx(judge.roc_auc_score(truth, score))
    assert found["malignant_balanced_accuracy"] == pytest.approx(judge.balanced_accuracy_score(truth, score > 0.5))
    predicted, target = probability, probability + np.random.default_rng(1).normal(size=(30, 4))
    expected = np.mean([judge.r2_score(target[where, k], predicted[where, k]) for k in range(4)])
    assert BY_NAME["guidance"].measures(predicted, target, where)["guidance_r2"] == pytest.approx(expected)


def test_dice_is_averaged_over_the_examples_with_an_outline():
    dice, where = np.array([0.5, 0.9, 0.1]), np.array([True, False, True])
    assert BY_NAME["segmentation"].measures(dice, np.zeros((3, 2, 2)), where) == {"dice": pytest.approx(0.3)}


def test_without_a_label_every_measure_is_undefined_and_none_fails(judged):
    probability, grade, where, malignant = judged
    nothing = np.zeros_like(where)
    for name, score, label in (
        ("segmentation", probability[:, 0], grade),
        ("grading", probability, grade),
        ("malignancy", probability[:, 0], malignant),
        ("guidance", probability, probability),
    ):
        found = BY_NAME[name].measures(score, label, nothing)
        assert found and all(np.isnan(value) for value in found.values())
        assert all(MEASURES[measure] == name for measure in found if measure in MEASURES)


def test_every_measure_to_choose_by_is_measured(judged):
    probability, grade, where, malignant = judged
    found = {}
    for name, score, label in (("segmentation", probability[:, 0], grade), ("grading", probability, grade),
                               ("malignancy", probability[:, 0], malignant)):  # fmt: skip
        found |= dict.fromkeys(BY_NAME[name].measures(score, label, where), name)
    assert found == MEASURES


# --- a task of a user's own: the composition that a report names, from its words --------------------------------------

WORDS = ("cystic", "mixed", "solid")


@settings
class CompositionConfig(TaskConfig):
    """Settings of the added task."""


@dataclass(frozen=True)
class ConfigWithComposition(Config):
    """The settings of a run, and the added task's."""

    composition: CompositionConfig = field(default_factory=CompositionConfig)


def composition_head(params, config, latent):
    pooled = latent.z.mean((1, 2))
    return nn.Dense(len(WORDS)).apply({"params": params["heads"]["composition"]}, pooled)


COMPOSITION = Task(
    name="composition",
    label=lambda batch: batch.extra["composition"].value,
    valid=lambda batch: batch.extra["composition"].valid,
    head=composition_head,
    loss=lambda logits, label, settings, fitted, where: jnp.where(
        where, -(label * jax.nn.log_softmax(jnp.where(where[:, None], logits, 0))).sum(-1), 0
    ),
    answer=lambda logits, settings: jax.nn.softmax(logits),
    score=lambda probability, label: probability,
    measures=lambda probability, label, where: {
        "composition_accuracy": float((probability.argmax(-1) == label.argmax(-1))[where].mean())
    },
)


def read_composition(record):
    word = record.descriptors.get("composition")
    return None if word is None else np.eye(len(WORDS), dtype=np.float32)[WORDS.index(word)]


def test_an_added_label_is_read_from_the_records(make_batch):
    image = np.random.default_rng(0).integers(1, 255, (16, 24), np.uint8)
    of = lambda case, **found: Record(case, case, case, image, mask=image > 128, grade=1, descriptors=found)
    records = [of("a", composition="solid"), of("b"), of("c", composition="cystic")]
    loaded = pipeline.load(records, 2, (16, 24), extra={"composition": read_composition})
    label = loaded.batch.extra["composition"]
    assert label.valid.tolist() == [True, False, True]
    np.testing.assert_array_equal(label.value, [[0, 0, 1], [0, 0, 0], [1, 0, 0]])
    batch = pipeline.take(loaded, [2, 0], 3)
    assert batch.extra["composition"].value.argmax(-1).tolist() == [0, 2, 0]
    assert batch.extra["composition"].valid.tolist() == [True, True, False]
    assert pipeline.load(records[1:2], 2, (16, 24), extra={"composition": read_composition}).batch.extra == {}


def test_measures_see_the_label_that_losses_and_scores_see():
    """A part's masks are kept as 8 bits; a label formed of them is in [0, 1] everywhere."""
    image = np.random.default_rng(0).integers(1, 255, (16, 24), np.uint8)
    loaded = pipeline.load([Record("a", "a", "a", image, mask=image > 128)], 2, (16, 24))
    task = Task(
        name="segmentation",
        label=lambda batch: batch.mask.mean((1, 2)),
        valid=lambda batch: batch.mask_valid,
        head=lambda params, config, latent: latent.z.mean((1, 2, 3)),
        loss=lambda prediction, share, settings, fitted, where: share,
        answer=lambda prediction, settings: prediction,
        score=lambda answer, share: share,
        measures=lambda scores, share, where: {"scored": float(scores[0]), "measured": float(share[0])},
    )
    recipe = recipe_of(replace_groups(Config(), model=model.PRESETS["tiny"]), tasks=(task,))
    found = validate(init_state(recipe, jax.random.key(0)).params, loaded, recipe, by_jit(jax.devices()[:1]), 1)
    expected = pytest.approx((image > 128).mean(), rel=1e-6)
    assert found["loss_segmentation"] == expected and found["scored"] == expected and found["measured"] == expected


@pytest.mark.parametrize("method", ["equal", "pcgrad"])
def test_an_added_task_is_trained_weighed_spread_validated_and_predicted(method, make_batch):
    """With its entry and its head alone: no other file knows of it."""
    angles = {"rlar": {"weight": 0.1}} if method == "equal" else {}
    tiny = {"model": model.PRESETS["tiny"], "malignancy": {"weight": 0.0}}
    config = replace_groups(ConfigWithComposition(), mtl={"method": method}, **tiny, **angles)
    recipe = recipe_of(config, tasks=(*TASKS, COMPOSITION))
    recipe = recipe.with_settings("rlar", tasks=("segmentation", "composition"))
    assert [task.name for task in recipe.tasks] == ["segmentation", "grading", "composition"]
    label = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]
    batch = make_batch(b=4)._replace(extra={"composition": Label(label, np.array([True, True, False, True]))})
    head = nn.Dense(len(WORDS)).init(jax.random.key(1), jnp.zeros((1, 8)))["params"]

    def fresh():
        state = init_state(recipe, jax.random.key(0))
        params = state.params | {"heads": state.params["heads"] | {"composition": jax.tree.map(jnp.array, head)}}
        fresh_moments = optimizer(recipe.settings["optimizer"], 0.0).init(params)
        return state._replace(params=params, opt_state=fresh_moments)

    state, metrics = train_step(fresh(), batch, recipe)
    assert float(metrics["loss_composition"].count) == 3
    if method == "pcgrad":
        assert "weight_composition" in metrics
    else:
        assert "latent_gradient_composition" in metrics
    moved = jnp.abs(state.params["heads"]["composition"]["kernel"] - head["kernel"]).max()
    assert float(moved) > 1e-6
    spread = by_pmap(jax.devices()[:2])
    _, also = spread.step(spread.put_state(fresh()), spread.put_batch(batch), recipe)
    np.testing.assert_allclose(also["loss_composition"].sum, metrics["loss_composition"].sum, rtol=1e-5)
    scores = evaluate_step(state.params, batch, recipe)["composition"]
    assert scores.shape == (4, 3)
    measured = COMPOSITION.measures(np.asarray(scores), label, np.asarray(batch.extra["composition"].valid))
    assert 0 <= measured["composition_accuracy"] <= 1
    np.testing.assert_allclose(forward(state.params, recipe, batch.image)["composition"], scores, rtol=1e-4, atol=1e-6)
