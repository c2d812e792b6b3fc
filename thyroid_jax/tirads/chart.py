"""The chart of ACR TI-RADS 2017: the findings of five axes, their points, and the level of a sum of points.

Source: Tessler et al., *ACR Thyroid Imaging, Reporting and Data System (TI-RADS): White Paper of the ACR TI-RADS
Committee*, J Am Coll Radiol 14 (2017) 587-595. Tables only. Research use, not advice about a patient.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from thyroid_jax.shapes import Array, Int

COMPOSITION = {"cystic": 0, "spongiform": 0, "mixed": 1, "solid": 2, "unclear": 2}
ECHOGENICITY = {"anechoic": 0, "hyperechoic": 1, "isoechoic": 1, "hypoechoic": 2, "very hypoechoic": 3, "unclear": 1}
SHAPE = {"wider than tall": 0, "taller than wide": 3}
MARGIN = {"smooth": 0, "ill-defined": 0, "lobulated or irregular": 2, "extrathyroidal extension": 3, "unclear": 0}
FOCI = {"none": 0, "large comet-tail": 0, "macrocalcification": 1, "peripheral": 2, "punctate": 3}
LEVELS = ("TR1", "TR2", "TR3", "TR4", "TR5")
FIRST_POINTS = (1, 3, 4, 7)
"""the smallest sum of points of TR2, TR3, TR4 and TR5"""


def points(composition: str, echogenicity: str, shape: str, margin: str, foci: tuple[str, ...] = ()) -> int:
    """Sum of the points of the five axes, from their names in the tables above; >= 0.

    Every kind of echogenic focus that is present counts once. A spongiform nodule has no further points. A name that
    is not in its table raises KeyError, which lists the names of that table.
    """
    axes = (
        _points_of("composition", COMPOSITION, composition)
        + _points_of("echogenicity", ECHOGENICITY, echogenicity)
        + _points_of("shape", SHAPE, shape)
        + _points_of("margin", MARGIN, margin)
    )
    total = axes + sum(_points_of("foci", FOCI, kind) for kind in set(foci))
    return 0 if composition == "spongiform" else total


def level(points: Int[Array, "*n"]) -> Int[Array, "*n"]:
    """Index into :data:`LEVELS` of a sum of points, elementwise.

    0 -> TR1; 1 and 2 -> TR2; 3 -> TR3; 4 to 6 -> TR4; 7 or more -> TR5. The chart has no level for a sum of 1; it is
    treated as TR2. Works on arrays, traced or not.
    """
    return jnp.searchsorted(jnp.array(FIRST_POINTS), jnp.asarray(points), side="right")


def _points_of(axis: str, table: Mapping[str, int], name: str) -> int:
    if name not in table:
        raise KeyError(f"{axis}: unknown name {name!r}. Known names: {', '.join(table)}.")
    return table[name]
