"""Pictures of one case: the image with outlines drawn in, sheets of them, and small ones to embed in a page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Blue and orange of Okabe and Ito: distinguishable in every common form of colour blindness, and both visible on grey
# tissue.
REFERENCE_COLOUR = (86, 180, 233)
PREDICTED_COLOUR = (230, 159, 0)
SIDE = 512
"""longest side of a thumbnail in pixels"""
HEAVIEST = 30_000
"""bytes that a thumbnail may have: 350 of them, as text, stay below :data:`thyroid_jax.evaluate.report.page.BUDGET`"""


@dataclass(frozen=True)
class Picture:
    """The content of one overlay: ``image`` uint8[h w]; ``reference`` bool[h w] or None; ``predicted`` bool or
    probability [h w], or None.
    """

    case: str
    image: np.ndarray
    reference: np.ndarray | None = None
    predicted: np.ndarray | None = None


@dataclass(frozen=True)
class Thumbnail:
    """A case's picture for the page: a small WebP file, and the outlines as SVG path data in the frame of the image.

    ``width`` and ``height`` are those of the full image in pixels. A path is "" where there is no outline.
    """

    case: str
    width: int
    height: int
    webp: bytes
    reference: str = ""
    predicted: str = ""

    @property
    def data_uri(self) -> str:
        """The file as an address that needs no file."""
        return "data:image/webp;base64," + base64.b64encode(self.webp).decode()


def thumbnail(picture: Picture) -> Thumbnail:
    """The picture scaled down to at most :data:`SIDE` pixels a side and :data:`HEAVIEST` bytes, never enlarged.

    Speckle compresses badly: quality is lowered first, then the size. Raises ValueError for shapes that do not fit.
    """
    check_shapes(picture.image, picture.reference, picture.predicted)
    height, width = picture.image.shape
    tries = (_webp(picture.image, side, quality) for side in (SIDE, 384, 256, 128) for quality in (75, 60, 45))
    content = next(file for file in tries if len(file) <= HEAVIEST)
    return Thumbnail(picture.case, width, height, content, svg_path(picture.reference), svg_path(picture.predicted))


def _webp(image: np.ndarray, side: int, quality: int) -> bytes:
    from PIL import Image

    whole, file = Image.fromarray(image), io.BytesIO()
    scale = min(1.0, side / max(whole.size))
    small = whole.resize([max(1, round(length * scale)) for length in whole.size], Image.Resampling.LANCZOS)
    small.save(file, "WEBP", quality=quality)
    return file.getvalue()


def overlay(
    image: np.ndarray, reference: np.ndarray | None, predicted: np.ndarray | None, *, scale: int = 1
) -> np.ndarray:
    """Image with one-pixel outlines drawn in: uint8[h*scale w*scale 3]; reference blue, predicted orange and on top.

    Args:
        image: uint8[h w].
        reference, predicted: bool[h w], or probability f[h w] cut at 0.5, or None for no outline.
        scale: whole number of output pixels per side of an image pixel, so that outlines look thin on small images.

    An outline is the mask's own boundary pixels. Raises ValueError for shapes or types that do not fit.
    """
    from scipy.ndimage import binary_erosion

    check_shapes(image, reference, predicted)
    grow = np.ones((scale, scale), np.uint8)
    drawn = np.repeat(np.kron(image, grow)[..., None], 3, axis=-1)
    for mask, colour in ((reference, REFERENCE_COLOUR), (predicted, PREDICTED_COLOUR)):
        if mask is not None:
            mask = np.kron(_binary(mask), grow).astype(bool)
            drawn[mask & ~binary_erosion(mask)] = colour
    return drawn


def overlay_grid(
    pictures: Sequence[Picture], captions: Sequence[str] | None = None, *, columns: int = 4, width_px: int = 1200
) -> np.ndarray:
    """Sheet of overlays with smooth outlines, captions and a legend, e.g. for a README: uint8[height width_px 3].

    ``captions`` (one per picture; by default the case names) stand above the pictures, each line cut to the picture's
    width. Raises ValueError without a picture, or for another number of captions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    if not pictures or (captions is not None and len(captions) != len(pictures)):
        raise ValueError(
            f"{len(pictures)} pictures and {'no' if captions is None else len(captions)} captions do not make a sheet."
        )
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    aspect = max(picture.image.shape[0] / picture.image.shape[1] for picture in pictures)
    width = width_px / 100  # inches, at 100 dots an inch
    cell = width / columns
    room = int(cell * 14)  # characters of 9 points
    texts = [picture.case for picture in pictures] if captions is None else list(captions)
    texts = [
        "\n".join(line if len(line) <= room else line[: room - 1] + "…" for line in text.splitlines()) for text in texts
    ]
    title = 0.16 + 0.16 * max(text.count("\n") + 1 for text in texts)
    figure = Figure(
        figsize=(width, lines * (cell * aspect + title) + 0.35),
        dpi=100,
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.04, wspace=0, hspace=0),
        facecolor="white",
    )
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    blue, orange = hexadecimal(REFERENCE_COLOUR), hexadecimal(PREDICTED_COLOUR)
    for axis in axes:
        axis.axis("off")
    for index, (axis, picture) in enumerate(zip(axes, pictures)):
        check_shapes(picture.image, picture.reference, picture.predicted)
        axis.imshow(picture.image, cmap="gray", vmin=0, vmax=255)
        for mask, colour, style in ((picture.reference, blue, "-"), (picture.predicted, orange, "--")):
            for line in _outlines(mask):
                axis.plot(line[:, 0], line[:, 1], color=colour, linestyle=style, linewidth=1.6)
        # Case names are arbitrary text, so they are not parsed as TeX.
        axis.set_title(texts[index], fontsize=9, parse_math=False)
    keys = [
        Line2D([], [], color=blue, label="reference"),
        Line2D([], [], color=orange, linestyle="--", label="predicted"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # unknown characters are drawn as boxes
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(image: np.ndarray) -> bytes:
    """PNG file of an image uint8[h w] or uint8[h w 3]."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", optimize=True)
    return file.getvalue()


def hexadecimal(colour: tuple[int, int, int]) -> str:
    """The colour in the form #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def check_shapes(image: np.ndarray, *masks: np.ndarray | None) -> None:
    """Raise ValueError unless the image is uint8[h w] and every mask has its shape."""
    if (
        image.dtype != np.uint8
        or image.ndim != 2
        or any(mask is not None and mask.shape != image.shape for mask in masks)
    ):
        shapes = [None if mask is None else mask.shape for mask in masks]
        raise ValueError(
            f"an overlay needs a uint8[h w] image and masks of its shape, not {image.dtype}{image.shape} with {shapes}."
        )


def svg_path(mask: np.ndarray | None) -> str:
    """The outlines of a mask [h w] as SVG path data, in the pixel frame of the image: pixel centres lie at halves.

    Points on a straight line between their neighbours are left out. "" for None and for an empty mask.
    """
    point = lambda x, y: f"{x + 0.5:.1f}".removesuffix(".0") + "," + f"{y + 0.5:.1f}".removesuffix(".0")
    return "".join("M" + " ".join(point(x, y) for x, y in _corners(line)) + "Z" for line in _outlines(mask))


def _corners(closed: np.ndarray) -> np.ndarray:
    """The points f[n 2] at which a closed curve turns; all of them where it does not turn at all."""
    points = closed[:-1]
    into, out = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = np.abs(into[:, 0] * out[:, 1] - into[:, 1] * out[:, 0]) > 1e-9
    return points[turns] if turns.any() else points


def _binary(mask: np.ndarray) -> np.ndarray:
    return mask if mask.dtype == bool else mask >= 0.5


def _outlines(mask: np.ndarray | None) -> list[np.ndarray]:
    """Closed curves f[n 2] (x, y; pixel centres at whole numbers) where the mask or probability crosses 0.5."""
    from contourpy import contour_generator

    if mask is None:
        return []
    level = np.pad(mask.astype(float), 1)  # a mask that touches the border is closed along it
    return [np.asarray(line) - 1 for line in contour_generator(z=level).lines(0.5)]
