"""The exported program: the prediction function lowered for several platforms, and its parameters as safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from thyroid_jax.model import Params
from thyroid_jax.model.weight_files import SAFETENSORS_TYPES
from thyroid_jax.predict import Trained, forward
from thyroid_jax.recipe import Recipe
from thyroid_jax.shapes import Array

Echo = Callable[[str], Any]
PLATFORMS = ("cpu", "cuda", "tpu")
"""platforms that a program is exported for by default"""
KNOWN_PLATFORMS = (*PLATFORMS, "rocm")
FIXED_BATCH = 8
"""batch size of a program whose batch cannot be symbolic"""


class Program(NamedTuple):
    """A lowered prediction function: ``exported`` by jax, its ``batch`` size (None: any), and where it was traced.

    ``forms_of`` names its operations of which this package has several forms, all with the same values, because no
    form is fast everywhere. With ``chosen_by_platform`` each platform runs its own; otherwise all run the form of
    ``traced_on``.
    """

    exported: Any
    batch: int | None
    traced_on: str
    forms_of: tuple[str, ...]
    chosen_by_platform: bool


def lower(trained: Trained, platforms: Sequence[str], echo: Echo = print) -> Program:
    """Lower ``(parameters, uint8[b h w 1]) -> answers`` (:func:`answers`) for ``platforms``, for every batch size b.

    Where a shape must be known, as a task of one's own may ask for, the batch is fixed to :data:`FIXED_BATCH` and
    ``echo`` is called with the reason.
    """
    from jax import export

    if not platforms or len(set(platforms)) < len(platforms) or set(platforms) - set(KNOWN_PLATFORMS):
        raise ValueError(
            f"platforms {tuple(platforms)}: name one or several of {', '.join(KNOWN_PLATFORMS)}, each once."
        )
    traced = jax.jit(answers(trained.recipe))
    parameters = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat_parameters(trained.params).items()
    }
    size = (trained.config.data.height, trained.config.data.width, 1)

    def lowered(rows: Any, batch: int | None) -> Program:
        image = jax.ShapeDtypeStruct((rows, *size), np.uint8)
        exported = export.export(traced, platforms=list(platforms))(parameters, image)
        operations = str(traced.trace(parameters, image).jaxpr)
        forms = ["depthwise convolutions"] if "name=depthwise" in operations else []
        forms += ["measured evidence"] if trained.recipe.model.evidence == "measured" else []
        return Program(exported, batch, jax.default_backend(), tuple(forms), "platform_index[" in operations)

    try:
        return lowered(export.symbolic_shape("b")[0], None)
    except Exception as error:  # of many types; a fault that has another cause is raised again by the next line
        program = lowered(FIXED_BATCH, FIXED_BATCH)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        echo(f"the batch size is fixed to {FIXED_BATCH}: with any other the program cannot be lowered ({reason})")
        return program


def answers(recipe: Recipe) -> Callable[[Mapping[str, Array], Array], dict[str, Array]]:
    """The function that is exported: (parameters by slash path, image uint8[b h w 1]) -> every trained task's answer.

    ``segmentation f32[b h w]``, ``grading f32[b k]`` and ``malignancy f32[b]`` are the probabilities of
    :func:`thyroid_jax.predict.forward`; ``guidance f32[b r]`` is in the target's own units: z * spread + centre.
    """
    scaling = recipe.fitted.scaling

    def prediction(parameters: Mapping[str, Array], image: Array) -> dict[str, Array]:
        found = forward(unflatten_dict(dict(parameters), sep="/"), recipe, image)
        if "guidance" in found:
            found |= {"guidance": found["guidance"] * scaling.spread[None] + scaling.centre[None]}
        return found

    return prediction


# --- parameters -------------------------------------------------------------------------------------------------------


def flat_parameters(params: Params) -> dict[str, np.ndarray]:
    """Parameters by slash path, such as ``heads/classify/Dense_0/kernel``, in the order of the paths.

    Raises ValueError for a tree that these paths cannot name: one with an empty branch or a slash in a name.
    """
    flat = flatten_dict(jax.device_get(params), keep_empty_nodes=True)
    if any("/" in name for path in flat for name in path) or not all(hasattr(leaf, "shape") for leaf in flat.values()):
        raise ValueError("the parameters have an empty branch or a slash in a name; slash paths cannot name them.")
    return {"/".join(path): flat[path] for path in sorted(flat)}


def safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A safetensors file: length of the header u64, header as JSON padded to 8 bytes, numbers, all little-endian.

    :func:`thyroid_jax.model.weight_files.read` gives the same arrays, bit for bit. Raises ValueError for a type that
    it does not know. Source: github.com/huggingface/safetensors.
    """
    kinds = {dtype: kind for kind, dtype in SAFETENSORS_TYPES.items()}
    header, parts, place = {}, [], 0
    for name, array in arrays.items():
        little = np.asarray(array).astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        if little.dtype not in kinds:
            raise ValueError(f"{name} is of type {array.dtype}; safetensors here holds {', '.join(SAFETENSORS_TYPES)}.")
        parts.append(little.tobytes())
        end = place + len(parts[-1])
        header[name] = {"dtype": kinds[little.dtype], "shape": list(array.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
