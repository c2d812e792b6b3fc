"""Images that two data sets share, so that one is not trained on what the other tests."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal, NamedTuple

import numpy as np

from thyroid_jax.data.duplicates import AT_LEAST, near_pairs_between, signature
from thyroid_jax.data.record import RecordSequence


class Shared(NamedTuple):
    """Image i of the first data set and image j of the second one show the same picture.

    ``kind``: "equal" pixels, or "near"; then ``correlation`` in [-1, 1] and ``mirrored`` are those of
    :class:`thyroid_jax.data.duplicates.Pair`. The correlation of equal pixels is 1.
    """

    i: int
    j: int
    kind: Literal["equal", "near"]
    correlation: float
    mirrored: bool


class Pictures(NamedTuple):
    """What tells the images of n records apart: cases, hashes of the pixels, signatures uint8[n 96 96]."""

    cases: tuple[str, ...]
    contents: tuple[str, ...]
    signatures: np.ndarray


def pictures_of(records: RecordSequence) -> Pictures:
    """Read every record once, one at a time. Raises ``ValueError`` when there is none."""
    if not len(records):
        raise ValueError("no record to compare")
    cases, contents, signatures = zip(*((record.case, record.content, signature(record.image)) for record in records))
    return Pictures(cases, contents, np.stack(signatures))


def shared_images(a: Pictures, b: Pictures, *, at_least: float = AT_LEAST) -> list[Shared]:
    """The images that the data sets a and b share, in ascending order of (i, j).

    Equal images are found also if they have no texture. ``at_least`` as in
    :func:`thyroid_jax.data.duplicates.near_pairs_between`.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for j, content in enumerate(b.contents):
        places[content].append(j)
    equal = [Shared(i, j, "equal", 1.0, False) for i, content in enumerate(a.contents) for j in places.get(content, ())]
    known = {(pair.i, pair.j) for pair in equal}
    near = [
        Shared(pair.i, pair.j, "near", pair.correlation, pair.mirrored)
        for pair in near_pairs_between(a.signatures, b.signatures, at_least=at_least)
        if (pair.i, pair.j) not in known
    ]
    return sorted(equal + near)
