"""Time this project's training step beside the same step in PyTorch, and compare their memory.

python -m experiments.peers.benchmark [--sizes small] [--image 128 192] [--batch 8] [--torch-python PYTHON]
python -m experiments.peers.benchmark --device gpu --sizes base --image 256 256 --batch 32 8 128
    --dtype bfloat16 float32 tf32 --compile --peak-tflops bfloat16=989 float32=67 tf32=494 --seconds 200 --out FILE

A stage is a size, batch, type and method. Its processes, one for JAX and one for each form of the PyTorch twin, start
with the same weights and the same batch, and take turns of a few steps. Each turn gives a ratio of times; the table
has the medians. Augmentation and the guidance target are left out on both sides. A program is faster or slower by a
quarter in another process: with ``--starts`` the processes are started anew so many times, and the row has the median
of the starts' ratios, and the lowest and highest.

Forms of the twin: ``eager`` (channels_last), ``eager_nchw`` (contiguous), and with ``--compile`` ``compile``. With
RLAR, ``compile`` compiles the encoder alone, because compiled functions cannot be differentiated twice.

Types: ``float32`` without TF32 on both sides; ``tf32`` where both may use it; ``bfloat16`` for the convolutions
(autocast in PyTorch), the heads and losses in float32. On a GPU the processes of a large stage would not fit into its
memory together. They then run one after another (``--together``).

A process that fails gives its error, and the others go on. ``--out`` gets a line of JSON for each process.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from thyroid_jax import command, model
from thyroid_jax.errors import InputError, exits_cleanly

from ..runtime import CPU_FLAGS
from . import flops, reference, turns, weights

DTYPES = ("bfloat16", "float32", "tf32")
FORMS = {"eager": "channels_last", "eager_nchw": "contiguous", "compile": "channels_last"}
"""form of the twin -> layout of its images"""
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1), "MALLOC_ARENA_MAX": "1"}
"""both sides keep freed memory for the next step, as this project's scripts do (experiments/runtime.py)"""


@dataclass(frozen=True)
class Stage:
    """What one row of the table compares."""

    size: str
    method: str
    dtype: str
    batch: int
    image: tuple[int, int]


def stages(arguments: argparse.Namespace) -> list[Stage]:
    """All stages, the most important first: sizes, then types, then batches as they were given, plain before RLAR.

    The first batch of every type comes before the other batches.
    """
    order = [(d, b) for b in arguments.batch[:1] for d in arguments.dtype]
    order += [(d, b) for d in arguments.dtype for b in arguments.batch[1:]]
    image = tuple(arguments.image)
    return [Stage(s, m, d, b, image) for s in arguments.sizes for d, b in order for m in arguments.methods]


def groups(stage: Stage, forms: Sequence[str], arguments: argparse.Namespace) -> list[list[str]]:
    """The stage's processes, in groups that run at the same time and take turns.

    All together, or on a GPU one after another where ``batch`` x bytes / 2 is above ``--together``.
    """
    names = ["jax", *forms]
    bytes_of = 2 if stage.dtype == "bfloat16" else 4
    if arguments.device == "gpu" and stage.batch * bytes_of / 2 > arguments.together:
        return [[name] for name in names]
    return [names]


# --- processes --------------------------------------------------------------------------------------------------------


def settings_of(stage: Stage, name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """What a process has to know. ``name`` is jax or a form of the twin."""
    bfloat16 = stage.dtype == "bfloat16"
    chosen = reference.recipe(stage.size, stage.method, bfloat16=bfloat16, total_steps=0)  # constant rates
    model.check_size(chosen.model, *stage.image)
    path = folder / f"{stage.size}.npz"
    if not path.exists():
        params = weights.random_params(reference.parameter_shapes(chosen))
        np.savez(path, **weights.to_torch(params, chosen.model.blocks))
    common = asdict(stage) | {"device": arguments.device, "weights": str(path)}
    common |= {"shape": reference.shape_fields(chosen), "training": reference.training_fields(chosen)}
    layout = {"layout": FORMS.get(name, ""), "compiled": name == "compile", "compile_mode": arguments.compile_mode}
    return common | layout


def start(stage: Stage, name: str, alone: bool, folder: Path, arguments: argparse.Namespace) -> turns.Child:
    """Start one process of a stage. It imports and says that it is ready; the device is touched at ``first``."""
    path = folder / f"{name}_{time.monotonic_ns()}.json"
    path.write_text(json.dumps(settings_of(stage, name, folder, arguments)))
    environment = os.environ | MALLOC
    if name != "jax":
        words = [arguments.torch_python, str(Path(__file__).parent / "torch_process.py"), str(path)]
        return turns.start(name, words, environment)
    if arguments.device == "cpu":
        flags = os.environ.get("XLA_FLAGS", "")
        ours = [flag for flag in CPU_FLAGS if flag.split("=")[0] not in flags]
        environment |= {"XLA_FLAGS": " ".join([flags, *ours]).strip(), "JAX_PLATFORMS": "cpu"}
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if alone:
        environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.95"  # as much as PyTorch may take
    words = [sys.executable, "-m", f"{command.scripts_package()}.peers.jax_process", str(path)]
    return turns.start(name, words, environment)


def measure(children: Sequence[turns.Child], left: Callable[[], float], arguments: Any) -> dict[str, dict[str, Any]]:
    """Set every child up, warm it up, let them take turns, and ask for their facts: what was found, by name.

    ``left`` gives the seconds of the budget that are left. A child that fails has ``error`` and gets no more turns.
    """
    found: dict[str, dict[str, Any]] = {child.name: {"seconds": [], "cpu_seconds": []} for child in children}
    alive = lambda: [child for child in children if "error" not in found[child.name]]

    def told(child: turns.Child, reply: Any) -> Any:
        """The reply; None for one that is an error, which is kept."""
        if not turns.failed(reply):
            return reply
        found[child.name]["error"] = turns.failed(reply)
        turns.stop(child, 0.0)  # one that still compiles would disturb the others
        return None

    for child in children:
        told(child, turns.answered(child, left()))
    for at_once in [alive()] if arguments.set_up == "at_once" else [[child] for child in alive()]:
        ends = time.monotonic() + min(left(), arguments.set_up_seconds)
        for child in at_once:
            turns.tell(child, "first", 0)
        for child in at_once:
            if reply := told(child, turns.answered(child, ends - time.monotonic())):
                found[child.name] |= {"setup_s": reply["seconds"], "first_objective": reply["objective"]}
    for child in alive():
        if reply := told(child, turns.ask(child, "warm", arguments.warm_up, left())):
            fitting = int(arguments.turn_seconds * arguments.warm_up / reply["seconds"])
            found[child.name]["steps_of_turn"] = max(1, min(arguments.steps, fitting))
    for _ in range(arguments.rounds):
        for child in alive():
            steps = found[child.name]["steps_of_turn"]
            if reply := told(child, turns.ask(child, "go", steps, left())):
                for kind in ("seconds", "cpu_seconds"):
                    found[child.name][kind].append(reply[kind] / steps)
                found[child.name]["last_objective"] = reply["objective"]
    for child in alive():
        found[child.name] |= told(child, turns.ask(child, "facts", 0, left())) or {}
    return found


def run(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A record of every process, as soon as all its starts are measured, until the budget of seconds is used up.

    On a GPU the next group's processes start, and import, while the present one is measured.
    """
    ends = time.monotonic() + arguments.seconds
    left = lambda: ends - time.monotonic()
    each = [(stage, group) for stage in stages(arguments) for group in groups(stage, arguments.forms, arguments)]
    jobs = [job for job in each for _ in range(arguments.starts)]
    starts: list[dict[str, dict[str, Any]]] = []  # of the present job
    of_jax: dict[Stage, dict[str, Any]] = {}
    ahead: list[turns.Child] = []
    with tempfile.TemporaryDirectory() as name:
        begin = lambda job: [start(job[0], kind, len(job[1]) == 1, Path(name), arguments) for kind in job[1]]
        try:
            for number, (stage, group) in enumerate(jobs):
                if left() <= 0:
                    break
                children = ahead or begin((stage, group))
                ahead = begin(jobs[number + 1]) if arguments.device == "gpu" and number + 1 < len(jobs) else []
                try:
                    starts.append(measure(children, left, arguments))
                finally:
                    for child in children:
                        turns.stop(child, 10.0 if left() > 0 else 1.0)
                if len(starts) < arguments.starts and left() > 0:
                    continue
                found, starts = joined(starts), []
                of_jax.setdefault(stage, found.get("jax", {}))
                for side, row in found.items():
                    yield record(stage, side, row | {"alone": len(group) == 1}, of_jax[stage], arguments)
        finally:
            for child in ahead:
                turns.stop(child, 1.0)


def joined(starts: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What several starts of the same processes found, as one: the turns of all, and an error of any."""
    found = {}
    for name in starts[0]:
        rows = [start[name] for start in starts]
        every = lambda kind, rows=rows: [seconds for row in rows for seconds in row[kind]]
        found[name] = {key: value for row in rows for key, value in row.items()}  # the last start's facts
        found[name] |= {kind: every(kind) for kind in ("seconds", "cpu_seconds")}
    return found


# --- results ----------------------------------------------------------------------------------------------------------

AGREES = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 3e-2}
"""largest relative difference of the first step's objective; above it the two sides do not compute the same"""


def record(
    stage: Stage, side: str, row: dict[str, Any], of_jax: dict[str, Any], arguments: argparse.Namespace
) -> dict[str, Any]:
    """What one process found, as a line of the results.

    ``time_ratio`` is the median over the turns of its time by JAX's; above 1 it is slower than JAX. With several starts
    of the processes it is the median of theirs, ``time_ratios``. ``cpu_time_ratio`` is that of the CPU time, which
    other programs on the machine disturb less. ``mfu`` is the plain step's model FLOPs as a share of the peak; NaN for
    RLAR, whose step has more of them.
    """
    counted = flops.of_plain_step(reference.recipe(stage.size, "plain").model, stage.batch, *stage.image)
    peak = arguments.peak_tflops.get(stage.dtype, 0.0) if stage.method == "plain" else 0.0
    median = statistics.median(row["seconds"]) if row["seconds"] else math.nan
    found = {"median_s": median}
    for name in ("time_ratio", "cpu_time_ratio"):
        kind = "cpu_seconds" if name.startswith("cpu") else "seconds"
        each = ratios_of_starts(row.get(kind, []), of_jax.get(kind, []), arguments.rounds)
        found |= {name: statistics.median(each) if each else math.nan, f"{name}s": each}
    found |= {"plain_step_flops": counted, "mfu": flops.utilisation(counted, median, peak)}
    ours, theirs = (values.get("first_objective", math.nan) for values in (of_jax, row))
    found["objective_difference"] = abs(theirs - ours) / abs(ours) if ours else math.nan
    return asdict(stage) | {"side": side} | row | found


def median_ratio(seconds: Sequence[float], reference_seconds: Sequence[float]) -> float:
    """Median over the turns of one side's time by the other's; NaN where a side lacks turns."""
    if not seconds or len(seconds) != len(reference_seconds):
        return math.nan
    return statistics.median(own / other for own, other in zip(seconds, reference_seconds))


def ratios_of_starts(seconds: Sequence[float], reference_seconds: Sequence[float], rounds: int) -> list[float]:
    """The median ratio of each start, of ``rounds`` turns each; none where a side lacks turns."""
    if len(seconds) != len(reference_seconds):
        return []
    parts = [slice(first, first + rounds) for first in range(0, len(seconds), rounds)]
    return [median_ratio(seconds[part], reference_seconds[part]) for part in parts]


def without_nan(value: Any) -> Any:
    """The value with None for every NaN: JSON has none."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


COLUMNS = ("stage", "side", "ms/step", "images/s", "time / JAX", "CPU time / JAX", "step MiB", "process MiB")
COLUMNS += ("set up s", "% of peak", "objective")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def table_row(line: dict[str, Any]) -> str:
    """A record as a row of the table; a dash where there is no value, and the error where there is one."""
    name = f"{line['size']} {line['method']} {line['dtype']} {line['batch']} x {line['image'][0]} x {line['image'][1]}"
    if line.get("error"):
        return f"| {name} | {line['side']} | {line['error'].replace('|', '/')} {'|' * 9}"
    shown = lambda key, form, scale=1.0: "-" if missing(line.get(key)) else form.format(line[key] * scale)
    speed = "-" if missing(line["median_s"]) else f"{line['batch'] / line['median_s']:.0f}"
    several = len(line["time_ratios"]) > 1 and line["side"] != "jax"
    among = f" ({min(line['time_ratios']):.2f} to {max(line['time_ratios']):.2f})" if several else ""
    cells = [shown("median_s", "{:.2f}", 1e3), speed, shown("time_ratio", "{:.2f}") + among]
    cells += [
        shown("cpu_time_ratio", "{:.2f}"),
        shown("step_mib", "{:.0f}"),
        shown("process_mib", "{:.0f}"),
        shown("setup_s", "{:.1f}"),
        shown("mfu", "{:.1f}", 100),
    ]
    return f"| {name} | {line['side']} | {' | '.join(cells)} | {shown('first_objective', '{:.5f}')} |"


def differs(line: dict[str, Any]) -> bool:
    """Whether the first objective is too far from JAX's for the same computation, or was not measured."""
    return not line["objective_difference"] <= AGREES[line["dtype"]]


def missing(value: Any) -> bool:
    """Whether there is no number."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; ``forms`` are the forms of the twin. Raises :class:`InputError` for those that make no sense."""
    parser = argparse.ArgumentParser(
        prog=command.spelled("peers.benchmark"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", nargs="+", choices=reference.SIZES, default=["small"])
    parser.add_argument("--methods", nargs="+", choices=reference.METHODS, default=["plain", "rlar"])
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    parser.add_argument("--batch", nargs="+", type=int, default=[8], help="in the order of their importance")
    parser.add_argument("--image", nargs=2, type=int, metavar=("H", "W"), default=[128, 192])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--compile-mode", default=None, help="mode of torch.compile, such as max-autotune")
    eager = {"choices": ("eager", "eager_nchw"), "default": ["eager", "eager_nchw"]}
    parser.add_argument("--eager", nargs="*", help="forms of the twin; none for JAX alone", **eager)
    parser.add_argument("--warm-up", type=int, default=3, help="steps before the first turn, after the very first")
    parser.add_argument("--steps", type=int, default=10, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every process")
    parser.add_argument("--starts", type=int, default=1, help="how often every process is started anew")
    parser.add_argument("--turn-seconds", type=float, default=2.0, help="a turn takes fewer steps, to last so long")
    parser.add_argument("--set-up", choices=("in_turn", "at_once"), default="in_turn", help="at_once: compile at once")
    parser.add_argument(
        "--set-up-seconds", type=float, default=120, help="longest set-up, else the process is given up"
    )
    parser.add_argument("--seconds", type=float, default=math.inf, help="budget; then the rest is left out")
    parser.add_argument("--together", type=float, default=32, help="largest bfloat16 batch that shares the GPU")
    parser.add_argument("--peak-tflops", nargs="+", default=[], metavar="DTYPE=TFLOPS")
    parser.add_argument("--torch-python", default=sys.executable, help="interpreter that has PyTorch")
    parser.add_argument("--out", type=Path, help="file to which a line of JSON is added for every process")
    arguments = parser.parse_args(argv)
    arguments.peak_tflops = peaks(arguments.peak_tflops)
    arguments.forms = [*arguments.eager, *(["compile"] if arguments.compile else [])]
    if arguments.compile_mode and not arguments.compile:
        raise InputError("--compile-mode changes nothing without --compile; add --compile, or leave it out.")
    if min(arguments.steps, arguments.rounds, arguments.starts, arguments.warm_up, *arguments.batch) < 1:
        raise InputError("--steps, --rounds, --starts, --warm-up and --batch must be at least 1.")
    if arguments.device == "cpu" and "tf32" in arguments.dtype:
        raise InputError("--dtype tf32 is a type of GPUs; on the CPU it would be float32 once more. Leave it out.")
    return arguments


def peaks(words: Sequence[str]) -> dict[str, float]:
    """``bfloat16=989 float32=67`` as numbers by type; InputError for another form."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = math.nan
        if name not in DTYPES or not 0 < found[name] < math.inf:
            raise InputError(f"--peak-tflops {word!r}: write DTYPE=TFLOPS, with one of {', '.join(DTYPES)}.")
    return found


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    arguments = parse(argv)
    jax.config.update("jax_platforms", "cpu")  # of this process, which computes nothing: the GPU is for the others
    print(HEADER, flush=True)
    lines = []
    for line in run(arguments):
        lines.append(line)
        print(table_row(line), flush=True)
        if arguments.out:
            with arguments.out.open("a") as file:
                file.write(json.dumps(without_nan(line)) + "\n")
    planned = len(stages(arguments)) * (1 + len(arguments.forms))
    if len(lines) < planned:
        print(f"\n{planned - len(lines)} of {planned} rows are left out: the {arguments.seconds:g} s are used up.")
    for line in lines:
        if "error" not in line and differs(line):
            print(f"\nNOT COMPARABLE: the first objective differs from JAX's, or is missing. {table_row(line)}")


if __name__ == "__main__":
    main()
