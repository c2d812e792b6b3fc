"""A run that starts from the parameters of another one: they are taken whole, on the same network, data and split."""

import re
import shutil
from pathlib import Path

import chex
import jax
import pytest
from helpers import change_settings

from experiments import train as train_script
from thyroid_jax import predict
from thyroid_jax.data import splits
from thyroid_jax.runs import start


@pytest.fixture
def train(train_arguments):
    """Train on "drawn" in this process: train(run_dir, "--more", "fields")."""
    return lambda run_dir, *more: train_script.main(train_arguments(run_dir, *more))


@pytest.fixture
def refused(train, capsys):
    """refused(run_dir, "--more", "fields"): the one message of a training that ends with status 2."""

    def message(run_dir, *more):
        with pytest.raises(SystemExit) as stop:
            train(run_dir, *more)
        assert stop.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return message


def test_a_finished_run_offers_to_go_on_and_the_offer_works(finished, tmp_path, train, refused, monkeypatch):
    first = tmp_path / "run"
    shutil.copytree(finished, first)
    offer = refused(first, "--train.epochs", "7").split("give the same command with ")[1].split()
    assert offer == f"--train.epochs 1 --train.start-from {first} --run-dir {first}-longer".split()
    longer, fit, began = Path(offer.pop()), start.fit, []
    seen = lambda given: began.append(jax.device_get(given[3].state))  # before the first step donates it
    monkeypatch.setattr(start, "fit", lambda *given, **more: seen(given) or fit(*given, **more))
    train(longer, *offer[:-1])
    before, after = (predict.load(run_dir, checkpoint="last") for run_dir in (first, longer))
    chex.assert_trees_all_equal(began[0].params, jax.device_get(before.params))
    assert int(began[0].step) == 0
    assert after.facts["start_from"] == predict.fingerprint(before) != predict.fingerprint(after)
    shutil.rmtree(first)  # it is needed for the first step only
    train(longer, *offer[:-1])
    assert predict.fingerprint(predict.load(longer, checkpoint="last")) == predict.fingerprint(after)


@pytest.mark.parametrize("more, message", [
    (["--model.width", "8"], r"another network: model.width \(4 there, 8 here\)"),
    (["--data.fold", "1"], "other data or on another split"),
    (["--data.share", "0.5"], "trained with data.share 1, and here it is 0.5"),
    (["--consistency.weight", "1"], r"heads/\S+: not in both runs, or of another shape"),
    (["--grading.kind", "corn"], "grading.kind is cross_entropy there and corn here"),
    (["--train.start-from", "nowhere"], "nowhere/config.json: no such file"),
], ids=["network", "fold", "share", "penalty", "kind", "folder"])  # fmt: skip
def test_an_unfit_start_is_refused_and_no_folder_is_made(finished, tmp_path, refused, more, message):
    text = refused(tmp_path / "new", "--train.start-from", str(finished), *more)
    assert re.search(message, text) and not (tmp_path / "new").exists()


def test_a_share_that_another_seed_drew_is_refused(finished, drawn_data, tmp_path, refused):
    """With a file of folds, `data.split_seed` draws the share alone: the split's digest does not tell them apart."""
    first = shutil.copytree(finished, tmp_path / "run")
    change_settings(first, data={"share": 0.5})
    words = f"--data.split {splits.folds_folder(drawn_data, 'drawn') / '5-0.json'} --data.share 0.5".split()
    text = refused(tmp_path / "new", "--train.start-from", str(first), *words, "--data.split-seed", "1")
    assert "data.split_seed 0, and here it is 1" in text and not (tmp_path / "new").exists()
