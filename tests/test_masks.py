"""Every public function of a mask refuses values that are no mask's, such as 0 and 255, where it can see them."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.data import augment, distort
from thyroid_jax.evaluate import metrics
from thyroid_jax.evaluate.calibration import pixels
from thyroid_jax.losses import consistency, segmentation
from thyroid_jax.masks import check_mask
from thyroid_jax.radiomics import clinical, soft

MASK = np.zeros((2, 8, 8), np.float32)
MASK[0, 2:6, 3:7] = 1.0
OTHERS = {
    "logits": jnp.zeros((2, 8, 8)),
    "image": jnp.full((2, 8, 8, 1), 0.5),
    "key": jax.random.key(0),
    "predicted": MASK[0] > 0,
    "tolerance": 2.0,
    "spacing": (1.0, 1.0),
}


def functions(module, *names):
    """The public functions of a module with an argument of these names that holds the values of pixels."""
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if not name.startswith("_") and function.__module__.startswith(module.__name__):
            for argument, kind in inspect.signature(function).parameters.items():
                if argument in names and ("h w" in str(kind.annotation) or "ndarray" in str(kind.annotation)):
                    yield pytest.param(function, argument, id=f"{function.__module__.split('.')[-1]}.{name}")


SOFT = [
    found
    for module in (segmentation, consistency, soft, clinical, augment, distort)
    for found in functions(module, "target", "probability", "mask")
]
BINARY = [*functions(metrics.outlines, "reference", "mask"), *functions(pixels, "reference")]


def call(function, argument, mask):
    """The function with ``mask`` as that argument, and plain values for the others that it needs."""
    given = OTHERS | {"config": (distort.DistortConfig if function is distort.distort else augment.AugmentConfig)()}
    if function is not augment.augment:
        given["image"] = given["image"][..., 0]
    given |= {"probability": MASK[0]} | {argument: mask}
    needed = inspect.signature(function).parameters.items()
    return function(**{name: given[name] for name, about in needed if about.default is about.empty})


def test_the_functions_are_found():
    assert len(SOFT) >= 17 and len(BINARY) >= 14


@pytest.mark.parametrize("function, argument", SOFT)
def test_a_soft_mask_of_0_to_255_is_refused(function, argument):
    of_batch = "b h w" in str(inspect.signature(function).parameters[argument].annotation)
    mask = jnp.asarray(255 * (MASK if of_batch else MASK[0]))
    message = rf"{argument} holds values from 0 to 255; a mask is in \[0, 1\]. Divide an 8-bit mask by 255"
    with pytest.raises(ValueError, match=message):
        call(function, argument, mask)


@pytest.mark.parametrize("function, argument", BINARY)
def test_a_mask_of_0_to_255_is_refused_where_a_mask_is_bool(function, argument):
    with pytest.raises(ValueError, match="bool"):
        call(function, argument, np.uint8(255 * MASK[0]))


def test_masks_pass_and_nan_stays_visible():
    for mask in (MASK, MASK > 0, MASK + 1e-6, MASK * np.nan, MASK[:0], np.uint8(MASK)):
        check_mask(mask)
    jax.jit(lambda mask: check_mask(mask))(255 * MASK)
    with pytest.raises(ValueError, match=r"from -0\.1 to 1"):
        check_mask(np.where(MASK > 0, MASK, -0.1))
