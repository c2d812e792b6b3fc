"""Draw two tasks' loss landscapes along their adversarial directions, and the angles over the training.

python -m experiments.probe --run-dir DIR [--case ID] [--part test] [--space channel]

Writes ``report/landscape.png`` for one image, and ``report/angles.png`` where the run was trained with
``--train.diagnose-every``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from thyroid_jax import command, extras, model, runs
from thyroid_jax.batch import Batch
from thyroid_jax.data.pipeline import load, take
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.files import write_bytes
from thyroid_jax.losses import rlar
from thyroid_jax.predict import Trained
from thyroid_jax.recipe import Recipe, encode, example_losses, with_own_evidence
from thyroid_jax.train.diagnose import BINS, directions_of
from thyroid_jax.train.log import Row, read_log
from thyroid_jax.train.step import in_unit_range

from .runtime import prepare

COLOURS = {"segmentation": "#0072B2", "grading": "#D55E00"}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Draw the loss landscapes and the angles of a finished run."""

    run_dir: Path
    """folder of a training run"""
    data_dir: Path | None = None
    """folder of the built data set, if it has moved since the training"""
    part: Literal["test", "validation", "train"] = "test"
    case: str = ""
    """image to draw, by its case identifier; by default the one whose directions are most aligned"""
    space: Literal["channel", "full"] = "channel"
    """space of the directions: an offset added at every position, or all the features"""
    reach: float = 0.5
    """largest step away from the latent, as a share of the latent's length in that space"""
    points: int = 41
    """grid points on each side"""
    checkpoint: Literal["best", "last"] = "best"


class Landscape(NamedTuple):
    """Two tasks' losses f[n n] of one image on the plane of their directions.

    Row y, column x is the point z + length (x e1 + y e2), x and y from ``axis`` f[n]. e1 is the direction of the first
    task. The direction of the second task has the coordinates (cosine, sqrt(1 - cosine^2)) in the plane.
    """

    losses: dict[str, np.ndarray]
    cosine: float
    axis: np.ndarray
    length: float


def two_tasks(recipe: Recipe) -> Recipe:
    """The recipe with the segmentation and grading tasks only, and without penalties."""
    kept = tuple(task for task in recipe.tasks if task.name in COLOURS)
    return recipe.replace(tasks=kept, penalties=()).with_settings("rlar", tasks=tuple(COLOURS), hold=())


def landscape(
    params: model.Params, batch: Batch, recipe: Recipe, *, space: str, reach: float, points: int
) -> Landscape:
    """The losses of a batch of one image around its latent; ``space``, ``reach``, ``points`` as in the arguments."""
    batch = with_own_evidence(params, in_unit_range(batch), recipe)
    first, second = np.asarray(directions_of(params, batch, recipe, space=space).unit[:, 0])
    latent = encode(params, batch, recipe)
    z = latent.z
    # Root mean square over the positions of the length of z, or the length of all of z.
    length = float(jnp.sqrt((z**2).sum() / (z[0, :, :, 0].size if space == "channel" else 1)))
    cosine = float(first @ second)
    rest = second - cosine * first
    if np.linalg.norm(rest) < 1e-4:  # parallel directions: any other direction can be the plane's second axis
        rest = np.random.default_rng(0).normal(size=first.size)
        rest -= (rest @ first) * first
    basis = np.stack([first, rest / np.linalg.norm(rest)]).astype(np.float32)
    shape = (2, 1, 1, -1) if space == "channel" else (2, *z.shape[1:])

    @jax.jit
    def losses_of_row(y: jax.Array) -> dict[str, jax.Array]:
        steps = jnp.stack([axis, jnp.full_like(axis, y)], axis=1) * length
        moved = z + jnp.einsum("np,pyxc->nyxc", steps, basis.reshape(shape))
        repeated = jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a), points, axis=0), (latent, batch))
        shifted, rows = repeated[0]._replace(z=moved), repeated[1]
        return {task.name: example_losses(task, params, shifted, rows, recipe) for task in recipe.tasks}

    axis = jnp.linspace(-reach, reach, points)
    found = [jax.device_get(losses_of_row(y)) for y in axis]
    return Landscape(
        {name: np.stack([row[name] for row in found]) for name in COLOURS}, cosine, np.asarray(axis), length
    )


def draw_landscape(found: Landscape, image: np.ndarray, mask: np.ndarray, title: str) -> bytes:
    """PNG: the image with its reference outline, and each task's loss over the plane with both directions as arrows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.6), dpi=110, layout="constrained")
    figure.suptitle(title)
    left, *panels = figure.subplots(1, 3)
    left.imshow(image, cmap="gray", vmin=0, vmax=1)
    left.contour(mask, [0.5], colors=COLOURS["segmentation"], linewidths=1.5)
    left.set_axis_off()
    reach = float(found.axis[-1])
    tips = {"segmentation": (1.0, 0.0), "grading": (found.cosine, float(np.sqrt(max(0.0, 1 - found.cosine**2))))}
    for panel, name in zip(panels, COLOURS):
        filled = panel.contourf(found.axis, found.axis, found.losses[name], levels=18, cmap="Greys")
        panel.contour(found.axis, found.axis, found.losses[name], levels=18, colors="k", linewidths=0.3)
        for task, (x, y) in tips.items():
            panel.annotate(
                "",
                xy=(0.8 * reach * x, 0.8 * reach * y),
                xytext=(0, 0),
                arrowprops={"color": COLOURS[task], "width": 2},
            )
            panel.plot([], [], color=COLOURS[task], linewidth=3, label=f"steepest rise of the {task} loss")
        panel.set(title=f"{name} loss", xlabel="segmentation direction, in lengths of z", aspect="equal")
        figure.colorbar(filled, ax=panel, shrink=0.85)
    panels[0].set_ylabel("perpendicular to it, in lengths of z")
    panels[0].legend(loc="lower left", fontsize=8)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def draw_angles(rows: Sequence[Row]) -> bytes:
    """PNG: the histogram of cosines over the epochs in both spaces, white for empty bins, with the mean as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), dpi=110, layout="constrained")
    epochs = np.array([row["epoch"] for row in rows])
    edges = np.append(epochs, epochs[-1] + 1) - 0.5  # a row stands for the epochs until the next one
    for panel, space in zip(figure.subplots(1, 2, sharey=True), ("channel", "full")):
        shares = np.array([row[f"cosine_histogram_latent_{space}"] for row in rows]).T
        bins = np.linspace(-1, 1, BINS + 1)
        drawn = panel.pcolormesh(edges, bins, np.ma.masked_equal(shares, 0), cmap="viridis_r", vmin=0, rasterized=True)
        panel.plot(epochs, [row[f"cosine_latent_{space}"] for row in rows], color="k", linewidth=1.2, label="mean")
        panel.set(title=f"{space} space", xlabel="epoch")
        figure.colorbar(drawn, ax=panel, label="share of the examples")
        panel.legend(loc="lower right")
    figure.axes[0].set_ylabel("cosine between the tasks' directions")
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


def choose(trained: Trained, recipe: Recipe, records: Sequence, arguments: Arguments) -> tuple[str, Batch]:
    """The case and the batch of one image: the requested one, or by default the one with the highest cosine.

    Only images with an outline and a grade are used. The image has the size of the network's input.
    """
    labelled = [record for record in records if record.mask is not None and record.grade is not None]
    if not labelled:
        raise InputError(
            f"no image of the {arguments.part} part has both an outline and a grade; choose another --part."
        )
    cases = [record.case for record in labelled]
    if arguments.case and arguments.case not in cases:
        raise InputError(
            f"{arguments.case!r} is no image of the {arguments.part} part with outline and grade; those are "
            f"{', '.join(cases[:10])}, ..."
        )
    size = (trained.config.data.height, trained.config.data.width)
    loaded = load(labelled, recipe.model.grades, size)
    if arguments.case:
        row = cases.index(arguments.case)
    else:
        cosine_of = lambda row: float(
            rlar.cosines(directions_of(trained.params, take(loaded, [row], 1), recipe, space=arguments.space).unit)[
                0, 0
            ]
        )
        row = int(np.argmax([cosine_of(row) for row in range(len(cases))]))
    return cases[row], take(loaded, [row], 1)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.RECORDS, *extras.PAGE)
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("probe"))
    prepare()
    trained, parts = runs.open_finished(arguments.run_dir, arguments.checkpoint, arguments.data_dir)
    if not set(COLOURS) <= {task.name for task in trained.recipe.tasks}:
        raise InputError(f"{arguments.run_dir}: the run did not train both tasks; there are no two directions to draw.")
    recipe = two_tasks(trained.recipe)
    case, batch = choose(trained, recipe, getattr(parts, arguments.part), arguments)
    found = landscape(
        trained.params, batch, recipe, space=arguments.space, reach=arguments.reach, points=arguments.points
    )
    title = f"{case}: cosine {found.cosine:+.2f} between the directions in {arguments.space} space"
    folder = arguments.run_dir / "report"
    image, mask = np.asarray(batch.image)[0, ..., 0] / 255, np.asarray(batch.mask)[0] / 255
    write_bytes(folder / "landscape.png", draw_landscape(found, image, mask, title))
    print(f"{title}\npicture: {folder / 'landscape.png'}")
    log = read_log(arguments.run_dir / "log.jsonl")
    rows = [row for row in log if row.get("split") == "diagnosis" and "cosine_histogram_latent_full" in row]
    if rows:
        write_bytes(folder / "angles.png", draw_angles(rows))
        print(f"picture: {folder / 'angles.png'}")
    else:
        print("no picture of the angles: the run has no diagnoses; train with --train.diagnose-every 10, for example")


if __name__ == "__main__":
    main()
