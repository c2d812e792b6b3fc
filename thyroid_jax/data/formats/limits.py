"""How large files, pictures, headers and pixels may be. Sizes are compared with these before anything is decoded."""

from __future__ import annotations

from thyroid_jax.errors import InputError

LARGEST_PICTURE = 64 << 20  # bytes of a PNG, JPEG, BMP or TIFF file
LARGEST_ARRAY = 256 << 20  # bytes of a DICOM, NIfTI or npy file, also after unpacking .nii.gz
LARGEST_SIDE = 8192  # pixels
MOST_FRAMES = 4096
MOST_PIXELS = 1 << 29  # of all frames together
LARGEST_RLE_FRAME = 1 << 24  # bytes of a decoded frame: a hostile one takes up to 64 times as much memory
LARGEST_ELEMENT = 1 << 20  # bytes of a DICOM element other than the pixels; the longest tables have 128 KiB
PIXEL_SIDES = (0.001, 10.0)  # mm: the least and the largest side of a pixel that is believed
MOST_READS = 200_000  # pieces that a DICOM header is read in; a usual one has some hundred


def check_size(h: int, w: int, frames: int, pixels: int | None = None) -> None:
    """Raise InputError for an empty or too large array; ``pixels`` is the sum of all frames, if they are not alike."""
    pixels = frames * h * w if pixels is None else pixels
    if min(h, w, frames) < 1:
        raise InputError(f"size: {frames} frames of {w} x {h} pixels, there are none to read")
    if max(h, w) > LARGEST_SIDE:
        raise InputError(f"size: {w} x {h}, a side has at most {LARGEST_SIDE} pixels")
    if frames > MOST_FRAMES:
        raise InputError(f"frames: {frames}, a file has at most {MOST_FRAMES}")
    if pixels > MOST_PIXELS:
        raise InputError(f"size: {pixels} pixels in all frames, a file has at most {MOST_PIXELS}")
