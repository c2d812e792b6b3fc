"""Files that PIL reads: PNG, JPEG, BMP and TIFF."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from thyroid_jax.data.formats import limits
from thyroid_jax.data.formats._shared import Convert, Stored, faults_of
from thyroid_jax.errors import InputError

_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16L", "I;16B", "I", "F"}
_REDUCED = {2: 85, 4: 17}  # what PIL multiplies grey values of few bits by, so that white is 255
_TURNS: dict[int, Convert] = {  # EXIF's orientation, what brings it upright
    2: lambda page: page[:, ::-1],
    3: lambda page: page[::-1, ::-1],
    4: lambda page: page[::-1],
    5: lambda page: page.swapaxes(0, 1),
    6: lambda page: page[::-1].swapaxes(0, 1),
    7: lambda page: page[::-1, ::-1].swapaxes(0, 1),
    8: lambda page: page[:, ::-1].swapaxes(0, 1),
}
TURNED = "turned as EXIF says"
_ORIENTATION, _BITS, _PHOTOMETRIC, _DESCRIPTION = 274, 258, 262, 270  # tags of EXIF and TIFF


class _Page(NamedTuple):
    """Values [h w] or [h w 3] of one page, and its alpha [h w] where it has one."""

    values: np.ndarray
    alpha: np.ndarray | None
    remarks: tuple[str, ...] = ()


def read(content: bytes, *, exact: bool) -> Stored:
    """Values of all pages, which are alike; ``exact`` keeps palette indices and grey levels of few bits."""
    from PIL import Image

    pages: list[_Page] = []
    palettes: list[np.ndarray | None] = []
    pixels = 0
    with faults_of("picture"), Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "BMP", "TIFF")) as image:
        first = _words(image)
        for number in _page_numbers(image):
            if _words(image) != first:
                raise InputError(f"pages: page {number + 1} is {_words(image)}, the first is {first}")
            pixels += image.width * image.height
            limits.check_size(image.height, image.width, number + 1, pixels)
            _check_colours(image, content, exact)
            pages.append(_upright_page(image, content, exact))
            palettes.append(_palette(image) if exact else None)
        known = [palette for palette in palettes if palette is not None]
        if any(not np.array_equal(palette, known[0]) for palette in known):
            raise InputError("pages: have different palettes; save the mask as grey")
        lossy = image.format in ("JPEG", "MPO") or image.info.get("compression") == "jpeg"
        if len({page.values.shape for page in pages}) != 1:
            raise InputError("pages: EXIF turns some pages of the file and not others")
        remarks = dict.fromkeys(remark for page in pages for remark in page.remarks)
        if image.format == "MPO":
            remarks["only the first picture of the file is read"] = None
    opaque = [page.alpha for page in pages if page.alpha is not None]
    if opaque and len(opaque) != len(pages):
        raise InputError("pages: some are transparent and others are not")
    values, alpha = np.stack([page.values for page in pages]), np.stack(opaque) if opaque else None
    return Stored(values, alpha, remarks=tuple(remarks), palette=known[0] if known else None, lossy=lossy)


def _palette(image: Any) -> np.ndarray | None:
    """The colours uint8[256 3] of a picture's palette, black where it has fewer; None without palette."""
    if image.mode != "P":
        return None
    table = np.zeros((256, 3), np.uint8)
    colours = np.frombuffer(bytes(image.getpalette("RGB") or b""), np.uint8)[:768].reshape(-1, 3)
    table[: len(colours)] = colours
    return table


def _words(image: Any) -> str:
    return f"{image.width} x {image.height} {image.mode}"


def _page_numbers(image: Any) -> Iterator[int]:
    """Go through the pages of a TIFF file, or stay at the one picture of another format."""
    if image.format != "TIFF":
        if image.format == "PNG" and getattr(image, "is_animated", False):
            raise InputError("picture: an animated PNG; save its frames as a TIFF file of several pages")
        yield 0
        return
    stack = re.match(r"ImageJ=[^\0]*?\nimages=(\d{1,9})\b", str(image.tag_v2.get(_DESCRIPTION, "")))
    for number in range(limits.MOST_FRAMES + 1):
        try:
            image.seek(number)
        except EOFError:
            break
        yield number
    if stack and int(stack[1]) > number:
        raise InputError(f"pages: ImageJ wrote {stack[1]} but only {number} are listed; save as a plain TIFF file")


def _check_colours(image: Any, content: bytes, exact: bool) -> None:
    if image.mode == "CMYK" and image.format == "JPEG" and not exact:
        return
    if image.mode not in _MODES:
        kind = "CMYK (colours of print)" if image.mode == "CMYK" else f"of PIL's mode {image.mode}"
        raise InputError(f"colours: {kind}; save the picture as grey or RGB")
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0 and image.mode not in ("1", "L"):
        raise InputError("colours: zero is white in a TIFF of more than 8 bits; save it with zero as black")
    if _depth(image, content) == 16 and image.mode in ("LA", "RGB", "RGBA"):
        if exact:
            raise InputError("colours: a mask of 16 bits a colour; save it with 8")
        if "transparency" in image.info:
            raise InputError("colours: one colour of 16 bits is transparent; save the picture with 8")


def _depth(image: Any, content: bytes) -> int:
    """Bits a channel in the file; PIL shows 8 for many others."""
    if image.format == "PNG":
        return content[24]
    bits = image.tag_v2.get(_BITS, (1,)) if image.format == "TIFF" else (8,)
    return int(bits[0] if isinstance(bits, tuple) else bits)


def _upright_page(image: Any, content: bytes, exact: bool) -> _Page:
    """The page that ``image`` is at, turned as its EXIF orientation says."""
    remarks = []
    if image.mode == "CMYK":
        remarks.append("colours of print (CMYK) turned to RGB")
    if not exact and image.mode == "RGB" and _depth(image, content) == 16:
        remarks.append("16 bits of colour cut to 8")
    orientation = (image.tag_v2 if image.format == "TIFF" else image.getexif()).get(_ORIENTATION)
    values, alpha, _ = _page(image, content, exact)  # PIL forgets the orientation of a TIFF when it loads the pixels
    if orientation in _TURNS:
        remarks.append(TURNED)
        if image.format != "TIFF":  # PIL turns TIFF by itself
            turn = _TURNS[orientation]
            values, alpha = turn(values), None if alpha is None else turn(alpha)
    return _Page(values, alpha, tuple(remarks))


def _page(image: Any, content: bytes, exact: bool) -> _Page:
    """The page that ``image`` is at, as it is stored."""
    if image.mode == "CMYK":
        return _Page(np.asarray(image.convert("RGB")), None)
    values = np.asarray(image)
    if image.mode == "LA":
        return _Page(values[..., 0], values[..., 1])
    if image.mode == "RGBA":
        return _Page(values[..., :3], values[..., 3])
    if image.mode in ("I;16B", "I;16L") or (image.mode, image.format) == ("I", "PNG"):  # the last in older PIL
        values = values.astype(np.uint16)
    small = values // np.uint8(_REDUCED.get(_depth(image, content), 1)) if image.mode == "L" else values
    alpha = _transparency(image.info.get("transparency"), small)
    if alpha is not None and values.dtype == np.uint16:
        alpha = alpha.astype(np.uint16) * np.uint16(257)
    if image.mode == "P" and not exact:
        return _Page(np.asarray(image.convert("RGB")), alpha)
    return _Page(small if exact else values, alpha)


def _transparency(clear: Any, values: np.ndarray) -> np.ndarray | None:
    """Alpha uint8[h w] of a PNG that names one value, one colour, or an alpha for each entry of its palette."""
    if clear is None:
        return None
    if isinstance(clear, bytes):
        table = np.full(256, 255, np.uint8)
        table[: len(clear)] = np.frombuffer(clear, np.uint8)[:256]
        return table[values]
    hit = (values == np.array(clear)).all(axis=-1) if isinstance(clear, tuple) else values.astype(np.int64) == clear
    return np.where(hit, np.uint8(0), np.uint8(255))
