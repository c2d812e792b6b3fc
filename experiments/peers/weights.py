"""Parameters of the project's model by the names, and in the layout, of the PyTorch twin; random ones; random batches.

A kernel [h w in out] becomes ``weight`` [out in h w], a matrix [in out] ``weight`` [out in], a scale ``weight``. This
file needs NumPy alone, and both processes of the benchmark import it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

CLASSIFIERS = {"classify": "grade", "malignant": "malignant"}
"""head in the project -> its name in the twin"""


def torch_names(params: Mapping[str, Any], blocks: int) -> dict[tuple[str, ...], str]:
    """Path of every array in the project's tree of parameters -> name in the twin's ``state_dict``.

    ``blocks`` are the model's residual blocks per level (``ModelConfig.blocks``), which the decoder's names depend on.
    Raises ValueError for a path that the twin has no place for.
    """
    last = {kind: max(_number(name) for name in params["decoder"] if name.startswith(kind)) for kind in _DECODER}
    return {path: _torch_name(path, blocks, last) for path, _ in _leaves(params)}


def to_torch(params: Mapping[str, Any], blocks: int) -> dict[str, np.ndarray]:
    """The parameters as NumPy arrays by the twin's names, in its layout."""
    names = torch_names(params, blocks)
    return {names[path]: _torch_layout(np.asarray(leaf), path[-1]) for path, leaf in _leaves(params)}


def from_torch(arrays: Mapping[str, np.ndarray], like: Mapping[str, Any], blocks: int) -> dict[str, Any]:
    """The project's tree of parameters from the twin's arrays. ``like`` is a tree of that structure and shapes.

    Raises ValueError where a name is missing or left over, or a shape differs.
    """
    names = torch_names(like, blocks)
    if set(names.values()) != set(arrays):
        odd = sorted(set(names.values()) ^ set(arrays))
        raise ValueError(f"the weights and the model differ in {', '.join(odd)}.")
    tree: dict[str, Any] = {}
    for path, leaf in _leaves(like):
        array = _project_layout(np.asarray(arrays[names[path]]), path[-1])
        if array.shape != tuple(leaf.shape):
            raise ValueError(f"{names[path]} has the shape {array.shape}; the model needs {tuple(leaf.shape)}.")
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = array
    return tree


def random_params(like: Mapping[str, Any], seed: int = 0) -> dict[str, Any]:
    """Random float32 parameters of the shapes of ``like``: kernels normal / sqrt(fan in), scales near 1, biases near 0.

    No array is constant, so that no two parameters can be exchanged unnoticed.
    """
    rng, tree = np.random.default_rng(seed), {}
    for path, leaf in _leaves(like):
        noise = rng.standard_normal(leaf.shape, np.float32)
        spread = 0.1 if len(leaf.shape) < 2 else 1 / math.sqrt(math.prod(leaf.shape[:-1]))
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = (np.float32(path[-1] == "scale") + np.float32(spread) * noise).astype(np.float32)
    return tree


def random_batch(b: int, h: int, w: int, grades: int, *, seed: int = 0, missing: bool = False) -> dict[str, np.ndarray]:
    """Noise images with a brighter ellipse, its mask, a grade and a malignancy label, float32, channels first.

    With ``missing``, some examples lack labels, and the last example pads the batch.
    """
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    centre = rng.uniform(-0.2, 0.2, (2, b, 1, 1))
    mask = (((y - centre[0]) / 0.5) ** 2 + ((x - centre[1]) / 0.6) ** 2 < 1).astype(np.float32)
    image = np.clip(0.2 + 0.2 * mask + 0.2 * rng.random((b, h, w), np.float32), 0, 1)[:, None]
    place = np.arange(b)
    valid = {name: np.ones(b, bool) for name in ("mask_valid", "grade_valid", "malignant_valid", "example_valid")}
    if missing:
        valid["mask_valid"], valid["grade_valid"] = place % 5 != 1, place % 4 != 2
        valid["malignant_valid"], valid["example_valid"] = place % 3 != 0, place < max(b - 1, 1)
    grade = np.eye(grades, dtype=np.float32)[rng.integers(grades, size=b)]
    return {"image": image, "mask": mask, "grade": grade, "malignant": (place % 2).astype(np.float32), **valid}


# --- names ------------------------------------------------------------------------------------------------------------

_DECODER = ("Conv", "Normalize")
_BLOCK = {"Normalize_0": "norm1", "Conv_0": "conv1", "Normalize_1": "norm2", "Conv_1": "conv2", "Conv_2": "shortcut"}
_ENCODER = {"Conv_0": "stem", "Normalize_0": "norm"}
_EMBED = {"Dense_0": "hidden", "Dense_1": "out"}
_CLASSIFY = {"Dense_0": "out", "Dense_1": "hidden"}  # flax numbers layers as they are made: here the last comes first


def _torch_name(path: tuple[str, ...], blocks: int, last: Mapping[str, int]) -> str:
    """One array's name; ``last`` are the highest numbers of the decoder's convolutions and normalisations."""
    kind = "bias" if path[-1] == "bias" else "weight"
    match path[:-1]:
        case ("encoder", name) if name in _ENCODER:
            return f"encoder.{_ENCODER[name]}.{kind}"
        case ("encoder", name, part) if name.startswith("ResidualBlock_") and part in _BLOCK:
            return f"encoder.blocks.{_number(name)}.{_BLOCK[part]}.{kind}"
        case ("decoder", name) if name.startswith("Conv_"):
            level, place = divmod(_number(name), 2 + blocks)
            part = ["reduce", "skip", *(f"convs.{block}" for block in range(blocks))][place]
            return f"decoder.{'logits' if _number(name) == last['Conv'] else f'levels.{level}.{part}'}.{kind}"
        case ("decoder", name) if name.startswith("Normalize_"):
            level, place = divmod(_number(name), 1 + blocks)
            part = ["skip_norm", *(f"norms.{block}" for block in range(blocks))][place]
            return f"decoder.{'norm' if _number(name) == last['Normalize'] else f'levels.{level}.{part}'}.{kind}"
        case ("heads", "embed", "pool_0", "norm"):
            return f"embed.norm.{kind}"
        case ("heads", "radiomics", "Dense_0"):
            return f"radiomics.{kind}"
        case ("heads", "embed", layer) if layer in _EMBED:
            return f"embed.{_EMBED[layer]}.{kind}"
        case ("heads", head, layer) if head in CLASSIFIERS and layer in _CLASSIFY:
            return f"{CLASSIFIERS[head]}.{_CLASSIFY[layer]}.{kind}"
    raise ValueError(f"the twin has no place for the parameter {'/'.join(path)}: it knows the default model alone.")


def _number(name: str) -> int:
    found = re.fullmatch(r"[A-Za-z]+_(\d+)", name)
    if found is None:
        raise ValueError(f"the twin has no place for the parameter {name}.")
    return int(found[1])


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and array of every leaf of nested dictionaries, in sorted order."""
    for key, value in sorted(tree.items()):
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value


def _torch_layout(array: np.ndarray, kind: str) -> np.ndarray:
    if kind != "kernel":
        return array
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def _project_layout(array: np.ndarray, kind: str) -> np.ndarray:
    if kind != "kernel":
        return array
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)
