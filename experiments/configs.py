"""Named settings for ``--config SIZE [METHOD] [OPTION ...]``; any field can still be changed on the command line.

A size sets the network, its input and the length of the training. A method sets what is minimised. An option changes
the encoder, what the heads read, or how the parameters are learned. The default size is ``small``, the default method
``rlar_guidance``, without an option. Each is a function from one config to another.

    python -m experiments.train --config base pcgrad --data.name ddti --data.dir data --run-dir runs/pcgrad
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from thyroid_jax.config import Config, replace_groups
from thyroid_jax.errors import InputError
from thyroid_jax.model import PRESETS
from thyroid_jax.mtl.scalarize import SCALARIZERS
from thyroid_jax.mtl.weigh import WEIGHERS
from thyroid_jax.short_help import short_help


def tiny(config: Config) -> Config:
    """A few thousand parameters at 32 x 32, trained within seconds, to try out a pipeline."""
    return replace_groups(
        config,
        model=PRESETS["tiny"],
        data={"name": "phantom", "height": 32, "width": 32},
        train={"epochs": 2, "evaluate_every": 1},
    )


def small(config: Config) -> Config:
    """A million parameters at 128 x 192, for two CPU cores."""
    return config


def demo(config: Config) -> Config:
    """Half a million parameters at 96 x 96 on phantoms with two simulated readers, as `make demo` runs it.

    The heads read the nodule: averaged over the image, the features of two phantoms hardly differ.
    """
    return replace_groups(
        config,
        model={"depth": 4, "pooling": "nodule", "pooled_levels": 3},
        data={"name": "phantom", "height": 96, "width": 96},
        optimizer={"learning_rate": 2e-3},
        train={"epochs": 24, "batch_size": 16, "evaluate_every": 4, "checkpoint_every": 4},
    )


def base(config: Config) -> Config:
    """21 million parameters at 256 x 384 in bfloat16, for one GPU or TPU core."""
    return replace_groups(
        config,
        model=PRESETS["base"] | {"dtype": "bfloat16"},
        data={"height": 256, "width": 384},
        optimizer={"learning_rate": 1e-3},
        train={"epochs": 150, "batch_size": 16},
    )


def plain(config: Config) -> Config:
    """Multitask training with equal weights, without guidance and without any penalty."""
    return config


def guidance(config: Config) -> Config:
    """Plain, with the radiomics guidance."""
    return replace_groups(config, guidance={"weight": 0.1})


def rlar(config: Config) -> Config:
    """Plain, with the angular penalty."""
    return replace_groups(config, rlar={"weight": 0.1})


def rlar_guidance(config: Config) -> Config:
    """Guidance and the angular penalty together: the method of the thyroid paper."""
    return rlar(guidance(config))


def consistency(config: Config) -> Config:
    """Plain, with the consistency of shape and malignancy: the method of the breast paper."""
    return replace_groups(config, consistency={"weight": 0.3})


def cosreg(config: Config) -> Config:
    """Plain, with CosReg."""
    return replace_groups(config, cosreg={"weight": 1.0})


def only(task: str) -> Callable[[Config], Config]:
    """Single-task training: every other task's weight is 0."""
    monitor = {"segmentation": "dice", "grading": "quadratic_kappa", "malignancy": "malignant_auroc"}

    def single_task(config: Config) -> Config:
        others = {name: {"weight": 0.0} for name in monitor if name != task}
        return replace_groups(config, train={"monitor": monitor[task]}, **others)

    return single_task


def weighed_by(method: str) -> Callable[[Config], Config]:
    """Plain, with a multitask method that weighs the losses or the gradients."""
    return lambda config: replace_groups(config, mtl={"method": method})


SIZES: dict[str, Callable[[Config], Config]] = {"small": small, "demo": demo, "base": base, "tiny": tiny}
METHODS: dict[str, Callable[[Config], Config]] = {
    "rlar_guidance": rlar_guidance,
    "plain": plain,
    "guidance": guidance,
    "rlar": rlar,
    "consistency": consistency,
    **{f"only_{task}": only(task) for task in ("segmentation", "grading", "malignancy")},
    **{method: weighed_by(method) for method in [*SCALARIZERS, *WEIGHERS] if method != "equal"},
    "cosreg": cosreg,
}


def nodule(config: Config) -> Config:
    """The heads read the last three levels of the encoder, averaged over the outline that the model sees."""
    return replace_groups(config, model={"pooling": "nodule", "pooled_levels": 3})


def attention(config: Config) -> Config:
    """The heads read the last three levels of the encoder, averaged with learned weights."""
    return replace_groups(config, model={"pooling": "attention", "pooled_levels": 3})


def measured(config: Config) -> Config:
    """The heads also read the radiomics target, measured on the outline."""
    return replace_groups(config, model={"evidence": "measured"})


def lite0(config: Config) -> Config:
    """EfficientNet-Lite0 with the ImageNet weights of its Python package, trained ten times slower than the rest."""
    return replace_groups(
        config,
        model={"encoder": "efficientnet_lite0"},
        optimizer={"encoder_rate": 0.1},
        train={"encoder_weights": "package"},
    )


def frozen(config: Config) -> Config:
    """The published encoder keeps its weights."""
    return replace_groups(config, model={"frozen_levels": 5})


def averaged(config: Config) -> Config:
    """Validation and prediction with an average of the parameters over 100 steps."""
    return replace_groups(config, optimizer={"average": 100})


def decayed(config: Config) -> Config:
    """The heads' weights decay 300 times as fast as the others, for few images."""
    return replace_groups(config, optimizer={"head_decay": 300.0})


OPTIONS: dict[str, Callable[[Config], Config]] = {
    "lite0": lite0,
    "frozen": frozen,
    "nodule": nodule,
    "attention": attention,
    "measured": measured,
    "averaged": averaged,
    "decayed": decayed,
}
KINDS = {"size": SIZES, "method": METHODS, "option": OPTIONS}


def named(names: Sequence[str]) -> Config:
    """The config of a size, a method and any options, in any order. Options are applied in their order here."""
    known = {name: kind for kind, entries in KINDS.items() for name in entries}
    for name in names:
        if name not in known:
            listed = "; ".join(f"{kind}s are {', '.join(entries)}" for kind, entries in KINDS.items())
            raise InputError(f"--config {name!r} does not exist; {listed}.")
    chosen = {kind: [name for name in entries if name in names] for kind, entries in KINDS.items()}
    if len(set(names)) < len(names) or len(chosen["size"]) > 1 or len(chosen["method"]) > 1:
        raise InputError(f"--config {' '.join(names)}: name one size and one method at most, and an option once.")
    if {"nodule", "attention"} <= set(names):
        raise InputError("--config: nodule and attention are two ways to pool; name one.")
    config = METHODS[(chosen["method"] or [DEFAULT_METHOD])[0]](SIZES[(chosen["size"] or ["small"])[0]](Config()))
    for name in chosen["option"]:
        config = OPTIONS[name](config)
    return config


C = TypeVar("C", bound=Config)
DEFAULT_METHOD = "rlar_guidance"


def parse(kind: type[C], argv: Sequence[str], *, prog: str, names: Sequence[str] | None = None) -> C:
    """Parse a script's arguments into ``kind``, a class that adds fields to :class:`Config`.

    The names after ``--config`` (or ``names``) give the defaults; the command line then changes single fields.
    ``--help`` prints the options that most runs need, ``--help-all`` all of them. Raises :class:`InputError` for an
    unknown name, and where :func:`refuse_unasked_penalties` does.
    """
    import tyro

    chosen, rest = chosen_names(argv)
    start = named(chosen if names is None else names)
    fields = {field.name: getattr(start, field.name) for field in dataclasses.fields(Config)}
    own = {field.name: _default(field) for field in dataclasses.fields(kind) if field.name not in fields}
    about = f"{kind.__doc__} --config SIZE [METHOD] [OPTION ...] chooses the defaults of all fields. "
    lists = " ".join(f"{kind.capitalize()}s: {', '.join(entries)}." for kind, entries in KINDS.items())
    default = kind(**own, **fields)
    if {"-h", "--help"} & set(rest):
        print(short_help(kind, default, prog, about=about + lists))
        raise SystemExit(0)
    rest = ["--help" if word == "--help-all" else word for word in rest]
    arguments = tyro.cli(kind, args=rest, prog=prog, description=about + lists, default=default)
    refuse_unasked_penalties(arguments, start, rest)
    return arguments


def chosen_names(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names after ``--config``, and the rest of the command line."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--config", nargs="+", default=[])
    chosen, rest = chooser.parse_known_args(argv)
    return chosen.config, rest


def settings_of(arguments: Config) -> Config:
    """The fields of :class:`Config` alone, from arguments that add fields to them."""
    return Config(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Config)})


def _default(field: Any) -> Any:
    import tyro

    if field.default is not dataclasses.MISSING:
        return field.default
    return tyro.MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()


def refuse_unasked_penalties(config: Config, start: Config, given: Sequence[str]) -> None:
    """Raise :class:`InputError` if ``--mtl.method`` would silently keep guidance or penalties of the named method.

    A baseline must not contain RLAR by accident. To combine them, the user gives the weight on the command line.
    """
    if config.mtl.method == start.mtl.method:
        return
    for name in ("rlar", "guidance", "consistency", "cosreg"):
        weight = getattr(config, name).weight
        given_by_user = any(word.split("=")[0].replace("_", "-") == f"--{name}.weight" for word in given)
        if weight and not given_by_user:
            raise InputError(
                f"mtl.method {config.mtl.method} together with {name}.weight {weight:g}, which you did not ask for: "
                f"take --config {config.mtl.method} for the baseline alone, or say --{name}.weight {weight:g} (or 0)."
            )
