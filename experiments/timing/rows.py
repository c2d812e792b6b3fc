"""The rows of the benchmark's one table, and their lines of JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row; None where a value does not exist. ``missing`` says why nothing was measured.

    ``time``, ``flops`` and ``memory`` are ratios to the row ``base`` of the same group. ``seconds`` are of a step, or
    of a batch of the pipeline alone; ``cpu_per_image`` are CPU seconds of the process.
    """

    group: str
    name: str
    base: str = ""
    seconds: float | None = None
    time: float | None = None
    images_per_second: float | None = None
    gflop: float | None = None
    flops: float | None = None
    temporary_mib: float | None = None
    memory: float | None = None
    peak_mib_per_image: float | None = None
    compile_seconds: float | None = None
    cpu_per_image: float | None = None
    missing: str = ""


COLUMNS = {
    "group": "{}",
    "name": "{}",
    "base": "{}",
    "seconds": "{:.4f}",
    "time": "{:.3f}",
    "images_per_second": "{:.0f}",
    "gflop": "{:.1f}",
    "flops": "{:.2f}",
    "temporary_mib": "{:.0f}",
    "memory": "{:.2f}",
    "peak_mib_per_image": "{:.2f}",
    "compile_seconds": "{:.1f}",
}
"""field of a row -> form of its value"""
HEADINGS = ("group", "row", "ratios to", "median s", "time", "images/s", "GFLOP", "FLOPs", "temporary MiB", "memory")
HEADINGS += ("peak MiB an image", "compile s")
HEADER = f"| {' | '.join(HEADINGS)} |\n{'|---' * len(HEADINGS)}|"


def line_of(row: Row) -> str:
    """The row of the table; a dash where there is no value."""
    if row.missing:
        return f"| {row.group} | {row.name} | not run: {row.missing.replace('|', '/')} {'| ' * (len(COLUMNS) - 3)}|"
    values = [(getattr(row, name), form) for name, form in COLUMNS.items()]
    return f"| {' | '.join('-' if value in (None, '') else form.format(value) for value, form in values)} |"


def rows_of(
    group: str,
    facts: Mapping[str, Mapping[str, Any]],
    turns: Mapping[str, Sequence[Mapping[str, float]]],
    batch_size: int,
) -> list[Row]:
    """The rows of a group's variants, the first of which is the base, from what their processes told.

    A variant that waits for data has a second row with the share of the waiting: its ratio is to the base's step.
    """
    base = next(iter(facts))
    rows = []
    for name, fact in facts.items():
        found = Row(group, name, base, **_memory(fact, facts[base], batch_size))
        own = turns.get(name, ())
        rows.append(found if not own else Row(**vars(found) | _times(own, turns[base], "seconds", batch_size)))
        if any(turn["waited"] for turn in own):
            waiting = _times(own, turns[base], "waited", batch_size) | {
                "images_per_second": None,
                "cpu_per_image": None,
            }
            rows.append(Row(group, f"{name}: waiting for data", base, **waiting))
    return rows


def _times(
    turns: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]], key: str, batch_size: int
) -> dict[str, float]:
    seconds = statistics.median(turn[key] for turn in turns)
    ratio = statistics.median(own[key] / other["seconds"] for own, other in zip(turns, reference))
    cpu = statistics.median(turn["cpu"] for turn in turns) / batch_size
    return {"seconds": seconds, "time": ratio, "images_per_second": batch_size / seconds, "cpu_per_image": cpu}


def _memory(fact: Mapping[str, Any], base: Mapping[str, Any], batch_size: int) -> dict[str, float | None]:
    """FLOPs and memory; ``fact["mib"]`` is None for a process without a step."""
    ratio = lambda key: None if fact[key] is None or base[key] is None else fact[key] / base[key]
    peak = None if fact["mib"] is None else (fact["mib"] + fact["held"]) / batch_size
    found = {"gflop": fact["gflop"], "flops": ratio("gflop"), "temporary_mib": fact["mib"], "memory": ratio("mib")}
    return found | {"peak_mib_per_image": peak, "compile_seconds": fact["compile"]}


def row_of_peer(line: Mapping[str, Any]) -> Row:
    """The row of a process of ``experiments.peers.benchmark``, from its line of JSON. The base is JAX's process."""
    name = f"{line['method']}, {'JAX' if line['side'] == 'jax' else 'PyTorch ' + line['side']}"
    if line.get("error"):
        return Row("peers", name, missing=line["error"])
    ratios = line.get("time_ratios", [])
    among = f" ({len(ratios)} starts, {min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    number = lambda key: line.get(key) if isinstance(line.get(key), int | float) else math.nan
    known = lambda value: None if math.isnan(value) else value
    return Row(
        "peers",
        name + among * (line["side"] != "jax"),
        f"{line['method']}, JAX",
        seconds=known(number("median_s")),
        time=known(number("time_ratio")),
        images_per_second=known(line["batch"] / number("median_s")),
        peak_mib_per_image=known(number("step_mib") / line["batch"]),
        compile_seconds=known(number("setup_s")),
    )
