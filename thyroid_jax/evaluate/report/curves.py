"""The curves of a training log: one panel a quantity, with training and validation together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.evaluate.report.drawing import LINE, STYLES, inline_svg

BOOKKEEPING = ("step", "epoch", "split")
FIRST_LOOK = (
    *("loss", "loss_segmentation", "loss_grading", "loss_malignancy"),
    *("dice", "quadratic_kappa", "macro_auroc", "malignant_auroc"),
)
"""the quantities to look at first; the page folds all others"""


class Panel(NamedTuple):
    """One quantity of the log: its curves by split over ``x`` (epoch or step), and the drawing, which is safe markup.

    ``styles`` are places in :data:`~thyroid_jax.evaluate.report.drawing.STYLES`; a split has one style in all panels.
    ``thinned`` is True where stretches of points are averaged. ``is_first_look`` says that it belongs to
    :data:`FIRST_LOOK`.
    """

    name: str
    x: str
    splits: tuple[str, ...]
    styles: tuple[int, ...]
    thinned: bool
    svg: str
    is_first_look: bool


def training_curves(log: Sequence[Mapping[str, Any]], names: Sequence[str] = (), *, points: int = 400) -> list[Panel]:
    """One panel for every logged quantity, those of :data:`FIRST_LOOK` first.

    ``names`` chooses and orders the quantities; by default all numeric ones are drawn. Values that are not finite are
    left out. A curve of more than ``points`` points is averaged over ``points`` consecutive stretches. The abscissa is
    the epoch when every entry has one and no split has two entries of one epoch, else the step. No text of the log
    enters a drawing.
    """
    found = dict.fromkeys(
        key for entry in log for key, value in entry.items() if key not in BOOKKEEPING and is_finite(value)
    )
    ordered = [*(name for name in FIRST_LOOK if name in found), *(name for name in found if name not in FIRST_LOOK)]
    x = _abscissa(log)
    curves = {name: _curves_of(name, x, log) for name in names or ordered}
    order = list(dict.fromkeys(split_of(entry) for entry in log))
    return [
        Panel(
            name=name,
            x=x,
            splits=tuple(splits),
            styles=tuple(order.index(split) % len(STYLES) for split in splits),
            thinned=any(len(curve) > points for curve in splits.values()),
            svg=_drawn({order.index(split): _thin(curve, points) for split, curve in splits.items()}, f"curve {place}"),
            is_first_look=name in FIRST_LOOK,
        )
        for place, (name, splits) in enumerate(curves.items())
        if splits
    ]


def is_finite(value: object) -> bool:
    """Whether a log's value is a number that can be drawn; truth values are not."""
    return (
        isinstance(value, (int, float, np.integer, np.floating))
        and not isinstance(value, bool)
        and bool(np.isfinite(value))
    )


def split_of(entry: Mapping[str, Any]) -> str:
    """The part of the data that a log's entry is about; training where it does not say."""
    return str(entry.get("split", "train"))


def curve(log: Sequence[Mapping[str, Any]], split: str, name: str) -> np.ndarray:
    """The finite values f[n] of one quantity of one split, in the order of the log."""
    return np.array([entry[name] for entry in log if split_of(entry) == split and is_finite(entry.get(name))], float)


def _abscissa(log: Sequence[Mapping[str, Any]]) -> str:
    epochs = Counter((split_of(entry), entry.get("epoch")) for entry in log if is_finite(entry.get("epoch")))
    return "epoch" if sum(epochs.values()) == len(epochs) == len(log) else "step"


def _curves_of(name: str, x: str, log: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Split -> its points f[n 2]."""
    points: dict[str, list[tuple[float, float]]] = {}
    for entry in log:
        if is_finite(entry.get(name)) and is_finite(entry.get(x)):
            points.setdefault(split_of(entry), []).append((float(entry[x]), float(entry[name])))
    return {split: np.array(some) for split, some in points.items()}


def _thin(curve: np.ndarray, points: int) -> np.ndarray:
    if len(curve) <= points:
        return curve
    return np.stack([part.mean(axis=0) for part in np.array_split(curve, points)])


def _drawn(curves: Mapping[int, np.ndarray], salt: str) -> str:
    """Inline SVG of a few curves f[n 2] over common axes; their keys are the places of their styles."""

    def draw(axis) -> None:
        from matplotlib.ticker import MaxNLocator

        for place, points in curves.items():
            colour, dash = STYLES[place % len(STYLES)]
            marker = "o" if len(points) < 3 else ""
            axis.plot(points[:, 0], points[:, 1], color=colour, linestyle=dash, linewidth=1.6, marker=marker)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4))
        axis.grid(axis="y", color=LINE, linewidth=0.6)

    return inline_svg(draw, salt=salt)
