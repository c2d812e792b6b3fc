"""The package as a whole: every name is exported, its examples hold, and importing it needs numpy only."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

from thyroid_jax.evaluate import statistics

MODULES = [module.name for module in pkgutil.iter_modules(statistics.__path__, f"{statistics.__name__}.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_overview_names_every_exported_function():
    functions = [name for name in statistics.__all__ if name.islower()]
    parts = {"bootstrap_p", "cluster_replicates", "interval_of", "normal_power"}
    parts |= {"pilot_area_variance", "planned_area_variance"}
    assert [name for name in functions if f":func:`{name}`" not in statistics.__doc__ and name not in parts] == []
    assert all(callable(getattr(statistics, name)) and getattr(statistics, name).__doc__ for name in statistics.__all__)


def test_importing_it_needs_numpy_only():
    check = "import sys; import thyroid_jax.evaluate.statistics; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60)
    assert not {"scipy", "sklearn", "jax"} & set(done.stdout.split())
