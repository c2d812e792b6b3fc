"""The probe: an image is predicted without its own fold's labels, and cases keep their truth."""

from functools import partial

import jax
import numpy as np
import pytest

from experiments import evidence_probe, train
from experiments.evidence_probe import Arguments, predicted
from thyroid_jax import model
from thyroid_jax.data.pipeline import letterbox
from thyroid_jax.data.storage import open_records
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.evaluate.summary import summary
from thyroid_jax.model.encoders import efficientnet
from thyroid_jax.predict import Prediction
from thyroid_jax.radiomics.clinical import TARGET
from thyroid_jax.runs import evaluation


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5))
    return features, np.eye(2)[(features[:, 0] > 0).astype(int)], np.arange(60) % 3


def test_scores_do_not_depend_on_the_labels_of_their_own_fold(drawn):
    features, labels, fold = drawn
    scores = predicted(features, labels, np.ones(60, bool), fold)
    assert ((scores[:, 1] > 0.5) == labels[:, 1]).mean() > 0.85
    swapped = np.where((fold == 1)[:, None], labels[:, ::-1], labels)
    again = predicted(features, swapped, np.ones(60, bool), fold)
    np.testing.assert_array_equal(again[fold == 1], scores[fold == 1])
    assert np.abs(again - scores)[fold != 1].min() > 0


def test_examples_without_a_label_are_predicted_and_teach_nothing(drawn):
    features, labels, fold = drawn
    known = np.arange(60) < 50
    scores = predicted(features, labels, known, fold)
    wrong = np.where(known[:, None], labels, 7.0)
    np.testing.assert_array_equal(predicted(features, wrong, known, fold), scores)
    assert np.isfinite(scores).all() and np.abs(scores[~known]).max() > 0


def test_a_missing_feature_is_the_mean_of_the_training_images(drawn):
    features, labels, fold = drawn
    holed = features.copy()
    holed[4, 0] = np.nan
    filled = features.copy()
    filled[4, 0] = np.delete(features, 4, axis=0)[np.delete(fold, 4) != fold[4], 0].mean()
    ours = predicted(holed, labels, np.ones(60, bool), fold)
    np.testing.assert_allclose(
        ours[fold == fold[4]], predicted(filled, labels, np.ones(60, bool), fold)[fold == fold[4]], rtol=1e-6
    )


def test_the_tables_hold_every_image_with_an_outline_once_beside_its_own_truth(
    drawn_data, monkeypatch, tmp_path, capsys
):
    """The feature is the nodule's darkness: grades of drawn nodules follow it, so a row's own truth is predicted."""

    def darkness(arguments, image, mask, cut, outlines):
        assert cut == 0.5 and outlines is None
        inside = np.where(mask > 127, image[..., 0].astype(float), np.nan)
        return {kind: np.nanmean(inside, axis=(1, 2))[:, None] ** np.arange(1, 4) for kind in evidence_probe.KINDS}

    monkeypatch.setattr(evidence_probe, "evidence_of", darkness)
    command = (
        f"--data.name drawn --data.dir {drawn_data} --data.height 24 --data.width 32 --samples 50 --out {tmp_path}"
    )
    evidence_probe.main(command.split())
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("| measure | predictions | groups | image | outline |")
    kept = {case.case: case for case in read_cases(tmp_path / "outline.csv")}
    card, every = open_records(drawn_data, "drawn")
    records = {record.case: record for record in every if record.mask is not None}
    assert set(kept) == set(records) and len(records) == 29
    for name, record in records.items():
        assert kept[name].group == record.group and kept[name].malignant_truth == record.malignant
        assert kept[name].grade_truth == ("" if record.grade is None else card.grades[record.grade])
    assert summary(list(kept.values()), samples=50)["malignant_auroc"]["value"] > 0.95
    for option in ("--data.fold 1", "--data.share 0.5", "--data.reader 0", "--data.also more"):
        with pytest.raises(SystemExit):
            evidence_probe.main([*command.split(), *option.split()])
        assert "every fold is predicted" in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def fold_runs(train_arguments, tmp_path_factory):
    """The runs of three folds, of one epoch."""
    folder = tmp_path_factory.mktemp("runs")
    for fold in (0, 1, 2):
        words = f"--data.folds 3 --data.fold {fold} --train.epochs 1 --train.evaluate-every 1".split()
        train.main(train_arguments(folder / f"fold{fold}", *words))
    return [folder / f"fold{fold}" for fold in (0, 1, 2)]


def probe_command(drawn_data, runs):
    data = f"--data.name drawn --data.dir {drawn_data} --data.height 24 --data.width 32 --data.folds 3 --samples 50"
    return [*data.split(), "--runs", *map(str, runs)]


def test_the_outline_of_an_image_is_that_of_the_run_that_holds_it_out(drawn_data, fold_runs, monkeypatch, capsys):
    seen = {}

    def kept(arguments, image, mask, cut, outlines):
        seen.update(image=image, outlines=outlines)
        values = outlines.reshape(len(outlines), -1)[:, : len(TARGET)].astype(float)
        return {"predicted": values, "target": values, "predicted_target": values}

    def marked(trained, records):
        """An outline that is the run's mark everywhere, so that it shows whose it is."""
        mark = 0.2 * (1 + trained.config.data.fold)
        return [
            (record, Prediction(np.full(record.image.shape, mark, np.float32), None, None, {})) for record in records
        ]

    monkeypatch.setattr(evidence_probe, "evidence_of", kept)
    monkeypatch.setattr("thyroid_jax.runs.folds.predicted", marked)
    evidence_probe.main(probe_command(drawn_data, fold_runs))
    printed = capsys.readouterr().out
    assert printed.startswith("| measure | predictions | groups | predicted |") and f"\n| {TARGET[0]} | " in printed
    held_by = {}
    for fold, run in enumerate(fold_runs):
        for record in evaluation.open_finished(run).parts.test:
            held_by[letterbox(record.image, (24, 32), record.spacing).tobytes()] = fold
    assert len(seen["image"]) == 29
    for image, outline in zip(seen["image"], seen["outlines"]):
        inside = letterbox_inside(image[..., 0])
        assert np.unique(outline[inside]).tolist() == [51 * (1 + held_by[image[..., 0].tobytes()])]
        assert not outline[~inside].any()


def letterbox_inside(image):
    """bool[h w]: the rows and columns of a letterboxed image that are not its border."""
    return (image.max(1) > 0)[:, None] & (image.max(0) > 0)[None]


def test_what_is_left_of_a_value_on_predicted_outlines():
    """Against counts by hand: pairs of a malignant and a benign image in their order, and a reversed ranking."""
    malignant, known = np.array([1, 1, 0, 0, 0, 1], bool), np.array([1, 1, 1, 1, 1, 0], bool)
    given = np.tile(np.array([5.0, 3.0, 4.0, 1.0, 2.0, 9.0])[:, None], len(TARGET))
    found = -given
    found[3, 1] = np.nan  # left out of both
    rows = evidence_probe.values_alone(given, found, malignant, known)
    assert [row[0] for row in rows] == list(TARGET)
    np.testing.assert_allclose(rows[0][1:], [-1, 5 / 6, 1 / 6])
    np.testing.assert_allclose(rows[1][1:], [-1, 3 / 4, 1 / 4])
    alike = evidence_probe.values_alone(given, found, malignant, malignant)
    assert np.isnan(alike[0][2]) and np.isnan(alike[0][3]) and alike[0][1] == -1
    constant = evidence_probe.values_alone(given, np.ones_like(given), malignant, known)
    assert np.isnan(constant[0][1]) and constant[0][2:] == (rows[0][2], 0.5)
    assert evidence_probe.table_of_values(rows[:1]).endswith(f"| {TARGET[0]} | -1.000 | 0.833 | 0.167 |")


@pytest.mark.parametrize("chosen, message", [
    ([0, 2], "are held out by no run"),
    ([0, 1, 2, 0], "both hold out"),
])  # fmt: skip
def test_each_image_needs_one_run_that_holds_it_out(drawn_data, fold_runs, capsys, chosen, message):
    with pytest.raises(SystemExit):
        evidence_probe.main(probe_command(drawn_data, [fold_runs[place] for place in chosen]))
    assert message in " ".join(capsys.readouterr().err.split())


def test_evidence_of_many_images_is_that_of_each(monkeypatch):
    """Across the border of two chunks, the last of which begins again."""
    narrow = partial(efficientnet.EfficientNetLite, width=0.3, depth=0.3)
    monkeypatch.setitem(model.ENCODERS, "efficientnet_lite0", narrow)
    shapes = narrow(model.ModelConfig(encoder="efficientnet_lite0"))
    params = shapes.init(jax.random.key(0), np.zeros((1, 32, 32, 1), np.float32))["params"]
    monkeypatch.setattr("thyroid_jax.model.pretrained.load", lambda *given: (params, ""))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (18, 32, 32, 1), np.uint8)
    mask = np.zeros((18, 32, 32), np.uint8)
    for place in range(18):
        mask[place, 4 : 16 + place % 8, 6:26] = 255
    assert not {"predicted", "predicted_target"} & set(evidence_probe.evidence_of(Arguments(), image, mask, 0.5))
    predicted_ones = np.uint8(np.where(mask > 0, 200, 90))  # the target is of the outline cut at one half
    every = evidence_probe.evidence_of(Arguments(), image, mask, 0.5, predicted_ones)
    np.testing.assert_allclose(every["predicted_target"], every["target"], rtol=1e-4, atol=1e-5)
    assert float(np.abs(every["predicted"] - every["outline"]).max()) > 1e-3
    single = evidence_probe.evidence_of(Arguments(), image[17:], mask[17:], 0.5)
    for kind in ("image", "outline", "target", "outline+target"):
        assert len(every[kind]) == 18
        np.testing.assert_allclose(every[kind][17], single[kind][0], rtol=1e-3, atol=1e-4)
    assert every["outline+target"].shape[1] == every["outline"].shape[1] + every["target"].shape[1]
    assert float(np.abs(every["outline"] - every["image"]).max()) > 1e-3
