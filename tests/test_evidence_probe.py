"""The probe: an image is predicted without its own fold's labels, and cases keep their truth."""

import numpy as np
import pytest

from experiments import evidence_probe
from experiments.evidence_probe import Arguments, predicted
from thyroid_jax.data.pipeline import DataConfig
from thyroid_jax.evaluate.cases import read_cases


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


def test_the_tables_hold_every_image_with_an_outline_once_with_its_own_truth(drawn_data, monkeypatch, tmp_path, capsys):
    brightness = lambda arguments, image, mask: {
        kind: (image[..., 0] * (mask > 0)).reshape(len(image), -1).sum(1, keepdims=True).astype(float)
        for kind in evidence_probe.KINDS
    }
    monkeypatch.setattr(evidence_probe, "evidence_of", brightness)
    data = DataConfig(name="drawn", dir=str(drawn_data), height=24, width=32)
    cases = evidence_probe.tables(Arguments(data=data))
    assert list(cases) == list(evidence_probe.KINDS)
    command = (
        f"--data.name drawn --data.dir {drawn_data} --data.height 24 --data.width 32 --samples 50 --out {tmp_path}"
    )
    evidence_probe.main(command.split())
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("| measure | predictions | groups | image | outline |")
    kept = read_cases(tmp_path / "outline.csv")
    assert [case.case for case in kept] == [case.case for case in cases["outline"]]
    assert len({case.case for case in kept}) == len(kept) > 20
    assert {case.malignant_truth for case in kept} == {True, False, None}
