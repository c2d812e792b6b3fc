"""Everything that needs an accelerator, as one command: PyTorch and utilisation, RLAR, data, sweeps, memory.

python -m experiments.bench_accelerator --out runs/bench-gpu [--torch-python ENV/bin/python] [--seconds 600]
    [--peak-tflops bfloat16=989 float32=67 tf32=494] [--parts peers rlar input sweep memory]
python -m experiments.bench_accelerator --out runs/trial --trial     (tiny; minutes, also without accelerator)

A part is a script of its own, the most important first. Its table is kept in OUT/PART.md and its rows in
OUT/PART.jsonl, each as soon as it is measured. OUT/parts.jsonl says how every part ended. The same command runs what is
not finished there: parts that were interrupted or failed begin anew, and their earlier rows stay. The
programs of peers and sweep are kept in OUT/compiled, so that a second try need not compile them again; its times of
set-up and compilation are then those of reading. A part has its share of ``--seconds``; it is stopped at the end of it.
A part for which something is missing says so and is left out.

peers: the step of ``base`` at 256 x 256 in JAX and PyTorch (``torch.compile`` too), bfloat16, float32 and tf32, with
its utilisation of the device; without ``--torch-python`` that of JAX alone. rlar: forms of RLAR (``small``). input: the
pipeline and the wait for it (``base``). sweep: runs stacked by vmap against runs in turn. memory: precision,
recomputing and batches in parts (``base`` at 256 x 256).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import tyro

from thyroid_jax import command
from thyroid_jax.errors import InputError, exits_cleanly

Name = Literal["peers", "rlar", "input", "sweep", "memory"]
SHARES: dict[Name, float] = {"peers": 0.35, "rlar": 0.15, "input": 0.1, "sweep": 0.2, "memory": 0.2}
"""part -> share of the seconds"""
PEAKS = {
    "H100": ("bfloat16=989", "float32=67", "tf32=494"),
    "H200": ("bfloat16=989", "float32=67", "tf32=494"),
}
"""in the device's name -> TFLOP/s without sparsity, from NVIDIA's data sheets (SXM)"""
KEEP_PROGRAMS: tuple[Name, ...] = ("peers", "sweep")
"""parts that take longest to compile; the others report the time of compilation, and always compile"""
LEAVE = 20.0  # seconds that an interrupted part has to end its processes


@dataclass(frozen=True)
class Arguments:
    """Run all measurements that need an accelerator, one after the other."""

    out: Path
    """folder for tables and rows"""
    parts: tuple[Name, ...] = get_args(Name)
    """parts, in their order"""
    torch_python: str = ""
    """interpreter that has PyTorch (experiments/peers/README.md); without it JAX alone is measured"""
    peak_tflops: tuple[str, ...] = ()
    """TYPE=TFLOPS of the device, for the utilisation; known for H100 and H200"""
    seconds: float = 600.0
    """time for all parts; in a trial for each of them"""
    trial: bool = False
    """tiny sizes and few steps, on whatever device there is: shows that every part runs; its figures mean nothing"""

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise InputError(f"--seconds is {self.seconds:g}; it must be above 0.")


class Device(NamedTuple):
    """JAX's name of the kind of device, cpu, gpu or tpu, and the device's own name."""

    platform: str
    name: str


def device_here() -> Device:
    """The first device, asked for in a process of its own, which gives its memory back."""
    code = "import jax; d = jax.devices()[0]; print(d.platform); print(d.device_kind)"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise InputError(f"JAX cannot start: {asked.stderr.strip().splitlines()[-1]}")
    return Device(*asked.stdout.split("\n")[:2])


def words_of(part: Name, arguments: Arguments, device: Device, seconds: float) -> list[str]:
    """Module and options of a part's script, without ``--out``; :class:`InputError` says what is missing for it."""
    trial = arguments.trial
    size, image = ("tiny", ["32", "48"]) if trial else ("base", ["256", "256"])
    if part == "rlar":
        small = ["--config", "tiny", "--pixels", *image, "--batch-size", "2", "--rounds", "1"]
        return ["benchmark", "--only", "rlar", *(small if trial else ["--rounds", "12"])]
    if part == "input":
        counts = ["--batch-size", "2", "--rounds", "1"] if trial else ["--batch-size", "32", "--rounds", "12"]
        return ["benchmark", "--only", "input", "--config", size, "--pixels", *image, *counts]
    if part == "memory":
        batch = ["--batch-size", "4" if trial else "32"]
        return ["benchmark", "--only", "memory", "--rounds", "0", "--config", size, "--pixels", *image, *batch]
    if part == "sweep":
        small = ["--config", "tiny", "--height", "32", "--width", "48", "--batch-size", "2", "--runs", "1", "2"]
        return ["sweep_speed", "--seconds", f"{seconds:.0f}", *(small if trial else [])]
    if device.platform not in ("cpu", "gpu"):
        raise InputError(f"the twin runs on CPUs and GPUs, and this is a {device.platform}")
    types = ["float32"] if device.platform == "cpu" else ["bfloat16", "float32", "tf32"]
    words = ["peers.benchmark", "--device", device.platform, "--sizes", size, "--image", *image, "--dtype", *types]
    words += ["--batch", *(["2"] if trial else ["32", "8", "128", "256"]), "--seconds", f"{seconds:.0f}"]
    words += ["--steps", "1", "--rounds", "1", "--warm-up", "1"] if trial else ["--set-up", "at_once"]
    words += ["--torch-python", arguments.torch_python, "--compile"] if arguments.torch_python else ["--eager"]
    peaks = arguments.peak_tflops or next((found for key, found in PEAKS.items() if key in device.name), ())
    return [*words, *(["--peak-tflops", *peaks] if peaks else [])]


def run(words: Sequence[str], out: Path, part: Name, seconds: float) -> str:
    """Run a part's script for ``seconds`` at most and show what it prints; "" where it ended well, else why not."""
    words = [sys.executable, "-m", f"{command.scripts_package()}.{words[0]}", *words[1:]]
    path, stopped = out / f"{part}.md", False
    cache = {"JAX_COMPILATION_CACHE_DIR": str((out / "compiled").absolute())} if part in KEEP_PROGRAMS else {}
    with path.open("ab") as kept, path.open(encoding="utf-8") as printed:
        printed.seek(0, os.SEEK_END)
        words += ["--out", str(out / f"{part}.jsonl")]
        process = subprocess.Popen(words, stdout=kept, env=cache | os.environ, start_new_session=True)
        ends = time.monotonic() + seconds
        try:
            while process.poll() is None and not stopped:
                time.sleep(0.1)
                print(printed.read(), end="", flush=True)
                stopped = time.monotonic() > ends
        finally:
            if process.poll() is None:
                end(process)
            print(printed.read(), end="", flush=True)
    if stopped:
        return f"stopped after {seconds:.0f} s"
    return f"exit status {process.returncode}" if process.returncode else ""


def end(process: subprocess.Popen) -> None:
    """Interrupt a part, which ends the processes that it started elsewhere; then end those of its own group."""
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(LEAVE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ends_in(log: Path) -> list[dict[str, Any]]:
    """How parts ended before."""
    return list(map(json.loads, log.read_text(encoding="utf-8").splitlines())) if log.is_file() else []


def check_same(log: Path, device: Device, trial: bool) -> None:
    """Raise :class:`InputError` where the folder holds tables of another device, or a trial's beside others."""
    for line in ends_in(log):
        if (line["device"], line.get("trial", trial)) != (device.name, trial):
            kind = "a trial" if line.get("trial", trial) else "measurements"
            raise InputError(f"{log}: is of {kind} on {line['device']}; choose another --out.")


def is_finished(log: Path, part: Name, torch: bool) -> bool:
    """Whether a part ended well before; peers without PyTorch is half of it where PyTorch is there now."""
    lines = [line for line in ends_in(log) if line["part"] == part and not line["missing"]]
    return any(line.get("torch", torch) or not torch or part != "peers" for line in lines)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    words = sys.argv[1:] if argv is None else argv
    arguments = tyro.cli(Arguments, args=words, prog=command.spelled("bench_accelerator"))
    device = device_here()
    if device.platform == "cpu" and not arguments.trial:
        raise InputError("JAX finds no accelerator here. --trial shows that every part runs.")
    out, log = arguments.out, arguments.out / "parts.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    ends, torch = time.monotonic() + arguments.seconds, bool(arguments.torch_python)
    check_same(log, device, arguments.trial)
    for part in arguments.parts:
        if is_finished(log, part, torch):
            print(f"\n{part}: done before, {out / f'{part}.md'}", flush=True)
            continue
        started = time.monotonic()
        share = min(SHARES[part] * arguments.seconds, ends - started)
        if arguments.trial:  # it shows that every part runs: most of its time goes into compiling
            share = arguments.seconds
        print(f"\n{part}, on {device.name}, {share:.0f} s at most", flush=True)
        try:
            missing = (
                run(words_of(part, arguments, device, 0.9 * share), out, part, share) if share > 1 else "no time left"
            )
        except InputError as error:
            missing = str(error)
        if missing:
            print(f"{part}: not finished: {missing}", flush=True)
        line = {"part": part, "device": device.name, "trial": arguments.trial, "torch": torch}
        line |= {"seconds": time.monotonic() - started, "missing": missing}
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    unfinished = [part for part in arguments.parts if not is_finished(log, part, torch)]
    if arguments.trial and unfinished:
        print(f"\nnot every part runs here: {', '.join(unfinished)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
