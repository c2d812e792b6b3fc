"""How unlike the training images an image is: a Mahalanobis distance of statistics of the encoder's finer levels.

x         f32[d], of every channel of the finer half of the encoder's levels: its mean over all positions, and
          log(standard deviation + 0.001). Coarse levels tell the classes apart, fine ones the kind of picture.
z         (x - centre) / spread, with mean and standard deviation of x over training images
distance  sqrt(z^T P z / d), P the inverse of z's covariance over training images with Ledoit and Wolf's shrinkage;
          about 1 for an image like these
percentile  share of the run's validation images with a smaller distance, in [0, 100]. The distribution is fitted
          without them, so an image of the same kind has any percentile with equal probability. It is farther than
          all of v validation images with probability 1 / (v + 1): of few, that is often.

A high percentile says that the prediction is not backed by similar training images; a low one does not say that it is
right. Sources: Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial
attacks" (NeurIPS 2018); Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
(J. Multivariate Anal. 88, 2004).
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax import model
from thyroid_jax.data import source
from thyroid_jax.data.record import RecordSequence
from thyroid_jax.errors import InputError
from thyroid_jax.files import write_bytes
from thyroid_jax.model import Params
from thyroid_jax.predict import Trained, fingerprint, letterboxed
from thyroid_jax.recipe import Recipe
from thyroid_jax.runs.evaluation import open_finished
from thyroid_jax.shapes import Array, Float
from thyroid_jax.untrusted import is_there, read_bytes

FILE = "report/ood.npz"
"""where a run folder keeps its reference"""
MOST_IMAGES = 500
"""images of each part, drawn at random with a fixed seed, that the distribution is fitted on and compared with"""
FEWEST_IMAGES = 2
UNLIKE = 1.0
"""an image is called unlike the training images if at most this percentage of the validation images is as far"""
_LARGEST_FILE = 256 << 20


class Reference(NamedTuple):
    """The training images' distribution: centre, spread f64[d], precision f64[d d]; sorted validation distances f64[v].

    ``training`` is the number of images it was fitted on, ``parameters`` the fingerprint of the run's parameters.
    """

    centre: np.ndarray
    spread: np.ndarray
    precision: np.ndarray
    validation: np.ndarray
    training: int
    parameters: str


@jax.jit
def features(params: Params, recipe: Recipe, image: Array) -> Float[Array, "b d"]:
    """The statistics x of a batch uint8[b h w 1] at network size."""
    latent = model.encode(params, recipe.model, image.astype(np.float32) / 255)
    levels = (*latent.skips, latent.z)
    finer = [level.astype(jnp.float32) for level in levels[: math.ceil(len(levels) / 2)]]
    return jnp.concatenate([s for f in finer for s in (f.mean((1, 2)), jnp.log(f.std((1, 2)) + 1e-3))], axis=-1)


def features_of(
    trained: Trained,
    images: Sequence[np.ndarray],
    spacings: Sequence[tuple[float, float]],
    *,
    batch_size: int = 8,
) -> np.ndarray:
    """The statistics f64[n d] of images uint8[h w] of any sizes; ``spacings`` as in predict."""
    size, found = (trained.config.data.height, trained.config.data.width), []
    for start in range(0, len(images), batch_size):
        chunk, sides = images[start : start + batch_size], spacings[start : start + batch_size]
        batch = letterboxed(chunk, sides, size, batch_size)
        found.append(np.asarray(features(trained.params, trained.recipe, batch), np.float64)[: len(chunk)])
    return np.concatenate(found)


def fitted(training: np.ndarray, validation: np.ndarray, parameters: str = "") -> Reference:
    """The reference of statistics f64[n d] of training images, and f64[v d] of validation images.

    A statistic that is the same in all training images has spread 1. Raises ValueError for fewer than two of either, or
    values that are not finite.
    """
    from sklearn.covariance import LedoitWolf

    if min(len(training), len(validation)) < FEWEST_IMAGES:
        raise ValueError(f"{len(training)} training and {len(validation)} validation images; at least 2 of each.")
    centre, deviation = training.mean(0), training.std(0)
    spread = np.where(deviation > 1e-6, deviation, 1.0)
    precision = LedoitWolf(assume_centered=True).fit((training - centre) / spread).precision_
    reference = Reference(centre, spread, precision, np.zeros(0), len(training), parameters)
    return reference._replace(validation=np.sort(distance(reference, validation)))


def distance(reference: Reference, x: np.ndarray) -> np.ndarray:
    """The distance f64[n], at least 0, of statistics f64[n d]. Values that are not finite raise ValueError."""
    if not np.isfinite(x).all():
        raise ValueError("statistics of an image are not finite.")
    z = (x - reference.centre) / reference.spread
    return np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", z, reference.precision, z), 0) / z.shape[1])


def percentile(reference: Reference, distances: np.ndarray) -> np.ndarray:
    """Percentage of the validation images that are nearer, f64[n] in [0, 100]; an equal distance counts half."""
    below = np.searchsorted(reference.validation, distances, "left")
    not_above = np.searchsorted(reference.validation, distances, "right")
    return 50 * (below + not_above) / len(reference.validation)


def fit(trained: Trained, training: Sequence[RecordSequence], validation: RecordSequence) -> Reference:
    """The reference of a run from the records of all sets that it was trained on, and of its validation part.

    Raises :class:`InputError` where there are fewer than two images.
    """
    fitted_on, compared_with = _drawn(training), _drawn([validation])
    if min(len(fitted_on), len(compared_with)) < FEWEST_IMAGES:
        raise InputError(
            f"{len(fitted_on)} training and {len(compared_with)} validation images are too few to say how unlike them "
            "an image is; leave out --ood."
        )
    return fitted(_of_records(trained, fitted_on), _of_records(trained, compared_with), fingerprint(trained))


def _drawn(parts: Sequence[RecordSequence]) -> list[tuple[RecordSequence, int]]:
    """At most :data:`MOST_IMAGES` (part, row) of all parts together, drawn without replacement."""
    places = [(part, row) for part in parts for row in range(len(part))]
    chosen = np.random.default_rng(0).permutation(len(places))[:MOST_IMAGES]
    return [places[place] for place in np.sort(chosen)]


def _of_records(trained: Trained, places: Sequence[tuple[RecordSequence, int]], *, at_once: int = 8) -> np.ndarray:
    found = []
    for start in range(0, len(places), at_once):
        records = [part[row] for part, row in places[start : start + at_once]]
        images, spacings = [record.image for record in records], [record.spacing for record in records]
        found.append(features_of(trained, images, spacings, batch_size=at_once))
    return np.concatenate(found)


def measure(
    runs: Sequence[Trained],
    references: Sequence[Reference],
    images: Sequence[np.ndarray],
    spacings: Sequence[tuple[float, float]],
    *,
    batch_size: int = 8,
) -> list[tuple[float, ...]]:
    """(distance, percentile) of each image uint8[h w]: means over the runs, each beside its own reference.

    Without references, () for each image.
    """
    if not references:
        return [()] * len(images)
    distances = [
        distance(reference, features_of(run, images, spacings, batch_size=batch_size))
        for run, reference in zip(runs, references, strict=True)
    ]
    percentiles = [percentile(reference, found) for reference, found in zip(references, distances)]
    return list(zip(np.mean(distances, axis=0).tolist(), np.mean(percentiles, axis=0).tolist()))


def describe(references: Sequence[Reference]) -> str | list[dict[str, int | str]]:
    """What the images are compared with, for each run; or that they are not."""
    if not references:
        return (
            f"not computed: a run folder has no {FILE} of its present parameters; add --ood, which needs the data set "
            "of the run."
        )
    return [
        {
            "training_images": reference.training,
            "validation_images": len(reference.validation),
            "parameters": reference.parameters,
        }
        for reference in references
    ]


# The file in a run folder


def write(path: Path, reference: Reference) -> None:
    """Write a reference as a NumPy archive, in one step."""
    file = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in reference._asdict().items()}
    np.savez_compressed(file, **arrays)
    write_bytes(path, file.getvalue())


def read(path: Path) -> Reference:
    """Read what :func:`write` wrote. Raises :class:`InputError` for a file of another content."""
    try:
        content = io.BytesIO(read_bytes(path, largest=_LARGEST_FILE))
        with zipfile.ZipFile(content) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > _LARGEST_FILE:
                raise ValueError(f"it unpacks to more than {_LARGEST_FILE} bytes")
        with np.load(content, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in Reference._fields}
            centre, spread, precision, validation = (np.asarray(arrays[n], np.float64) for n in Reference._fields[:4])
            training, parameters = int(arrays["training"]), str(arrays["parameters"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a reference of training images ({error}); remove the file.") from error
    d, v = centre.size, validation.size
    shapes = [centre.shape, spread.shape, precision.shape, validation.shape]
    finite = all(np.isfinite(array).all() for array in (centre, spread, precision, validation))
    in_order = finite and (spread > 0).all() and (np.diff(validation) >= 0).all()
    if shapes != [(d,), (d,), (d, d), (v,)] or not (d and v and in_order):
        raise InputError(f"{path}: its arrays do not fit together; remove the file.")
    return Reference(centre, spread, precision, validation, training, parameters)


def of_run(run_dir: Path, trained: Trained) -> Reference | None:
    """The reference in a run folder; None without one, or with one of other parameters than ``trained`` has.

    Raises :class:`InputError` for a damaged file.
    """
    path = run_dir / FILE
    found = read(path) if is_there(path) else None
    return found if found is not None and found.parameters == fingerprint(trained) else None


def fit_and_keep(
    run_dir: Path, trained: Trained, checkpoint: str, data_dir: Path | None, *, echo: Callable[[str], Any] = print
) -> Reference:
    """The reference of a run from its data set, written into its folder; ``echo`` is called with what is done.

    A folder that cannot be written into is no fault: the reference is then computed again the next time. ``checkpoint``
    and ``data_dir`` as in :func:`thyroid_jax.runs.open_finished`, which raises :class:`InputError` for a missing data
    set, or another one than the run was trained on.
    """
    parts = open_finished(run_dir, checkpoint, data_dir).parts
    echo(f"{run_dir}: looking at its training and validation images, at most {MOST_IMAGES} of each.")
    added = [records for records, _ in source.for_training(parts)]
    found = fit(trained, [parts.train, *added], parts.validation)
    try:
        write(run_dir / FILE, found)
    except OSError as error:
        echo(f"{run_dir / FILE}: cannot be kept ({error.strerror}).")
    return found
