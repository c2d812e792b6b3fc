"""Untrusted picture files: size and kind are checked before anything is decoded."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep import scan
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import read_bytes

LARGEST_FILE = 16 << 20  # bytes; the pictures of public sets have some 300 KiB
LARGEST_SIDE = 4096  # pixels


@contextlib.contextmanager
def opened(
    path: Path, *kinds: str, largest: int = LARGEST_FILE, widest: int = LARGEST_SIDE, noun: str = "picture"
) -> Iterator[Image.Image]:
    """Open a picture of one of ``kinds`` ("PNG", "JPEG") from a regular file of at most ``largest`` bytes.

    The ``with`` block starts when only the header has been read: the caller checks size and mode there, and then
    decodes. Raises :class:`InputError` when a side has more than ``widest`` pixels, or when the file cannot be opened,
    or not decoded in the block. Its message calls the picture ``noun`` and does not name the file: the caller knows it.
    """
    content = read_bytes(path, largest=largest)
    try:
        with Image.open(io.BytesIO(content), formats=kinds) as image:
            if max(image.size) > widest:
                raise InputError(f"size: {image.width} x {image.height}, a side has at most {widest} pixels")
            yield image
    except InputError:
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        Image.DecompressionBombWarning,
        Image.DecompressionBombError,
    ) as error:
        raise InputError(f"{noun}: not a whole {' or '.join(kinds)} file ({_without_address(error)})") from error


def _without_address(error: BaseException) -> str:
    """The error's text; PIL's "cannot identify image file <_io.BytesIO object at 0x...>" says nothing more."""
    return "its content is another" if "BytesIO" in str(error) else str(error)


def pixels(path: Path, *kinds: str, modes: Sequence[str], **limits: int) -> np.ndarray:
    """The pixels of a picture as PIL has them: uint8[h w], uint8[h w c], or bool[h w] for a picture of one bit.

    Raises :class:`InputError` when PIL's name of its colour mode is not among ``modes``, or as :func:`opened` does. A
    palette ("P", if it is among ``modes``) is resolved to red, green, blue and alpha.
    """
    with opened(path, *kinds, **limits) as picture:
        if picture.mode not in modes:
            raise InputError(f"colours: the picture's mode is {picture.mode}, known are {' '.join(modes)}")
        return np.asarray(picture.convert("RGBA") if picture.mode == "P" else picture)


def grey(picture: np.ndarray) -> np.ndarray:
    """The luma uint8[h w] of :func:`pixels`; the parts of a picture that are transparent become black.

    A picture has one channel, one and alpha (LA), three, or three and alpha. One bit becomes 0 and 255.
    """
    if picture.ndim == 2:
        return np.where(picture, np.uint8(255), np.uint8(0)) if picture.dtype == np.bool_ else picture
    opaque = picture[..., -1] / 255 if picture.shape[-1] in (2, 4) else 1.0
    luma = picture[..., 0] if picture.shape[-1] == 2 else scan.to_grey(picture)
    return np.round(luma * opaque).astype(np.uint8)


def outline(picture: np.ndarray, shape: tuple[int, ...], *, above: int | None = None) -> np.ndarray:
    """The marked pixels, bool[h w], of a mask that :func:`pixels` has read; it may be empty.

    A pixel is marked where its grey value exceeds ``above``. By default the mask has two values, 0 and the largest of
    its kind (255), and any other is a fault; give a threshold for masks that were compressed with loss. Raises
    :class:`InputError` for another size than ``shape`` (h, w) or another value.
    """
    if picture.shape[:2] != tuple(shape[:2]):
        (h, w), (height, width) = picture.shape[:2], shape[:2]
        raise InputError(f"size: {w} x {h}, but the image is {width} x {height}")
    values = grey(picture)
    if above is not None:
        return values > above
    if odd := int(((values > 0) & (values < 255)).sum()):
        raise InputError(f"values: {odd} pixels are neither 0 nor 255")
    return values > 0


def fills_frame(mask: np.ndarray) -> bool:
    """Whether a mask bool[h w] marks all four corners and over half of its pixels, as one that is inside out does."""
    return bool(mask[[0, 0, -1, -1], [0, -1, 0, -1]].all() and mask.mean() > 0.5)
