"""Settings of a run: what a person can ask for, what contradicts itself, and the named configs of the papers."""

import dataclasses
import json
import math
import typing

import pytest

from experiments.configs import METHODS, OPTIONS, SIZES, named
from thyroid_jax.config import NOT_IN_THE_STEP, Config, recipe_of, replace_groups
from thyroid_jax.data.augment import AugmentConfig
from thyroid_jax.data.pipeline import DataConfig
from thyroid_jax.errors import InputError
from thyroid_jax.model import PRESETS, ModelConfig, NetworkConfig
from thyroid_jax.mtl.config import MTLConfig
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.penalties import PENALTIES, RLARConfig
from thyroid_jax.recipe import Fitted
from thyroid_jax.settings import from_dict, to_dict
from thyroid_jax.tasks import MEASURES, TASKS, SegmentationConfig
from thyroid_jax.train.loop import TrainConfig

EVERYTHING = [[size, method] for size in SIZES for method in ("plain", "rlar_guidance")]
EVERYTHING += [["tiny", method] for method in METHODS]
EVERYTHING += [["small", "plain", *(("lite0", option) if option == "frozen" else (option,))] for option in OPTIONS]


@pytest.mark.parametrize("names", EVERYTHING, ids="-".join)
def test_every_named_config_survives_json(names):
    config = named(names)
    back = from_dict(Config, json.loads(json.dumps(to_dict(config), allow_nan=False)))
    assert back == config and hash(back) == hash(config)
    for group in dataclasses.fields(Config):
        assert type(getattr(back, group.name)) is type(getattr(config, group.name))


def test_a_published_encoder_needs_weights_and_no_other_takes_them():
    with pytest.raises(InputError, match=r"efficientnet_lite0 is not meant to start at random.*encoder_weights"):
        replace_groups(Config(), model={"encoder": "efficientnet_lite0"})
    with pytest.raises(InputError, match="the encoder residual has no published weights"):
        replace_groups(Config(), train={"encoder_weights": "package"})
    both = replace_groups(Config(), model={"encoder": "resnet18"}, train={"encoder_weights": "resnet18.safetensors"})
    assert from_dict(Config, to_dict(both)) == both


def test_options_add_up_in_any_order_and_each_is_given_once():
    both = named(["nodule", "small", "lite0", "plain", "measured"])
    assert both == named(["measured", "lite0", "nodule", "plain"])
    assert (both.model.encoder, both.train.encoder_weights) == ("efficientnet_lite0", "package")
    assert (both.model.pooling, both.model.pooled_levels, both.model.evidence) == ("nodule", 3, "measured")
    with pytest.raises(InputError, match="an option once"):
        named(["nodule", "nodule"])
    with pytest.raises(InputError, match="options are lite0"):
        named(["lite1"])
    with pytest.raises(InputError, match="two ways to pool"):
        named(["nodule", "attention"])


@pytest.mark.parametrize("option", ["nodule", "measured"])
def test_heads_that_read_the_outline_need_the_outline_as_a_task(option):
    with pytest.raises(InputError, match=r"segmentation.weight is 0: nothing would teach the outline"):
        named(["only_grading", option])


@pytest.mark.parametrize("method", ["pcgrad", "gradnorm", "cosreg"])
def test_methods_that_change_the_encoder_refuse_one_that_is_wholly_frozen(method):
    named(["uncertainty", "lite0", "frozen"])
    partly = named([method, "lite0"])
    assert replace_groups(partly, model={"frozen_levels": 4}).model.frozen_levels == 4
    with pytest.raises(InputError, match="all levels of the encoder are frozen"):
        named([method, "lite0", "frozen"])


def test_rates_of_a_published_encoder_are_refused_for_another():
    with pytest.raises(InputError, match="slow a published encoder"):
        replace_groups(Config(), optimizer={"encoder_rate": 0.1})


def test_numbers_that_would_change_nothing_are_refused():
    with pytest.raises(InputError, match=r"Set model\.evidence measured"):
        replace_groups(Config(), distort={"shift": 0.5})
    replace_groups(Config(), model={"evidence": "measured"}, distort={"shift": 0.5})
    with pytest.raises(InputError, match=r"data\.split_seed is 3"):
        DataConfig(split="folds.json", split_seed=3)
    assert DataConfig(split="folds.json", split_seed=3, share=0.5).split_seed == 3  # it draws the share
    for penalty in PENALTIES:
        with pytest.raises(InputError, match=f"{penalty.name}.warmup is 1: a share of all steps"):
            replace_groups(Config(), **{penalty.name: {"warmup": 1.0}})


def test_nothing_that_follows_from_the_data_is_an_option():
    fields = {name: set(vars(getattr(Config(), name))) for name in vars(Config())}
    for group, field in (("model", "grades"), ("model", "radiomics"), ("grading", "class_weights"),
                         ("guidance", "centre"), ("consistency", "centre"), ("train", "total_steps")):  # fmt: skip
        assert field not in fields[group]


def test_without_a_name_it_is_plain_and_the_methods_switch_on_what_they_say():
    on = lambda config: {name for name in ("guidance", *[p.name for p in PENALTIES]) if getattr(config, name).weight}
    assert on(Config()) == on(named(["plain"])) == set()
    assert on(named(["guidance"])) == {"guidance"} and on(named(["rlar"])) == {"rlar"}
    assert on(named([])) == on(named(["base"])) == on(named(["rlar_guidance"])) == {"guidance", "rlar"}
    assert on(named(["consistency"])) == {"consistency"} and on(named(["cosreg"])) == {"cosreg"}
    for method in [*SCALARIZERS, *WEIGHERS]:
        if method != "equal":
            assert named([method]).mtl.method == method and on(named([method])) == set()
    assert named(["only_grading"]).segmentation.weight == named(["only_grading"]).malignancy.weight == 0
    assert named(["tiny", "pcgrad"]).model.width == PRESETS["tiny"]["width"]
    assert named(["base"]).model.dtype == "bfloat16"


@pytest.mark.parametrize("names, message", [
    (["huge"], "'huge' does not exist; sizes are small"),
    (["small", "base"], "one size and one method"),
    (["plain", "rlar"], "one size and one method"),
])  # fmt: skip
def test_names_that_do_not_go_together_are_refused(names, message):
    with pytest.raises(InputError, match=message):
        named(names)


ILLEGAL = [
    (NetworkConfig, "width", 0), (NetworkConfig, "depth", 0), (DataConfig, "height", 0), (DataConfig, "folds", 2),
    (DataConfig, "fold", 5), (DataConfig, "fold", -1), (DataConfig, "split_seed", -1), (DataConfig, "share", 0.0),
    (DataConfig, "share", 1.1), (AugmentConfig, "flip", 1.5),
    (AugmentConfig, "scale", 1.0), (AugmentConfig, "rotate", -1.0), (SegmentationConfig, "dice", -0.5),
    (TrainConfig, "batch_size", 0), (TrainConfig, "epochs", 0), (TrainConfig, "evaluate_every", 0),
    (TrainConfig, "diagnose_every", -1), (TrainConfig, "monitor", "loss"), (RLARConfig, "ramp", -0.1),
    (RLARConfig, "weight", math.inf),
]  # fmt: skip


@pytest.mark.parametrize("group, field, value", ILLEGAL, ids=lambda value: str(value))
def test_an_illegal_value_is_named(group, field, value):
    with pytest.raises(InputError, match=rf"\.{field} is"):
        group(**{field: value})


def test_the_limits_themselves_are_allowed():
    assert AugmentConfig(flip=1.0, scale=0.9, blur=0.0).scale == 0.9
    assert DataConfig(folds=3, fold=2, height=1).fold == 2
    assert RLARConfig(weight=0.0, ramp=1.0, margin=-1.0).margin == -1
    assert TrainConfig(epochs=1, batch_size=1, seed=0).epochs == 1


CONTRADICTIONS = [
    ({"segmentation": {"weight": 0.0}, "grading": {"weight": 0.0}, "malignancy": {"weight": 0.0}}, "all 0"),
    ({"segmentation": {"weight": 0.0}}, r"train\.monitor is 'dice', but segmentation\.weight is 0"),
    ({"grading": {"weight": 0.0}, "malignancy": {"weight": 0.0}, "mtl": {"method": "nash_mtl"}}, "two tasks at least"),
    ({"grading": {"weight": 0.0}, "malignancy": {"weight": 0.0}, "cosreg": {"weight": 0.1}}, "two tasks at least"),
    (
        {"malignancy": {"weight": 0.0}, "consistency": {"weight": 0.1}},
        "consistency compares the outline with the malig",
    ),
    ({"grading": {"weight": 0.0}, "rlar": {"weight": 1.0}}, r"rlar\.tasks names grading, whose weight is 0"),
    ({"rlar": {"weight": 1.0, "tasks": ("segmentation", "density")}}, r"rlar\.tasks names 'density'; choose of"),
    ({"segmentation": {"bce": 0.0, "dice": 0.0}}, r"segmentation\.bce and segmentation\.dice are both 0"),
    ({"mtl": {"method": "uncertainty", "at": "parameters"}}, "uncertainty compares no gradients"),
    ({"mtl": {"at": "parameters"}}, "equal compares no gradients"),
]


@pytest.mark.parametrize("groups, message", CONTRADICTIONS, ids=lambda value: "" if isinstance(value, str) else None)
def test_what_contradicts_itself_is_refused(groups, message):
    with pytest.raises(InputError, match=message):
        replace_groups(Config(), **groups)


def test_methods_that_compare_gradients_may_compare_those_of_the_parameters():
    for method in ("gradnorm", "pcgrad"):
        assert MTLConfig(method=method, at="parameters").compares_gradients


def test_every_method_is_offered_and_every_task_and_penalty_has_its_settings():
    offered = typing.get_args(typing.get_type_hints(MTLConfig)["method"])
    assert set(offered) == {*SCALARIZERS, *WEIGHERS} and len(offered) == len(set(offered))
    groups = set(vars(Config()))
    assert {entry.name for entry in [*TASKS, *PENALTIES]} <= groups
    assert set(MEASURES.values()) <= {task.name for task in TASKS}


def test_a_recipe_holds_what_is_on_and_nothing_of_data_or_length():
    config = replace_groups(Config(), malignancy={"weight": 0.0}, rlar={"weight": 1.0}, model=PRESETS["tiny"])
    recipe = recipe_of(config, grades=3)
    assert [task.name for task in recipe.tasks] == ["segmentation", "grading"]
    assert [penalty.name for penalty in recipe.penalties] == ["rlar"]
    assert recipe.model == ModelConfig.preset("tiny", grades=3, radiomics=13)
    assert not set(NOT_IN_THE_STEP) & set(recipe.settings)
    assert recipe.settings["rlar"] == config.rlar
    assert recipe.fitted.class_weights.tolist() == [1, 1, 1] and float(recipe.fitted.total_steps) == 0
    own = Fitted.neutral(3, 13, total_steps=5.0)
    assert recipe_of(config, grades=3, fitted=own).fitted is own


def test_groups_of_a_recipe_can_be_changed():
    recipe = recipe_of(Config()).with_settings("rlar", kind="square")
    assert recipe.settings["rlar"].kind == "square" and Config().rlar.kind == "hinge"


def test_presets_can_be_changed_and_are_checked():
    assert ModelConfig.preset("tiny", grades=3).grades == 3
    with pytest.raises(InputError, match="'huge' does not exist; choose one of tiny, small, base"):
        ModelConfig.preset("huge")
    with pytest.raises(InputError, match=r"model\.radiomics is 17"):
        ModelConfig.preset("tiny", radiomics=17)
