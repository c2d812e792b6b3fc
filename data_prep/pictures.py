"""Untrusted picture files: size and kind are checked before anything is decoded."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from thyroid_jax.errors import InputError


@contextlib.contextmanager
def opened(path: Path, kind: str, *, largest: int, noun: str = "picture") -> Iterator[Image.Image]:
    """Open a picture of one ``kind`` ("PNG", "JPEG") from a regular file of at most ``largest`` bytes.

    The ``with`` block starts when only the header has been read: the caller checks size and mode there, and then
    decodes. Raises :class:`InputError` when the file cannot be opened, or not decoded in the block. Its message calls
    the picture ``noun`` and does not name the file: the caller knows it.
    """
    try:
        if not path.is_file():
            raise InputError("file: is not a regular file")
        size = path.stat().st_size
        if size > largest:
            raise InputError(f"file: {size} bytes, the files of this set have at most {largest}")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=(kind,))
        with image:
            yield image
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise InputError(f"{noun}: not a whole {kind} file ({error})".replace(str(path), path.name)) from error
