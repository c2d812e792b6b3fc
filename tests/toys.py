"""A data set of nine small records that holds every kind of label, present and missing."""

from collections.abc import Iterator

import numpy as np

from thyroid_jax.data.record import Card, Notes, Record

CARD = Card(
    "toy", "Toys", "made here", "none", "made up", "case", ("low", "mid", "high"), "Toy", ("a fault",), {"records": 9}
)


def toys(count: int = 9, seed: int = 0) -> Iterator[Record]:
    rng = np.random.default_rng(seed)
    for i in range(count):
        h, w = 20 + i, 30 - i
        masks = [rng.random((h, w)) > 0.5 for _ in range(4)]
        yield Record(
            case=f"{i}_é",
            group=str(i // 2),
            source=f"{i}.png",
            image=rng.integers(0, 256, (h, w), dtype=np.uint8),
            mask=masks[0] if i % 3 else None,
            cleaning=("cut to the scan", f"{i} pixels filled in") if i % 2 else (),
            reader_masks=tuple(masks[: i % 4]),
            grade=i % 3 if i % 4 else None,
            reader_grades=tuple(range(i % 3)),
            malignant=(None, True, False)[i % 3],
            descriptors={"margins": "ill–defined"} if i % 2 else {},
            spacing=(0.1, 1 / 3) if i % 2 else (float("nan"), float("nan")),
        )


def factory(notes: Notes) -> Iterator[Record]:
    """What a builder takes: called anew for each pass."""
    for record in toys():
        notes.counts["seen"] += 1
        yield record
