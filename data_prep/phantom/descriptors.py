"""The five ACR TI-RADS axes of a phantom: which findings are combined, how common each is, and how to sample them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax import tirads
from thyroid_jax.shapes import Array, Int, Key

COMPOSITIONS = tuple(tirads.COMPOSITION)
ECHOGENICITIES = tuple(tirads.ECHOGENICITY)
SHAPES = tuple(tirads.SHAPE)
MARGINS = tuple(tirads.MARGIN)
FOCI = tuple(kind for kind in tirads.FOCI if kind != "none")  # "none" is the absence of the others


class Descriptors(NamedTuple):
    """The five ACR axes as indices into :data:`COMPOSITIONS`, :data:`ECHOGENICITIES`, :data:`SHAPES`, :data:`MARGINS`.

    ``foci`` is int32[4]: 1 where that kind of :data:`FOCI` is present. Several kinds may be.
    """

    composition: Int[Array, ""]
    echogenicity: Int[Array, ""]
    shape: Int[Array, ""]
    margin: Int[Array, ""]
    foci: Int[Array, " 4"]


def points(descriptors: Descriptors) -> Int[Array, ""]:
    """Sum of the ACR points: :func:`thyroid_jax.tirads.points` of the same words, in a form that can be traced."""
    axes = zip((tirads.COMPOSITION, tirads.ECHOGENICITY, tirads.SHAPE, tirads.MARGIN), descriptors)
    total = sum(values_of(table)[index] for table, index in axes)
    total = total + jnp.sum(values_of({kind: tirads.FOCI[kind] for kind in FOCI}) * descriptors.foci)
    return jnp.where(descriptors.composition == COMPOSITIONS.index("spongiform"), 0, total)


def words(descriptors: Descriptors) -> dict[str, str]:
    """The written findings of one nodule, as a report has them. This function cannot be traced.

    Several kinds of foci are joined by a comma and a space.
    """
    composition, echogenicity, shape, margin = (int(index) for index in descriptors[:4])
    present = [kind for kind, flag in zip(FOCI, np.asarray(descriptors.foci)) if flag]
    return {
        "composition": COMPOSITIONS[composition],
        "echogenicity": ECHOGENICITIES[echogenicity],
        "shape": SHAPES[shape],
        "margin": MARGINS[margin],
        "foci": ", ".join(present) or "none",
    }


def _combinations() -> Iterator[tuple[str, str, str, str, tuple[str, ...], float]]:
    """Every consistent combination of findings, with its relative frequency within its level.

    The frequencies are made up to look plausible. Fluid is anechoic, wide and smooth. A spongiform nodule has no other
    finding. Large comet tails need colloid. "unclear" means that the picture cannot be read, so it is not drawn.
    """
    for foci in ((), ("large comet-tail",)):
        yield "cystic", "anechoic", "wider than tall", "smooth", foci, 1.0
        yield "spongiform", "isoechoic", "wider than tall", "smooth", foci, 1.0 if not foci else 0.3
    common = {0: 1.0, 1: 0.35, 2: 0.06}
    for composition, kinds in (("mixed", FOCI), ("solid", tuple(kind for kind in FOCI if kind != "large comet-tail"))):
        for echogenicity in ("hyperechoic", "isoechoic", "hypoechoic", "very hypoechoic"):
            for shape in SHAPES:
                for margin in ("smooth", "ill-defined", "lobulated or irregular", "extrathyroidal extension"):
                    for count, share in common.items():
                        for foci in combinations(kinds, count):
                            yield composition, echogenicity, shape, margin, foci, share


@cache
def _table() -> tuple[Descriptors, np.ndarray, np.ndarray]:
    """The combinations as one stacked :class:`Descriptors`, their levels and their shares, as numpy arrays."""
    rows = list(_combinations())
    axes = (COMPOSITIONS, ECHOGENICITIES, SHAPES, MARGINS)
    indices = [np.array([names.index(row[axis]) for row in rows], np.int32) for axis, names in enumerate(axes)]
    foci = np.array([[kind in row[4] for kind in FOCI] for row in rows], np.int32)
    sums = [tirads.points(*row[:5]) for row in rows]
    with jax.ensure_compile_time_eval():
        levels = np.asarray(tirads.level(jnp.array(sums)))
    return Descriptors(*indices, foci), levels, np.array([row[5] for row in rows], np.float32)


def sample_descriptors(key: Key) -> Descriptors:
    """Random descriptors of one nodule, whose level TR1..TR5 is uniform.

    The level is drawn first, then a combination of that level by its share.
    """
    table, levels, share = _table()
    level_key, row_key = jax.random.split(key)
    level = jnp.floor(len(tirads.LEVELS) * jax.random.uniform(level_key)).astype(int)
    row = jax.random.categorical(row_key, jnp.where(levels == level, jnp.log(share), -jnp.inf))
    return jax.tree.map(lambda column: jnp.asarray(column)[row], table)


def values_of(table: Mapping[str, int | float]) -> jax.Array:
    """The values of a table of findings, in its order."""
    return jnp.array(list(table.values()))
