"""Time the training step: plain, RLAR, the input pipeline, the PyTorch twin; or other groups. One table of ratios.

python -m experiments.benchmark [--torch-python ENV/bin/python] [--config small] [--batch-size 8] [--rounds 8]
python -m experiments.benchmark --only flags --flags xla_this=1 xla_that=2
python -m experiments.benchmark --only memory --rounds 0 [--config base] [--pixels 64 96]

Each variant runs in a process of its own, because XLA reads its flags once. The processes of a group take turns of four
steps. Each turn gives one ratio to the group's first variant, and the table shows the median of these ratios. It is
reliable even where the speed of the machine changes. The absolute times hold for this machine at this moment only.

Columns: *images/s* of the batch by the median time; *temporary MiB* and *memory*, its ratio, of the intermediate
values; *peak MiB an image*: these, arguments and results, donated buffers once. "waiting for data" is that part of the
row above it. The PyTorch twin is timed without augmentation and guidance, beside JAX without them
(``experiments/peers``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

from thyroid_jax import command, extras, model
from thyroid_jax.config import recipe_of
from thyroid_jax.errors import InputError, exits_cleanly

from .timing import rows as table
from .timing.rows import Row
from .timing.variants import Group, Variant, configure, variants
from .timing.worker import STEPS, work

WANTED = 4000  # images a second that a GPU may take


@dataclass(frozen=True)
class Arguments:
    """Time the training step of groups of variants against plain multitask training."""

    config: str = "small"
    """one of the named configs"""
    only: tuple[Group | Literal["peers"], ...] = ("rlar", "input", "peers")
    """the groups of variants, each compared with the plain step. rlar: forms of RLAR; input: the input pipeline; peers:
    the same step in PyTorch; shape: guidance target and shape consistency; evidence: what the heads read, and published
    encoders; losses: multitask methods that weigh losses; latent, parameters: those that weigh gradients there; flags:
    XLA flags and memory; memory: precision, recomputing and batches in parts
    """
    batch_size: int = 8
    rounds: int = 8
    """turns of each variant, with four timed steps each; 0 to compile alone, for the memory"""
    pixels: tuple[int, int] | None = None
    """height and width of the images, in place of the config's"""
    flags: tuple[str, ...] = ()
    """further XLA flags to time RLAR with, one at a time, without their leading dashes: xla_this=1 xla_that=2"""
    torch_python: str = ""
    """interpreter that has PyTorch (experiments/peers/README.md); without it the peers are not run"""
    out: Path | None = None
    """file to which a line of JSON is added for each row"""
    worker: str = ""
    """(used by the script itself)"""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.rounds < 0:
            raise InputError("--batch-size must be at least 1, and --rounds at least 0.")
        if not self.rounds and {"input", "peers"} & set(self.only):
            raise InputError("--rounds 0 times nothing: name groups of steps after --only, such as memory.")
        if self.flags and "flags" not in self.only:
            raise InputError("--flags changes nothing without --only flags; add it, or leave --flags out.")


def variants_of(group: Group, arguments: Arguments) -> dict[str, Variant]:
    """The variants of a group as the arguments ask for them."""
    return variants(group, batch_size=arguments.batch_size, flags=arguments.flags if group == "flags" else ())


def unfit(variant: Variant, arguments: Arguments) -> str:
    """Why a variant does not fit the config, such as a level of RLAR that a small encoder lacks; "" where it does."""
    try:
        configure(arguments.config, variant, arguments.pixels)
    except InputError as error:
        return " ".join(str(error).split())
    return ""


def start(group: Group, name: str, variant: Variant, arguments: Arguments) -> subprocess.Popen:
    """A worker process for one variant, with its own XLA flags and without the scripts' compilation cache."""
    flags = " ".join([os.environ.get("XLA_FLAGS", ""), *variant.flags]).strip()
    environment = os.environ | {"XLA_FLAGS": flags}
    words = [sys.executable, "-m", f"{command.scripts_package()}.benchmark", "--worker", name]
    words += ["--config", arguments.config, "--only", group, "--batch-size", str(arguments.batch_size)]
    words += ["--rounds", str(arguments.rounds)]
    words += ["--pixels", *map(str, arguments.pixels)] if arguments.pixels else []
    words += ["--flags", *arguments.flags] if group == "flags" and arguments.flags else []
    return subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen, name: str) -> Any:
    """The next line of JSON that the worker prints."""
    line = worker.stdout.readline()
    if not line:
        raise InputError(
            f"{name}: the process ended early; its message stands above. A flag may be unknown to this jaxlib."
        )
    return json.loads(line)


def end(worker: subprocess.Popen) -> None:
    """Let a worker end."""
    worker.stdin.close()
    worker.wait()


def measured(group: Group, arguments: Arguments) -> Iterator[Row]:
    """Start every variant of a group, let them take turns, and give their rows; without rounds each as it is ready."""
    workers, facts = {}, {}
    for name, variant in variants_of(group, arguments).items():  # one after the other: compiling disturbs
        if fault := unfit(variant, arguments):
            yield Row(group, name, missing=fault)
            continue
        workers[name] = start(group, name, variant, arguments)
        facts[name] = ask(workers[name], name)
        if not arguments.rounds:
            end(workers[name])
            yield table.rows_of(group, facts, {}, arguments.batch_size)[-1]
    if not arguments.rounds:
        return
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            turns[name].append(ask(worker, name))
    for worker in workers.values():
        end(worker)
    yield from table.rows_of(group, facts, turns, arguments.batch_size)


def peers(arguments: Arguments) -> Iterator[Row]:
    """The rows of the PyTorch twin, which ``experiments.peers.benchmark`` measures in a process of its own."""
    if not arguments.torch_python:
        yield Row("peers", "the step in PyTorch", missing="needs --torch-python ENV/bin/python")
        return
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "peers.jsonl"
        size = arguments.pixels or pixels_of(arguments)
        starts = 3 if jax.default_backend() == "cpu" else 1  # a program's speed on a CPU differs by process
        words = [sys.executable, "-m", f"{command.scripts_package()}.peers.benchmark", "--sizes", arguments.config]
        words += ["--image", *map(str, size), "--batch", str(arguments.batch_size), "--rounds", str(arguments.rounds)]
        words += ["--steps", str(STEPS), "--device", jax.default_backend(), "--turn-seconds", "60"]
        words += ["--torch-python", arguments.torch_python, "--out", str(out), "--starts", str(starts)]
        ended = subprocess.run(words, stdout=subprocess.DEVNULL, check=False)
        if ended.returncode:
            yield Row(
                "peers", "the step in PyTorch", missing=f"exit status {ended.returncode}, its message stands above"
            )
        for line in out.read_text().splitlines() if out.exists() else ():
            yield table.row_of_peer(json.loads(line))


def pixels_of(arguments: Arguments) -> tuple[int, int]:
    """Height and width of the images."""
    data = configure(arguments.config, Variant({}), arguments.pixels).data
    return data.height, data.width


def heading(arguments: Arguments) -> str:
    """What is measured, and where."""
    recipe = recipe_of(configure(arguments.config, Variant({}), arguments.pixels))
    parameters = model.parameter_count(jax.eval_shape(lambda: model.init(jax.random.key(0), recipe.model)))
    height, width = pixels_of(arguments)
    where = f"{len(jax.devices())} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    return (
        f"{arguments.config}: {parameters:,} parameters, batch {arguments.batch_size} x {height} x {width}\n"
        f"jax {jax.__version__} on {where}, {arguments.rounds} rounds of {STEPS} steps\n"
    )


def measured_where(arguments: Arguments) -> dict[str, Any]:
    """What every line of JSON says besides its row: without it, rows of several calls in one file look alike."""
    asked = {"config": arguments.config, "batch_size": arguments.batch_size, "rounds": arguments.rounds}
    return {"device": jax.devices()[0].device_kind, "jax": jax.__version__, "pixels": pixels_of(arguments)} | asked


def cores_for(row: Row) -> str:
    """How many cores of the host the pipeline needs for :data:`WANTED` images a second."""
    return f"{row.name}: {WANTED:,} images/s keep {WANTED * row.cpu_per_image:.2f} cores busy."


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the processes share one accelerator
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("benchmark"))
    if arguments.worker:
        variant = variants_of(arguments.only[0], arguments)[arguments.worker]
        config = configure(arguments.config, variant, arguments.pixels)
        work(variant, config, arguments.batch_size, timed=arguments.rounds > 0)
        return
    extras.require(*(extras.TRAINING if "input" in arguments.only else ()))
    print(heading(arguments))
    print(table.HEADER, flush=True)
    found = []
    for group in arguments.only:
        for row in peers(arguments) if group == "peers" else measured(group, arguments):
            found.append(row)
            print(table.line_of(row), flush=True)
            if arguments.out is not None:
                with arguments.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(measured_where(arguments) | asdict(row), allow_nan=False) + "\n")
    told = [cores_for(row) for row in found if "alone" in row.name and row.cpu_per_image is not None]
    print("\n".join(["", *told]) if told else "", end="\n" if told else "")


if __name__ == "__main__":
    main()
