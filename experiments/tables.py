"""Print the tables of a comparison again, from its pooled predictions.

python -m experiments.tables results/grades/breast_lesions plain plain+lite0+nodule [--samples 2000]

The folder holds METHOD.csv of every method, as ``python -m experiments.compare`` writes them. Differences are to the
first method.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from thyroid_jax.errors import exits_cleanly
from thyroid_jax.evaluate.cases import read_cases
from thyroid_jax.evaluate.paired import comparison


def tables(
    folder: tyro.conf.Positional[Path], methods: Annotated[tuple[str, ...], tyro.conf.Positional], samples: int = 2000
) -> None:
    """Print the tables of a comparison again, from its pooled predictions.

    Args:
        folder: holds METHOD.csv of every method.
        methods: the methods; the others are compared to the first.
        samples: bootstrap replicates.
    """
    print(comparison({method: read_cases(folder / f"{method}.csv") for method in methods}, samples=samples))


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    tyro.cli(tables, args=argv, prog="python -m experiments.tables")


if __name__ == "__main__":
    main()
