"""Packages that only some commands need: a missing one is named before any work is done, with the command for it.

``import thyroid_jax`` needs none of them. A script calls :func:`require` first, with what it will use.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from thyroid_jax.errors import InputError


class Package(NamedTuple):
    """An optional package: its name in the registry, and the extra of this project that installs it."""

    name: str
    extra: str


PACKAGES = {  # module -> package; of two extras that hold a package, the smaller
    "tensorflow_datasets": Package("tensorflow-datasets", "data"),
    "importlib_resources": Package("importlib_resources", "data"),
    "array_record": Package("array-record", "data"),
    "grain": Package("grain", "data"),
    "skimage": Package("scikit-image", "data"),
    "defusedxml": Package("defusedxml", "data"),
    "openpyxl": Package("openpyxl", "data"),
    "h5py": Package("h5py", "data"),
    "scipy": Package("scipy", "report"),
    "sklearn": Package("scikit-learn", "report"),
    "matplotlib": Package("matplotlib", "report"),
    "jinja2": Package("jinja2", "report"),
    "pydicom": Package("pydicom", "formats"),
    "nibabel": Package("nibabel", "formats"),
    "highdicom": Package("highdicom", "formats"),
    "flatbuffers": Package("flatbuffers", "export"),
    "tensorboardX": Package("tensorboardX", "tensorboard"),
    "submitit": Package("submitit", "slurm"),
}

RECORDS = ("tensorflow_datasets", "importlib_resources", "array_record", "sklearn")
"""modules that read a built data set and split it"""
BUILDING = (*RECORDS, "scipy", "skimage", "defusedxml", "openpyxl", "h5py")
"""modules that read originals and build data sets"""
TRAINING = (*RECORDS, "grain", "scipy")
"""modules that train a run"""
STATISTICS = ("scipy",)
"""modules that compute intervals and tests, and draw outlines"""
PAGE = ("jinja2", "matplotlib", "scipy")
"""modules that write a page"""


def missing(modules: Sequence[str]) -> list[str]:
    """Those of the modules, names in :data:`PACKAGES`, that are not installed, in their order; none is imported."""
    return [name for name in dict.fromkeys(modules) if importlib.util.find_spec(name) is None]


def require(*modules: str) -> None:
    """Raise :class:`InputError` that names every missing module of ``modules`` and the command that installs them.

    ``modules`` are names in :data:`PACKAGES`; another name raises KeyError.
    """
    packages = [PACKAGES[name] for name in modules if name in missing(modules)]
    if packages:
        names = ", ".join(dict.fromkeys(package.name for package in packages))
        extras = ",".join(sorted({package.extra for package in packages}))
        raise InputError(f"missing packages: {names}. Install them with: {install_command(extras)}.")


def install_command(extras: str) -> str:
    """The command that adds extras, such as ``data,report``, to the present installation: a checkout or a wheel."""
    if (Path(__file__).parent / "experiments").is_dir():  # a wheel has the scripts inside this package
        return f"pip install 'thyroid-jax[{extras}]'"
    return f"pip install -e '.[{extras}]' in the folder of this project"
