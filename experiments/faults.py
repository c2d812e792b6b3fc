"""Try whether interrupted training loses anything: kills, SIGTERMs and refused writes against an undisturbed run.

python -m experiments.faults --out runs/faults [--kills 50] [--terms 20] [--failures 20] [--runs 5] [--seed 0]

A small network is trained on phantoms by ``python -m experiments.train``, in a process of its own, with a checkpoint
after every step. Each disturbed run is interrupted again and again: by ``kill -9`` or SIGTERM at a random moment (at
the start, or after a random number of new checkpoints), or by a limit on the size of files, so that the system refuses
a write as a full disk does. Then it is trained to its end. Its last and best parameters, and its log without what
depends on the clock, must be those of the undisturbed run, bit for bit. The table says what was tried; the exit status
is 1 where anything differs.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import tyro

from data_prep import builder, phantom
from thyroid_jax import checkpoints, command, extras, predict
from thyroid_jax.data.storage import folder_of
from thyroid_jax.errors import exits_cleanly
from thyroid_jax.train.log import read_log, without_machine

FIELDS = (
    "--config tiny plain --train.batch-size 16 --train.epochs 12 --train.evaluate-every 3 --train.diagnose-every 4 "
    "--checkpoint-minutes 0.00001 --data.name phantom"
)
PHANTOMS = 96
LARGEST_LIMIT = 1 << 20  # bytes; less than the room that a checkpoint asks for


@dataclass(frozen=True)
class Arguments:
    """Interrupt small runs at random moments, and compare their ends with an undisturbed run."""

    out: Path
    """folder for the phantoms and the runs"""
    kills: int = 50
    """processes ended by kill -9"""
    terms: int = 20
    """processes stopped by SIGTERM"""
    failures: int = 20
    """processes whose writes the system refuses"""
    runs: int = 5
    """runs over which the interruptions of each kind are spread"""
    seed: int = 0
    """seed of the moments"""


Act = Callable[[subprocess.Popen[str]], None]


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, or minus the signal; what it wrote to stderr; checkpoints it made."""

    status: int
    stderr: str
    saved: int


class Tried(NamedTuple):
    """All disturbances of one kind, and what differs from the undisturbed run."""

    name: str
    ends: list[Ended]
    differing: list[str]


# --- one process ------------------------------------------------------------------------------------------------------


def start(run_dir: Path, data: Path) -> subprocess.Popen[str]:
    """The training command in a process of its own."""
    words = [sys.executable, "-m", f"{command.scripts_package()}.train", *FIELDS.split(), "--data.dir", str(data)]
    return subprocess.Popen(
        [*words, "--run-dir", str(run_dir)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def newest(run_dir: Path) -> int:
    """Step of the newest checkpoint of a run; 0 before the first one."""
    return max(checkpoints.steps(run_dir / "checkpoints" / "last"), default=0)


def disturbed(run_dir: Path, data: Path, act: Act, draw: random.Random) -> Ended:
    """Train until a random moment, then ``act``: in one of four tries at the start, else after 1 to 3 checkpoints."""
    before = newest(run_dir)
    wanted = draw.choice([0, 1, 2, 3])
    process = start(run_dir, data)
    if wanted == 0:
        time.sleep(draw.uniform(0.0, 8.0))
    while process.poll() is None and wanted and newest(run_dir) < before + wanted:
        time.sleep(0.01)
    time.sleep(draw.uniform(0.0, 0.3))
    if process.poll() is None:
        act(process)
    return ended(process, run_dir, before)


def kill(process: subprocess.Popen[str]) -> None:
    """End the process at once."""
    process.send_signal(signal.SIGKILL)


def terminate(process: subprocess.Popen[str]) -> None:
    """Ask the process to stop."""
    process.send_signal(signal.SIGTERM)


def refuse_writes(process: subprocess.Popen[str], draw: random.Random) -> None:
    """From now on the system refuses to make a file of the process larger than a random number of bytes (Linux)."""
    limit = int(np.exp(draw.uniform(np.log(20), np.log(LARGEST_LIMIT))))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))


def ended(process: subprocess.Popen[str], run_dir: Path, before: int = 0) -> Ended:
    """Wait for the end of a process."""
    _, stderr = process.communicate()
    return Ended(process.returncode, stderr, newest(run_dir) - before)


# --- many of them -----------------------------------------------------------------------------------------------------


def tried(name: str, count: int, arguments: Arguments, disturb: Callable[[Path], Ended], data: Path) -> Tried:
    """Spread ``count`` disturbances over runs, end each run, and compare it with the undisturbed one."""
    found: list[Ended] = []
    differing = []
    each = -(-count // arguments.runs)
    for place in range(arguments.runs):
        run_dir = arguments.out / f"{name}-{place}"
        for _ in range(min(each, count - len(found))):
            found.append(disturb(run_dir))
            if "Traceback" in found[-1].stderr:
                differing.append(f"{run_dir}: a process ended with a traceback: {found[-1].stderr.strip()[-300:]}")
            print(f"{name} {len(found)}/{count}: status {found[-1].status}, step {newest(run_dir)}", flush=True)
        last = ended(start(run_dir, data), run_dir)
        differing += [f"{run_dir}: {fault}" for fault in faults_of(run_dir, last, arguments.out / "undisturbed")]
    return Tried(name, found, differing)


def faults_of(run_dir: Path, last: Ended, whole: Path) -> list[str]:
    """What is different between a run and the undisturbed one, one text each."""
    if last.status:
        return [f"its last process ended with {last.status}: {last.stderr.strip()[-300:]}"]
    faults = [
        f"{which} parameters differ" for which in predict.CHECKPOINTS if not same_parameters(run_dir, whole, which)
    ]
    logs = [[without_machine(row) for row in read_log(folder / "log.jsonl")] for folder in (run_dir, whole)]
    faults += ["its log differs"] if logs[0] != logs[1] else []
    fragments = [path.name for path in run_dir.rglob("*writing*")]
    return faults + [f"a fragment is left: {name}" for name in fragments]


def same_parameters(run_dir: Path, whole: Path, which: str) -> bool:
    """Whether two runs have the same checkpoint, bit for bit."""
    ours, theirs = (predict.load(folder, checkpoint=which) for folder in (run_dir, whole))
    equal = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), ours.params, theirs.params)
    return ours.step == theirs.step and all(jax.tree.leaves(equal))


# --- the table --------------------------------------------------------------------------------------------------------


def table(results: Sequence[Tried], runs: int) -> str:
    """One row for each kind of disturbance, as Markdown."""
    columns = (
        "disturbance",
        "processes",
        "exit status: processes",
        "after a new checkpoint",
        "runs",
        "runs that differ",
    )
    rows = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for result in results:
        statuses = Counter(end.status for end in result.ends)
        shown = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        saved = sum(end.saved > 0 for end in result.ends)
        differing = len({text.split(":")[0] for text in result.differing})
        rows.append(f"| {result.name} | {len(result.ends)} | {shown} | {saved} | {runs} | {differing} |")
    return "\n".join(rows)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.BUILDING, *extras.TRAINING)
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("faults"))
    data, draw = arguments.out / "data", random.Random(arguments.seed)
    if not folder_of(data, "phantom").is_dir():
        builder.build(phantom.CARD, partial(phantom.read, phantom.PhantomOptions(count=PHANTOMS, size=(48, 48))), data)
    whole = ended(start(arguments.out / "undisturbed", data), arguments.out / "undisturbed")
    if whole.status:
        raise RuntimeError(f"the undisturbed run ended with {whole.status}: {whole.stderr}")
    print(f"undisturbed: {whole.saved} steps", flush=True)
    kinds: dict[str, tuple[int, Act]] = {
        "kill -9": (arguments.kills, kill),
        "SIGTERM": (arguments.terms, terminate),
        "refused write": (arguments.failures, partial(refuse_writes, draw=draw)),
    }
    results = [
        tried(name, count, arguments, partial(disturbed, data=data, act=act, draw=draw), data)
        for name, (count, act) in kinds.items()
        if count
    ]
    print(table(results, arguments.runs))
    for text in [text for result in results for text in result.differing]:
        print(text)
    if any(result.differing for result in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
