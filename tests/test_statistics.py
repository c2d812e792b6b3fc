"""The package as a whole: exported names, examples, an import that needs numpy only, and all functions at the edges."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import numpy as np
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


NAN = float("nan")
PAIRS = {  # name -> (first, second, groups)
    "no case": ([], [], []),
    "one group": ([1.0, 2.0, 3.0], [1.0, 1.0, 1.0], "aaa"),
    "a value is missing": ([1.0, NAN, 3.0, 4.0], [1.0, 1.0, 1.0, 1.0], "abcd"),
    "equal": ([1.0] * 6, [1.0] * 6, "aabbcc"),
    "the same gap everywhere": ([2.0] * 6, [1.0] * 6, "aabbcc"),
}
EDGES = {  # what is measured -> its value for each of PAIRS; p of three groups that all differ alike is 2 / 2^3
    "mean difference": (lambda *pair, **by: statistics.sign_flip_test(*pair, **by).value, [NAN, 1, 5 / 3, 0, 1]),
    "sign flip, p": (lambda *pair, **by: statistics.sign_flip_test(*pair, **by).p, [NAN, 1, 0.5, 1, 0.25]),
    "Wilcoxon, median": (lambda *pair, **by: statistics.paired_wilcoxon(*pair, **by).median_difference,
                         [NAN, 1, 2, 0, 1]),
    "Wilcoxon, p": (lambda *pair, **by: statistics.paired_wilcoxon(*pair, **by).p, [1, 1, 0.5, 1, 0.25]),
    "rank biserial": (lambda *pair, **by: statistics.rank_biserial(*pair, **by).r, [NAN, 1, 1, NAN, 1]),
    "d_z": (lambda *pair, **by: statistics.cohens_dz(*pair, **by).dz, [NAN, NAN, 5 / 21**0.5, NAN, NAN]),
    "spread": (lambda *pair, **by: statistics.pilot(*pair, **by).sd, [NAN, NAN, (7 / 3) ** 0.5, 0, 0]),
}  # fmt: skip


@pytest.mark.parametrize("name, case", [(name, case) for name in EDGES for case in PAIRS])
def test_paired_functions_at_the_edges(name, case):
    """The three groups with values of "a value is missing" differ by 0, 2 and 3: mean 5/3, variance 7/3."""
    measured, expected = EDGES[name]
    first, second, groups = PAIRS[case]
    found = measured(np.array(first), np.array(second), clusters=list(groups))
    assert found == pytest.approx(expected[list(PAIRS).index(case)], nan_ok=True)


def mean_gap(first, second):
    return float(np.mean(first - second)) if len(first) else NAN


@pytest.mark.parametrize("case, bounds, p", [
    ("no case", (NAN, NAN), NAN),
    ("one group", (NAN, NAN), NAN),
    ("a value is missing", (NAN, NAN), NAN),  # a statistic says itself what it leaves out
    ("equal", (0, 0), NAN),
    ("the same gap everywhere", (1, 1), NAN),
])  # fmt: skip
def test_intervals_and_claims_at_the_edges(case, bounds, p):
    first, second, groups = PAIRS[case]
    data = list(groups), np.array(first), np.array(second)
    found = statistics.cluster_bootstrap(mean_gap, *data, samples=30)
    claim = statistics.noninferiority(mean_gap, *data, margin=0.1, samples=30)
    for interval in (found, claim):
        assert (interval.low, interval.high) == pytest.approx(bounds, nan_ok=True)
    assert claim.p_noninferior == pytest.approx(p, nan_ok=True)  # no spread was seen: that is not certainty


def test_graders_without_a_case_cannot_be_told_apart():
    found = statistics.mcnemar([], [])
    assert (found.n, found.p) == (0, 1.0) and np.isnan(statistics.discordant_odds(found).value)
