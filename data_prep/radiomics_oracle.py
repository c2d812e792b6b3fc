"""Radiomics of pyradiomics 3.0.1: the reference for ``thyroid_jax.radiomics``, and a second, slow engine for tables.

Everything goes through ``RadiomicsFeatureExtractor``, the class that users of pyradiomics call. So the reference
includes its steps around the formulas: it refuses masks that are empty, one pixel or one straight line, drops
directions without a pair, and turns a formula that fails into NaN.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from thyroid_jax.errors import InputError
from thyroid_jax.shapes import Array, Bool, Float, Int

# Neighbours at distance 1 within the one slice, each pair counted both ways.
SETTINGS = {"force2D": True, "force2Ddimension": 0, "distances": [1], "symmetricalGLCM": True, "additionalInfo": False}
BIN_COUNT = 32


def version() -> str:
    """Version of the installed pyradiomics, such as "3.0.1". Raises :class:`InputError` when there is none."""
    return _pyradiomics().__version__.removeprefix("v")


def extract(
    image: Float[Array, "h w"] | Int[Array, "h w"],
    mask: Bool[Array, "h w"],
    *,
    features: Sequence[str],
    bin_width: float | None = None,
    bin_count: int | None = None,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> tuple[Float[Array, "f"], Bool[Array, "f"]]:
    """The named features of one image in double precision, and whether each is defined.

    Args:
        image: grey values of any scale.
        mask: the region.
        features: names such as ``glcm_Contrast``; the values come in this order.
        bin_width: width of a bin in grey values.
        bin_count: number of bins; 32 when neither kind of bins is given. Both at once raise ValueError.
        spacing: (row, column) size of a pixel.

    A value that pyradiomics refuses, or answers with NaN, is 0 and undefined. A value that it gives by convention, as
    for a single grey level, is defined.

    The image goes to pyradiomics in double precision: single precision would move grey values across bin edges, and
    in 8 bits the edges themselves overflow. It gets a border of one pixel outside the mask, because the extractor
    finds no label in a mask that fills its image. The border changes no value.

    Raises :class:`InputError` when pyradiomics is not installed, and ValueError for an unknown feature.
    """
    if bin_width is not None and bin_count is not None:
        raise ValueError("bin_width and bin_count: give one of them.")
    count = BIN_COUNT if bin_count is None else bin_count
    bins = {"binCount": count} if bin_width is None else {"binWidth": bin_width}
    asked = _by_class(features)  # outside _silence: pyradiomics sets its log level when it is imported
    with _silence():
        found = _run(np.pad(image, 1), np.pad(mask, 1), asked, spacing, bins)
    values = np.array([float(found.get(f"original_{name}", np.nan)) for name in features])
    valid = np.isfinite(values)
    return np.where(valid, values, 0.0), valid


def _run(
    image: np.ndarray, mask: np.ndarray, asked: dict[str, list[str]], spacing: tuple[float, float], bins: dict
) -> dict:
    """The extractor's results by its own names; {} if it refuses the mask."""
    import SimpleITK as sitk
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    extractor = RadiomicsFeatureExtractor(**SETTINGS, **bins)
    extractor.disableAllFeatures()
    extractor.enableFeaturesByName(**asked)  # shape2D, too, is only there when it is named
    volumes = [sitk.GetImageFromArray(array[None]) for array in (image.astype(np.float64), mask.astype(np.uint8))]
    rows, columns = spacing
    for volume in volumes:
        volume.SetSpacing((columns, rows, 1.0))  # SimpleITK counts x, y, z
    try:
        return extractor.execute(*volumes)
    except ValueError:  # raised for a mask that cannot be measured
        return {}


def _by_class(features: Sequence[str]) -> dict[str, list[str]]:
    """{"glcm": ["Contrast", ...], ...}; ValueError for a name that pyradiomics does not have."""
    known = {kind: features.getFeatureNames() for kind, features in _pyradiomics().getFeatureClasses().items()}
    asked = defaultdict(list)
    for feature in features:
        kind, _, name = feature.partition("_")
        if name not in known.get(kind, ()):
            raise ValueError(f"{feature!r} is no feature of pyradiomics.")
        asked[kind].append(name)
    return asked


def _pyradiomics():
    try:
        import radiomics
    except ImportError as error:
        raise InputError(
            "pyradiomics: not installed. It builds on Python 3.11 only: there, install the development requirements "
            "(uv pip install -e '.[dev]', which builds pyradiomics 3.0.1), or use the engine jax."
        ) from error
    return radiomics


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress log lines and floating-point warnings inside the ``with`` block; restore both afterwards.

    They would only repeat what is reported as undefined.
    """
    logger = logging.getLogger("radiomics")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
