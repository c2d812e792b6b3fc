"""Simple checks of an image and of its predicted outline that a person can see the reason of."""

from __future__ import annotations

import math

import numpy as np

from thyroid_jax.data.pipeline import square_shape

ENLARGED = 2.0  # times, from the image to the network's input
SATURATED = 0.05  # share of the pixels that are 255
FEWEST_LEVELS = 24  # grey levels from the 5th to the 95th percentile of the pixels that are not black
BLACK = 0.5  # share of the pixels that are 0
SPECKS = 0.05  # share of the outline's area that may lie outside its largest part

CHECKS = {
    "small image": f"it is enlarged more than {ENLARGED:g} times to fill the network's input",
    "saturated": f"more than {SATURATED:.0%} of its pixels are white (255)",
    "little contrast": f"fewer than {FEWEST_LEVELS} grey levels lie between the 5th and the 95th percentile of its "
    "pixels, black ones left out",
    "mostly black": f"more than {BLACK:.0%} of its pixels are black (0): it may not be cut to the scan",
    "no outline": "no pixel has a probability of one half or more",
    "outline touches the border": "the nodule may be cut off",
    "outline in several parts": f"more than {SPECKS:.0%} of its area lie outside its largest connected part",
    "unlike the training images": "at most 1 % of the run's validation images are as far from the training images",
}
"""name of a check -> when an image has it"""


def of_image(
    image: np.ndarray, size: tuple[int, int], spacing: tuple[float, float] = (math.nan, math.nan)
) -> list[str]:
    """The names in :data:`CHECKS` that hold for an image uint8[h w] and a network's input of ``size`` (rows, columns).

    ``spacing`` as in :func:`thyroid_jax.predict.predict`. An image that is wholly black has little contrast.
    """
    rows, columns = square_shape(image.shape, spacing)
    lit = image[image > 0]
    low, high = np.percentile(lit, [5, 95]) if lit.size else (0, 0)
    holds = {
        "small image": min(size[0] / rows, size[1] / columns) > ENLARGED,
        "saturated": (image == 255).mean() > SATURATED,
        "little contrast": high - low < FEWEST_LEVELS,
        "mostly black": (image == 0).mean() > BLACK,
    }
    return [name for name, found in holds.items() if found]


def of_outline(outline: np.ndarray, areas: np.ndarray) -> list[str]:
    """The names in :data:`CHECKS` that hold for an outline bool[h w], of whose connected parts ``areas`` int[n] are."""
    border = np.concatenate([outline[[0, -1]].ravel(), outline[:, [0, -1]].ravel()])
    holds = {
        "no outline": not outline.any(),
        "outline touches the border": border.any(),
        "outline in several parts": len(areas) > 1 and areas.max() < (1 - SPECKS) * areas.sum(),
    }
    return [name for name, found in holds.items() if found]
