"""A comparison's arguments from a file: the same as on the command line, and every fault named at once."""

import json

import pytest

from experiments import compare
from thyroid_jax.errors import InputError
from thyroid_jax.runs.grid_file import KINDS, read_grid
from thyroid_jax.runs.jobs import JobOptions
from thyroid_jax.settings import to_dict

GRID = {
    "methods": ["plain", "only_grading"],
    "config": "tiny",
    "data.name": ["one", "two"],
    "data": {"dir": "somewhere", "height": 24},
    "folds": [0, 1],
    "seeds": [0, 3],
    "train": {"epochs": 5, "batch_size": 4},
    "model.full_resolution": True,
    "optimizer.learning_rate": 0.001,
    "margin": {"dice": 0.02},
    "flip": True,
    "page": "no",
    "out": "runs/x",
}


def written(tmp_path, values):
    path = tmp_path / "grid.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def test_a_file_is_the_same_as_the_command_line(tmp_path):
    words = "--methods plain only_grading --config tiny --data.name one --data.dir somewhere --data.height 24"
    words += " --folds 0 1 --seeds 0 3 --train.epochs 5 --train.batch-size 4 --model.full-resolution"
    words += " --optimizer.learning-rate 0.001 --margin dice=0.02 --flip --page no --out runs/x"
    (by_hand,) = compare.studies(words.split())
    single = GRID | {"data.name": "one"}
    (by_file,) = compare.studies(["--grid", str(written(tmp_path, single))])
    assert by_file.arguments == by_hand.arguments
    assert by_file.cells == by_hand.cells and len(by_file.cells) == 8
    assert to_dict(by_file.cells[0].config)["train"]["epochs"] == 5


def test_several_data_sets_are_studies_with_a_folder_each(tmp_path):
    path = str(written(tmp_path, GRID))
    found = compare.studies(["--grid", path])
    assert [study.folder.as_posix() for study in found] == ["runs/x/one", "runs/x/two"]
    assert [study.cells[0].config.data.name for study in found] == ["one", "two"]
    assert found[1].cells[0].folder.as_posix() == "runs/x/two/plain-fold0-seed0"
    (alone,) = compare.studies(["--grid", path, "--data.name", "three"])
    assert alone.folder.as_posix() == "runs/x" and alone.arguments.data.name == "three"


def test_the_command_line_comes_after_the_file(tmp_path):
    path = str(written(tmp_path, GRID))
    found = compare.studies(["--grid", path, "--train.epochs", "9", "--seeds", "1", "--config", "small", "--no-flip"])
    assert found[0].arguments.train.epochs == 9 and found[0].arguments.seeds == (1,)
    assert not found[0].arguments.flip
    tiny, small = (compare.studies(["--grid", path, *more])[0].cells[0].config for more in ([], ["--config", "small"]))
    assert tiny.model.width < small.model.width


def test_methods_that_are_there_are_an_object_or_texts(tmp_path):
    values = {"out": "x", "runs": {"ours": ["a", "b"], "theirs": "c"}}
    assert read_grid(written(tmp_path, values)).words[-4:] == ["--runs", "ours=a", "b", "theirs=c"]
    assert read_grid(written(tmp_path, values | {"runs": ["ours=a", "b"]})).words[-3:] == ["--runs", "ours=a", "b"]


@pytest.mark.parametrize("change, said", [
    ({"method": ["plain"]}, "method: unknown field; did you mean methods?"),
    ({"train.epoch": 4}, "train.epoch: unknown field; did you mean train.epochs?"),
    ({"train": {"lr": 4}}, "train.lr: unknown field"),
    ({"nonsense_of_mine": 1}, "nonsense_of_mine: unknown field"),
    ({"methods": "plain"}, "methods: 'plain' is not a list of texts"),
    ({"methods": ["plain", 1]}, "methods: ['plain', 1] is not a list of texts"),
    ({"folds": [0, True]}, "folds: [0, True] is not whole numbers"),
    ({"folds": [0.5]}, "folds: [0.5] is not whole numbers"),
    ({"samples": "20"}, "samples: '20' is not a whole number"),
    ({"flip": "yes"}, "flip: 'yes' is not true or false"),
    ({"train.epochs": "5"}, "train.epochs: '5' is not a value of type int"),
    ({"train.epochs": True}, "train.epochs: True is not a value of type int"),
    ({"train.epochs": 0}, "train.epochs is 0; it must be at least 1"),
    ({"optimizer.learning_rate": None}, "optimizer.learning_rate: None is not a value of type float"),
    ({"model": 5}, "model: unknown field"),
    ({"data.name": []}, "data.name: name each data set once"),
    ({"data.name": ["a", "a"]}, "data.name: name each data set once"),
    ({"data.name": 3}, "data.name: 3 is not a value of type str"),
    ({"runs": {"a": []}}, "runs.a: [] is not a folder, or a list of folders"),
    ({"runs": {"a": [1]}}, "runs.a: [1] is not a folder"),
    ({"margin": {"dice": "0.1"}}, "margin.dice: '0.1' is not a number"),
    ({"margin": {"dice": True}}, "margin.dice: True is not a number"),
])  # fmt: skip
def test_unknown_fields_and_wrong_values_are_named(tmp_path, change, said):
    path = written(tmp_path, GRID | change)
    with pytest.raises(InputError) as refused:
        read_grid(path)
    assert f"{path}: cannot be used, mend these fields:" in str(refused.value) and f"  {said}" in str(refused.value)


def test_all_faults_are_named_at_once(tmp_path):
    with pytest.raises(InputError) as refused:
        read_grid(written(tmp_path, GRID | {"method": 1, "flip": 2, "train": {"epochs": "x"}}))
    assert len(str(refused.value).splitlines()) == 4


def test_a_field_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="seeds: is there twice"):
        read_grid(written(tmp_path, '{"seeds": [0], "seeds": [1], "out": "x"}'))


def test_a_setting_in_its_group_and_beside_it_is_there_twice(tmp_path):
    for values in ({"train.epochs": 5, "train": {"epochs": 80}}, {"data.name": ["a"], "data": {"name": "b"}}):
        name = next(iter(values))
        with pytest.raises(InputError, match=f"{name}: is there twice"):
            read_grid(written(tmp_path, values))


@pytest.mark.parametrize("text, said", [
    ("[]", "not an object"), ("{", "not valid JSON"), ('{"a": NaN}', "not valid JSON"),
])  # fmt: skip
def test_what_is_no_object_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read_grid(written(tmp_path, text))
    with pytest.raises(InputError, match="no such file"):
        read_grid(tmp_path / "none.json")


def test_faults_of_the_study_are_named_before_anything_is_trained(tmp_path):
    for change, said in (
        ({"config": "plain"}, "config 'plain' is not a size"),
        ({"methods": []}, "nothing to compare: name --methods, or --runs"),
        ({"methods": ["plain", "plain"]}, "--methods plain plain: name each once"),
        ({"seeds": [0, 0]}, "--seeds 0 0: name each once"),
        ({"margin": {"iou": 0.1}}, "margin of 'iou': it is not among the compared measures"),
        ({"measures": ["nice"]}, "measure 'nice' cannot be compared"),
        ({"samples": 0}, "--samples 0: it is at least 1"),
        ({"runs": {"plain": "x"}}, "plain is also a method of the grid"),
        ({"runs": {"other": "x"}}, "runs are of one data set"),
        ({"runs": {"a/b": "x"}}, "'a/b' cannot name a method"),
    ):
        with pytest.raises(InputError, match=said):
            compare.studies(["--grid", str(written(tmp_path, GRID | change))])


def test_every_own_option_of_the_comparison_can_stand_in_a_file():
    from dataclasses import fields

    from thyroid_jax.config import Config

    elsewhere = {field.name for kind in (Config, JobOptions) for field in fields(kind)}
    own = {field.name for field in fields(compare.Arguments)} - elsewhere
    assert own | {"config"} == set(KINDS)
