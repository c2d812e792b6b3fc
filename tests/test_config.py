"""Configs go to JSON and back unchanged; a wrong field is named, never guessed."""

import copy
import dataclasses
import json
import math
import typing

import pytest

from experiments.configs import CONFIGS
from thyroid_jax.config import (
    PRESETS,
    AugmentConfig,
    Config,
    ConsistencyConfig,
    DataConfig,
    GradingConfig,
    GuidanceConfig,
    ModelConfig,
    MTLConfig,
    OptimizerConfig,
    RLARConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from thyroid_jax.errors import InputError
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS


def variants():
    yield from (make() for make in CONFIGS.values())
    yield from (Config(model=preset) for preset in PRESETS.values())
    yield Config(
        grading=GradingConfig(kind="corn", class_weights=(0.5, 1.25, 1.0)),
        rlar=RLARConfig(tasks=("segmentation", "grading", "guidance"), kind="abs", margin=0.1, space="full"),
        mtl=MTLConfig(method="upgrad", at="parameters", cosreg=0.1),
        train=TrainConfig(total_steps=1234),
    )


@pytest.mark.parametrize("config", list(variants()))
def test_a_config_survives_json_and_is_a_static_argument(config):
    back = from_dict(Config, json.loads(json.dumps(to_dict(config), allow_nan=False)))
    assert back == config and hash(back) == hash(config) and back is not config
    for group in dataclasses.fields(Config):
        assert type(getattr(back, group.name)) is type(getattr(config, group.name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        back.train = TrainConfig()


def with_change(path, value):
    values = json.loads(json.dumps(to_dict(Config())))
    *groups, name = path.split(".")
    inner = values
    for group in groups:
        inner = inner[group]
    if value is KeyError:
        del inner[name]
    else:
        inner[name] = copy.deepcopy(value)
    return values


MISTYPED = [
    ("train.epochs", "sixty"),
    ("train.epochs", 1.5),
    ("train.epochs", True),
    ("train.epochs", None),
    ("model.full_resolution", 1),
    ("optimizer.learning_rate", "2e-3"),
    ("optimizer.learning_rate", False),
    ("data.name", 3),
    ("data.labels", "both"),
    ("data.labels", ["readers"]),
    ("rlar.kind", "cosine"),
    ("rlar.scale", "log"),
    ("rlar.hold", "segmentation"),
    ("mtl.method", "sgd"),
    ("rlar.tasks", "segmentation"),
    ("rlar.tasks", [1, 2]),
    ("grading.class_weights", ["1"]),
    ("augment", 3),
]
ILLEGAL = [
    ("model.width", 0),
    ("model.radiomics", 129),
    ("model.radiomics", 0),
    ("data.height", 0),
    ("data.folds", 2),
    ("data.fold", 5),
    ("data.fold", -1),
    ("data.split_seed", -1),
    ("augment.flip", 1.5),
    ("augment.scale", 1.0),
    ("augment.rotate", -1.0),
    ("segmentation.dice", -0.5),
    ("grading.weight", math.nan),
    ("guidance.beta", 0.0),
    ("guidance.weight", math.inf),
    ("rlar.tasks", ["segmentation"]),
    ("rlar.tasks", ["segmentation", "segmentation"]),
    ("rlar.tasks", ["segmentation", "grading", "grading"]),
    ("rlar.tasks", ["segmentation", "density"]),
    ("rlar.ramp", -0.1),
    ("rlar.weight", -1.0),
    ("rlar.every", 0),
    ("rlar.hold", ["guidance"]),
    ("rlar.hold", ["segmentation", "grading"]),
    ("mtl.cosreg", -1.0),
    ("train.diagnose_every", -1),
    ("optimizer.b1", 1.0),
    ("optimizer.learning_rate", -1e-3),
    ("train.batch_size", 0),
    ("train.epochs", 0),
    ("train.evaluate_every", 0),
]


@pytest.mark.parametrize("path, value", [*MISTYPED, *ILLEGAL])
def test_a_value_that_cannot_be_is_named(path, value):
    with pytest.raises(InputError, match=rf"{path}\b"):
        from_dict(Config, with_change(path, value))


@pytest.mark.parametrize("path", ["train", "train.epochs", "rlar.tasks"])
def test_a_missing_field_is_named_with_its_group(path):
    *group, name = path.split(".")
    with pytest.raises(InputError, match=rf"{'.'.join(['config', *group])}: .*missing fields \['{name}'\]"):
        from_dict(Config, with_change(path, KeyError))


@pytest.mark.parametrize("path", ["epochs", "train.epoch", "rlar.temperature"])
def test_an_unknown_field_is_named_with_its_group(path):
    *group, name = path.split(".")
    with pytest.raises(InputError, match=rf"{'.'.join(['config', *group])}: unknown fields \['{name}'\]"):
        from_dict(Config, with_change(path, 1))


@pytest.mark.parametrize("values", [None, [], "x", 3])
def test_what_is_no_group_is_refused_with_its_file(values):
    with pytest.raises(InputError, match=r"run/config\.json: expected a group of fields"):
        from_dict(Config, values, where="run/config.json")


def test_a_whole_number_stands_for_a_float():
    config = from_dict(Config, with_change("optimizer.weight_decay", 0))
    assert config.optimizer == OptimizerConfig(weight_decay=0.0) and type(config.optimizer.weight_decay) is float


def test_the_consistency_needs_both_tasks_and_its_own_means():
    with pytest.raises(InputError, match="consistency compares the outline with the grade"):
        Config(
            consistency=ConsistencyConfig(weight=0.1), grading=GradingConfig(weight=0.0), rlar=RLARConfig(weight=0.0)
        )
    with pytest.raises(InputError, match=r"consistency\.centre has 3 values for 4 features"):
        ConsistencyConfig(centre=(0.1, 0.2, 0.3))
    with pytest.raises(InputError, match=r"guidance\.centre has 2 values and guidance\.spread 1"):
        GuidanceConfig(centre=(0.1, 0.2), spread=(1.0,))


def test_presets_can_be_changed_and_are_checked():
    assert ModelConfig.preset("tiny", grades=3) == dataclasses.replace(PRESETS["tiny"], grades=3)
    with pytest.raises(InputError, match="'huge' does not exist; choose one of tiny, small, base"):
        ModelConfig.preset("huge")
    with pytest.raises(InputError, match=r"model\.radiomics is 17"):
        ModelConfig.preset("tiny", radiomics=17)


def test_the_limits_themselves_are_allowed():
    assert AugmentConfig(flip=1.0, scale=0.9, blur=0.0).scale == 0.9
    assert DataConfig(folds=3, fold=2, height=1).fold == 2
    assert RLARConfig(weight=0.0, ramp=1.0, margin=-1.0).margin == -1
    assert TrainConfig(epochs=1, batch_size=1, seed=0).epochs == 1


def test_every_method_is_offered():
    offered = typing.get_args(typing.get_type_hints(MTLConfig)["method"])
    assert set(offered) == {*SCALARIZERS, *WEIGHERS} and len(offered) == len(set(offered))


def without(*tasks, **groups):
    weights = {name: dataclasses.replace(getattr(Config(), name), weight=0.0) for name in tasks}
    return Config(**({"rlar": RLARConfig(weight=0.0)} | weights | groups))


def test_what_contradicts_itself_is_refused():
    with pytest.raises(InputError, match="all 0"):
        without("segmentation", "grading", "guidance")
    with pytest.raises(InputError, match=r"rlar\.tasks names grading, whose weight is 0.*rlar\.weight 0"):
        without("grading", rlar=RLARConfig(weight=1.0))
    for method in (MTLConfig(cosreg=0.1), MTLConfig(method="nash_mtl")):
        with pytest.raises(InputError, match=r"mtl compares two tasks.*mtl\.method equal and mtl\.cosreg 0"):
            without("grading", "guidance", mtl=method)
    with pytest.raises(InputError, match=r"rlar\.kind square has no margin"):
        RLARConfig(kind="square", margin=0.3)
    assert without("guidance", rlar=RLARConfig(weight=1.0)).guidance.weight == 0
