"""Check that model, losses, penalty, gradients and updates of the PyTorch twin are those of this project.

python -m experiments.peers.check [--size small] [--method rlar] [--image 64 96] [--batch 3] [--torch-python PYTHON]

Both sides get the same random parameters and the same batch, in which some labels are missing. The table shows the
relative difference |twin - project| / |project| in the Euclidean norm of each quantity; where a row stands for several
arrays, the largest. It is an error where one is above the tolerance of its type.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from thyroid_jax import command, model
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.recipe import Recipe
from thyroid_jax.train.objective import evaluate, objective

from .. import runtime
from . import reference, weights

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
"""largest relative difference of outputs, losses, penalty and gradients"""
OF_UPDATES = {"float32": 1e-2, "float64": 1e-6}
"""of the parameters' change in three updates: Adam divides by the gradient's size, and rates are float32 in JAX"""
STEPS, TOTAL_STEPS = 3, 10
TORCH_SIDE = Path(__file__).parent / "torch_check.py"


def project_side(params: Any, arrays: dict[str, np.ndarray], chosen: Recipe, dtype: str) -> dict[str, np.ndarray]:
    """Outputs, losses, penalty, gradients and changes of the parameters, by the names that the twin gives them."""
    with jax.enable_x64(dtype == "float64"):
        typed = lambda a: jnp.asarray(a, dtype if a.dtype == np.float32 else a.dtype)
        params, batch = jax.tree.map(typed, (params, reference.as_batch(arrays, chosen)))
        found = jax.jit(_quantities, static_argnums=2)(params, batch, _Static(chosen))
        after, state, step = params, reference.initial_optimizer(params, chosen), jnp.int32(0)
        update = jax.jit(lambda *state: reference.update(*state, batch, chosen)[:3])
        for _ in range(STEPS):
            after, state, step = update(after, state, step)
        change = jax.tree.map(lambda new, old: np.asarray(new) - np.asarray(old), after, params)
        trees = {"gradient": found.pop("gradient"), "change": change}
        named = {name: np.asarray(value) for name, value in found.items()}
    for kind, tree in trees.items():
        named |= {f"{kind} {name}": a for name, a in weights.to_torch(tree, chosen.model.blocks).items()}
    return named


class _Static:
    """A recipe as a constant of a compiled function."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe


def _quantities(params: Any, batch: Any, constant: _Static) -> dict[str, Any]:
    chosen = constant.recipe
    outputs = model.apply(params, chosen.model, batch.image)
    terms = evaluate(params, outputs.latent, batch, chosen)
    gradient, _ = jax.grad(lambda p: objective(p, batch, chosen, step=TOTAL_STEPS), has_aux=True)(params)
    found = {f"output {name}": getattr(outputs, name) for name in outputs._fields[:4]}
    found["output z"] = outputs.latent.z.transpose(0, 3, 1, 2)
    found |= {f"loss {name}": sums.sum / sums.count for name, sums in terms.losses.items()}
    found |= {f"penalty {name}": sums.sum / sums.count for name, sums in terms.penalties.items()}
    return found | {"gradient": gradient}


def torch_side(params: Any, arrays: dict[str, np.ndarray], chosen: Recipe, dtype: str, python: str) -> dict[str, Any]:
    """The same quantities from the twin, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        state = weights.to_torch(params, chosen.model.blocks)
        settings = {"shape": reference.shape_fields(chosen), "training": reference.training_fields(chosen)}
        settings |= {"dtype": dtype, "steps": STEPS}
        named = {f"batch {name}": a for name, a in arrays.items()} | {f"state {name}": a for name, a in state.items()}
        np.savez(given, settings=json.dumps(settings), **named)
        done = subprocess.run([python, str(TORCH_SIDE), str(given), str(found)], check=False)
        if done.returncode:
            raise InputError(f"{python} {TORCH_SIDE.name} failed; its message stands above. Has it PyTorch?")
        with np.load(found) as file:
            return dict(file)


def differences(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Relative difference |theirs - ours| / |ours| by name; ValueError where names or shapes differ.

    Zero on both sides is no difference. A NaN anywhere gives NaN.
    """
    if set(ours) != set(theirs):
        raise ValueError(f"one side lacks {', '.join(sorted(set(ours) ^ set(theirs)))}.")
    found = {}
    for name, reference_value in ours.items():
        if reference_value.shape != theirs[name].shape:
            raise ValueError(f"{name} has the shapes {reference_value.shape} and {theirs[name].shape}.")
        length = np.linalg.norm(np.ravel(reference_value).astype(np.float64))
        distance = np.linalg.norm(np.ravel(theirs[name]).astype(np.float64) - np.ravel(reference_value))
        found[name] = float(distance / length) if length else float(distance and np.inf)
    return found


def rows(found: dict[str, float]) -> dict[str, float]:
    """The differences with gradients, and changes, of all parameters in one row each: the largest (NaN wins)."""
    table = {name: value for name, value in found.items() if name.split()[0] not in ("gradient", "change")}
    for kind in ("gradient", "change"):
        values = [value for name, value in found.items() if name.split()[0] == kind]
        table[f"{kind}, largest of {len(values)} arrays"] = float(np.max(values))
    return table


def faults(table: dict[str, float], dtype: str) -> list[str]:
    """The rows that are above their tolerance, or NaN."""
    limit = lambda name: (OF_UPDATES if name.startswith("change") else TOLERANCE)[dtype]
    return [f"{name}: {value:.1e} ({dtype})" for name, value in table.items() if not value <= limit(name)]


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(prog=command.spelled("peers.check"), description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=reference.SIZES, default="small")
    parser.add_argument("--method", choices=reference.METHODS, default="rlar")
    parser.add_argument("--image", type=int, nargs=2, metavar=("H", "W"), default=(64, 96))
    parser.add_argument("--batch", type=int, default=3)
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has PyTorch")
    arguments = parser.parse_args(argv)
    runtime.prepare()
    chosen = reference.recipe(arguments.size, arguments.method, total_steps=TOTAL_STEPS)
    if arguments.method == "rlar":  # a float32 in JAX, also where all else is float64: choose one without rounding
        chosen = chosen.with_settings("rlar", weight=0.125)
    model.check_size(chosen.model, *arguments.image)
    params = weights.random_params(reference.parameter_shapes(chosen))
    arrays = weights.random_batch(arguments.batch, *arguments.image, chosen.model.grades, missing=True)
    tables = {}
    for dtype in TOLERANCE:
        theirs = torch_side(params, arrays, chosen, dtype, arguments.torch_python)
        tables[dtype] = rows(differences(project_side(params, arrays, chosen, dtype), theirs))
    print(f"{arguments.size}, {arguments.method}, {arguments.batch} x {arguments.image[0]} x {arguments.image[1]}:")
    print(f"\n| quantity | {' | '.join(tables)} |\n|---|---|---|")
    for name in tables["float32"]:
        print(f"| {name} | {' | '.join(f'{table[name]:.1e}' for table in tables.values())} |")
    wrong = [fault for dtype, table in tables.items() for fault in faults(table, dtype)]
    if wrong:
        raise InputError(f"the twin differs from the project in {'; '.join(wrong)}.")


if __name__ == "__main__":
    main()
