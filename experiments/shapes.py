"""Draw test shapes with their differentiable shape features, to show what each feature distinguishes.

python -m experiments.shapes [--out shapes.png]
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro

from thyroid_jax import command, extras
from thyroid_jax.errors import exits_cleanly
from thyroid_jax.files import write_bytes
from thyroid_jax.radiomics import soft

from .runtime import prepare


@dataclass(frozen=True)
class Arguments:
    """Draw shapes with their features underneath."""

    out: Path = Path("shapes.png")
    """the picture to write"""


def shapes(side: int = 128, softness: float = 1.0) -> dict[str, np.ndarray]:
    """Name -> soft mask f32[side side], all with the same edge.

    A mask is sigmoid(d / softness), d the approximate distance in pixels to the outline, positive inside.
    """
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    r, angle, unit = np.hypot(y, x), np.arctan2(y, x), 0.25 * side

    def ellipse(a, b, turn=0.0, at=(0.0, 0.0)):
        u, v = y - at[0], x - at[1]
        along, across = v * np.cos(turn) + u * np.sin(turn), u * np.cos(turn) - v * np.sin(turn)
        rho = np.hypot(along / a, across / b)
        return (1 - rho) * rho / np.maximum(np.hypot(along / a**2, across / b**2), 1e-9)

    def box(top, left, bottom, right):
        return np.minimum(np.minimum(y - top, bottom - y), np.minimum(x - left, right - x))

    a, b = unit * 2**0.5, unit / 2**0.5
    inside = {
        "disc": unit - r,
        "small disc": unit / 4 - r,
        "wide": ellipse(a, b),
        "tall": ellipse(b, a),
        "45 degrees": ellipse(a, b, np.pi / 4),
        "eight lobes": unit * (1 + 0.08 * np.cos(8 * angle)) - r,
        "wide, lobed": ellipse(a, b) + 0.08 * unit * np.cos(8 * angle),
        "star": unit * (0.85 + 0.45 * np.abs(np.cos(3.5 * angle)) ** 12) - r,
        "L": np.maximum(box(-unit, -unit, unit, -0.2 * unit), box(0.2 * unit, -unit, unit, unit)),
        "crescent": np.minimum(unit - r, np.hypot(y, x - 0.7 * unit) - 0.75 * unit),
        "disc and island": np.maximum(
            ellipse(0.8 * unit, 0.8 * unit, at=(0.3 * unit, -0.4 * unit)), 0.25 * unit - np.hypot(y + unit, x - unit)
        ),
        "ring": np.minimum(unit - r, r - 0.5 * unit),
    }
    return {name: (1 / (1 + np.exp(-np.clip(d / softness, -60, 60)))).astype(np.float32) for name, d in inside.items()}


def picture(masks: dict[str, np.ndarray]) -> tuple[bytes, dict[str, np.ndarray]]:
    """PNG of every mask, and the features of every mask in the order of ``soft.FEATURES``.

    The PNG shows each mask with its moment ellipse in red and its features underneath.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = tuple(soft.FEATURES)
    batch = np.stack(list(masks.values()))
    values = np.asarray(jax.jit(lambda m: soft.morphology(m, features=names))(batch))
    draw = jax.jit(jax.vmap(lambda m: soft.moment_ellipse(soft.moments(m), soft.edge_softness(m), m.shape)))
    columns, letters = 6, [f"f{i + 1}" for i in range(4)] + ["hull", "long"]
    rows = -(-len(masks) // columns)
    figure = Figure((2.1 * columns, 3.0 * rows), dpi=110, layout="constrained")
    for axis, name, mask, ellipse, row in zip(figure.subplots(rows, columns).flat, masks, batch, draw(batch), values):
        axis.imshow(mask, cmap="gray", vmin=0, vmax=1)
        axis.contour(np.asarray(ellipse), [0.5], colors="red", linewidths=1)
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
        text = [f"{letter} {value:.2f}" for letter, value in zip(letters, row)]
        axis.set_xlabel(
            "\n".join("   ".join(text[start : start + 2]) for start in (0, 2, 4)), fontsize=8, family="monospace"
        )
    figure.suptitle("   ".join(f"{letter}: {name}" for letter, name in zip(letters, names)), fontsize=9)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue(), dict(zip(masks, values))


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require("matplotlib")
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("shapes"))
    prepare()
    png, values = picture(shapes())
    print(f"{'':16s}" + " ".join(f"{name[:12]:>12s}" for name in soft.FEATURES))
    for name, row in values.items():
        print(f"{name:16s}" + " ".join(f"{value:12.3f}" for value in row))
    write_bytes(arguments.out, png)
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
