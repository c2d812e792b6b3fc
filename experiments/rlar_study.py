"""Compare forms of RLAR's penalty in many short runs: the angles between the tasks, and the quality of both tasks.

python -m experiments.rlar_study --data.name ddti --data.dir data --out runs/study-ddti [--folds 0 1 2] [--epochs 40]
python -m experiments.rlar_study --out runs/study-ddti --table        # only print the table and draw the picture

Every run is an ordinary run folder under ``--out``. Its seed is the number of its fold. It is measured on its
*validation* fold with its last checkpoint, because settings must not be compared on the test part. ``results.jsonl``
has a line for each measured run; these are not run again. The images are small and the network is narrow: the study
compares settings, and its values do not show how good the method is.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from thyroid_jax import command, extras, model, runs
from thyroid_jax.config import Config, replace_groups
from thyroid_jax.data.pipeline import DataConfig, evaluation_batches, load
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate import paired
from thyroid_jax.evaluate import summary as summaries
from thyroid_jax.evaluate.cases import Case, read_cases
from thyroid_jax.files import read_json, write_bytes, write_json, write_text
from thyroid_jax.predict import Trained
from thyroid_jax.train.diagnose import diagnose
from thyroid_jax.train.log import read_log
from thyroid_jax.train.loop import add_up, averages

from .runtime import prepare


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare forms, weights and levels of RLAR's penalty in many short runs."""

    out: Path
    """folder of the runs and of results.jsonl"""
    data: DataConfig = field(default_factory=lambda: DataConfig(height=64, width=96))
    """data set and image size; --folds sets the fold"""
    folds: tuple[int, ...] = (0, 1, 2)
    """folds, each with its number as seed"""
    epochs: int = 40
    """epochs of each run"""
    width: int = 8
    """channels of the network's first level"""
    only: tuple[str, ...] = ()
    """names of variants; all of them by default"""
    table: bool = False
    """train nothing; only print the table and draw the picture of the measured runs"""


def variants() -> dict[str, dict[str, dict[str, Any]]]:
    """Name -> changed fields of groups of settings; the first is plain multitask training."""
    found: dict[str, dict[str, dict[str, Any]]] = {"plain": {}}
    for kind in ("hinge", "square"):
        found |= {f"{kind} {weight:g}": {"rlar": {"kind": kind, "weight": weight}} for weight in (0.1, 1.0, 10.0)}
    found["hinge 1, full space"] = {"rlar": {"weight": 1.0, "space": "full"}}
    found["hinge 1, outline held"] = {"rlar": {"weight": 1.0, "hold": ("segmentation",)}}
    found |= {f"hinge 1, {level}": {"rlar": {"weight": 1.0, "level": level}} for level in ("stride2", "stride8")}
    return found | {"PCGrad, latent": {"mtl": {"method": "pcgrad"}}}


def configure(name: str, fold: int, arguments: Arguments) -> Config:
    """The config of one run."""
    base = Config(data=arguments.data)
    narrow = {"width": arguments.width, "max_width": 8 * arguments.width, "depth": 4}
    length = {"epochs": arguments.epochs, "evaluate_every": 10, "checkpoint_every": arguments.epochs}
    base = replace_groups(
        base,
        model=narrow,
        data={"fold": fold},
        guidance={"weight": 0.1},
        malignancy={"weight": 0.0},
        train=length | {"seed": fold, "diagnose_every": 9},
    )
    return replace_groups(base, **variants()[name])


def folder_of(name: str, fold: int, arguments: Arguments) -> Path:
    """The run folder of one variant on one fold."""
    return arguments.out / f"{name.replace(' ', '-').replace(',', '')}-fold{fold}"


def run(name: str, fold: int, arguments: Arguments) -> dict[str, Any]:
    """Train one variant on one fold and measure it on its validation fold."""
    folder, config = folder_of(name, fold, arguments), configure(name, fold, arguments)
    cases = runs.held_out_cases(config, folder, part="validation", checkpoint="last", echo=lambda text: None)
    summary = summaries.summary(cases, samples=20)
    row = {"variant": name, "fold": fold}
    row |= {key: summary[key]["value"] for key in ("dice", "accuracy", "macro_auroc", "quadratic_kappa")}
    trained, parts = runs.open_finished(folder, "last")
    row |= angles(trained, list(parts.validation))
    return row | {"training_penalty_share": penalty_share(folder, config)} | quarters(folder)


def angles(trained: Trained, records: Sequence[Any]) -> dict[str, Any]:
    """The diagnosis of held-out images, with one recipe for all variants: hinge of margin 0, no multitask method."""
    plain = trained.recipe.replace(penalties=()).with_settings("rlar", kind="hinge", margin=0.0)
    plain = plain.with_settings("mtl", method="equal")
    size = (trained.config.data.height, trained.config.data.width)
    loaded = load(records, plain.model.grades, size)
    batches = [batch for batch, _ in evaluation_batches(loaded, trained.config.train.batch_size)]
    return averages(add_up([jax.device_get(diagnose(trained.params, batch, plain)) for batch in batches]))


def penalty_share(folder: Path, config: Config) -> float:
    """Length of the weighted penalty's gradient at the latent, divided by that of the tasks' losses.

    It is the mean over the last five diagnoses; NaN for a penalty at another level than the latent, and for one that
    holds a task: the diagnosis measures the penalty that turns all of them.
    """
    if config.rlar.level != model.LATENT or config.rlar.hold:
        return float("nan")
    name = f"penalty_share_{model.LATENT}_{config.rlar.space}"
    seen = [row.get(name) for row in read_log(folder / "log.jsonl") if row.get("split") == "diagnosis"]
    return config.rlar.weight * mean([share for share in seen if share is not None][-5:])


def quarters(folder: Path) -> dict[str, list[float]]:
    """Means over each quarter of the training of s and |s| at the latent, and of the share of a penalty of weight 1.

    A quarter without diagnoses, as in runs of few epochs, is NaN.
    """
    rows = [row for row in read_log(folder / "log.jsonl") if row.get("split") == "diagnosis"]
    rows = [row for row in rows if row.get("cosine_latent_channel") is not None]
    names = {
        "quarter_cosine": "cosine_latent_channel",
        "quarter_cosine_size": "cosine_size_latent_channel",
        "quarter_unit_share": "penalty_share_latent_channel",
    }
    parts = np.array_split(np.arange(len(rows)), 4)
    return {ours: [mean([rows[place][name] for place in part]) for part in parts] for ours, name in names.items()}


def mean(values: Sequence[float]) -> float:
    """Mean of the values; NaN if there are none."""
    return float(np.mean(values)) if len(values) else float("nan")


def claim(arguments: Arguments) -> None:
    """Record the settings that all runs of the folder share; refuse a folder whose runs have other settings."""
    path = arguments.out / "study.json"
    common = {"name": arguments.data.name, "height": arguments.data.height, "width": arguments.data.width}
    common |= {"reader": arguments.data.reader, "epochs": arguments.epochs, "channels": arguments.width}
    usual = DataConfig()
    common |= {
        name: value if isinstance(value, int | float | str) else list(value)
        for name, value in vars(arguments.data).items()
        if name not in {*common, "dir", "fold"} and value != getattr(usual, name)
    }
    if not path.is_file():
        write_json(path, common)
    elif not arguments.table and read_json(path) != common:
        raise InputError(
            f"{path}: this folder's runs were made with {read_json(path)}, not with {common}; choose another --out."
        )


def results(out: Path) -> list[dict[str, Any]]:
    """The rows of ``results.jsonl``, one for each measured run."""
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


COLUMNS = (
    ("mean s", "cosine_latent_channel"),
    ("mean \\|s\\|", "cosine_size_latent_channel"),
    ("mean \\|s\\|, full", "cosine_size_latent_full"),
    ("penalty's share", "training_penalty_share"),
    ("encoder cosine", "parameter_cosine_segmentation_grading"),
)
COMPARED = (("Dice", "dice"), ("kappa", "quadratic_kappa"), ("macro-AUROC", "macro_auroc"))


def pooled(variant: str, folds: Sequence[int], arguments: Arguments) -> list[Case]:
    """The validation predictions of a variant over its folds."""
    return [
        case
        for fold in folds
        for case in read_cases(runs.table_of(folder_of(variant, fold, arguments), "validation", "last"))
    ]


def compared(variant: str, rows: Sequence[dict[str, Any]], arguments: Arguments) -> dict[str, str]:
    """Each measure of a variant, pooled over the folds, with the paired difference to plain training."""
    folds = [row["fold"] for row in rows if row["variant"] == variant]
    common = [fold for fold in folds if any(row["variant"] == "plain" and row["fold"] == fold for row in rows)]
    summary = summaries.summary(pooled(variant, folds, arguments), samples=20)
    cells = {}
    for _, key in COMPARED:
        cells[key] = f"{summary[key]['value']:.3f}"
        if variant != "plain" and common:
            gap = paired.difference(pooled(variant, common, arguments), pooled("plain", common, arguments), key)
            cells[key] += f" ({gap.value:+.3f}, {gap.low:+.3f} to {gap.high:+.3f})"
    return cells


def print_table(rows: Sequence[dict[str, Any]], arguments: Arguments) -> None:
    """Print the angles as means over the folds, and pooled measures of both tasks with paired differences to plain."""
    heads = [name for name, _ in COLUMNS] + [f"{name} (difference, 95 %)" for name, _ in COMPARED]
    print("| penalty | runs | " + " | ".join(heads) + " |\n" + "|---" * (2 + len(heads)) + "|")
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        cells = [f"{np.mean([row[key] for row in own]):.3f}".replace("nan", "") for _, key in COLUMNS]
        cells += compared(variant, rows, arguments).values()
        print(f"| {variant} | {len(own)} | " + " | ".join(cells) + " |")
    print_levels(rows)
    print_quarters([row for row in rows if row["variant"] == "plain"])


def levels_of(row: dict[str, Any]) -> list[str]:
    """The encoder's levels that a measured run has cosines of, finest first."""
    names = [key.removeprefix("cosine_").removesuffix("_channel") for key in row if key.startswith("cosine_")]
    found = [name for name in names if name.startswith("stride")]
    return [*sorted(found, key=lambda name: int(name.removeprefix("stride"))), model.LATENT]


def print_levels(rows: Sequence[dict[str, Any]]) -> None:
    """Print mean s and mean |s| at every level of the encoder, for every variant."""
    if not rows:
        return
    levels = levels_of(rows[0])
    print("\n| mean s; mean \\|s\\| at | " + " | ".join(levels) + " |\n" + "|---" * (1 + len(levels)) + "|")
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        means = [
            [np.mean([row[f"{name}_{level}_channel"] for row in own]) for name in ("cosine", "cosine_size")]
            for level in levels
        ]
        print(f"| {variant} | " + " | ".join(f"{s:+.3f}; {size:.3f}" for s, size in means) + " |")


def print_quarters(plain: Sequence[dict[str, Any]]) -> None:
    """Print how the angles at the latent change during the training without a penalty."""
    for name, key in (
        ("mean s", "quarter_cosine"),
        ("mean |s|", "quarter_cosine_size"),
        ("share of a penalty of weight 1 in the gradient at z", "quarter_unit_share"),
    ):
        if plain:
            values = np.mean([row[key] for row in plain], axis=0)
            print(f"{name} by quarter of plain training: " + ", ".join(f"{value:.3f}" for value in values))


def draw(rows: Sequence[dict[str, Any]]) -> bytes:
    """PNG: mean |s| of each penalty, and its differences in Dice and kappa to plain training, one dot for each fold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    plain = {row["fold"]: row for row in rows if row["variant"] == "plain"}
    names = list(dict.fromkeys(row["variant"] for row in rows))
    figure = Figure(figsize=(12, 0.34 * len(names) + 1.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    shown = (
        ("cosine_size_latent_channel", "mean |s| at the latent", False),
        ("dice", "Dice against plain", True),
        ("quadratic_kappa", "kappa against plain", True),
    )
    for panel, (key, title, against) in zip(panels, shown):
        for height, name in enumerate(names):
            own = [row for row in rows if row["variant"] == name and row["fold"] in plain]
            values = [row[key] - (plain[row["fold"]][key] if against else 0) for row in own]
            panel.plot(values, [height] * len(values), "o", color="#0072B2", markersize=4, alpha=0.7)
            if values:
                panel.plot(np.mean(values), height, "|", color="#D55E00", markersize=14, markeredgewidth=2)
        panel.axvline(0, color="0.6", linewidth=0.8)
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.set_title(title)
        panel.grid(axis="y", color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    extras.require(*extras.TRAINING, *extras.PAGE)
    arguments = tyro.cli(Arguments, args=sys.argv[1:] if argv is None else argv, prog=command.spelled("rlar_study"))
    prepare()
    unknown = sorted(set(arguments.only) - set(variants()))
    if unknown:
        raise InputError(f"--only {unknown[0]!r} is no variant; choose of {', '.join(map(repr, variants()))}.")
    claim(arguments)
    done = [row for row in results(arguments.out) if row["variant"] in variants()]
    for fold in () if arguments.table else arguments.folds:
        for name in arguments.only or variants():
            if not any(row["variant"] == name and row["fold"] == fold for row in done):
                done.append(run(name, fold, arguments))
                write_text(arguments.out / "results.jsonl", "".join(json.dumps(row) + "\n" for row in done))
                size = done[-1]["cosine_size_latent_channel"]
                print(f"{name}, fold {fold}: Dice {done[-1]['dice']:.3f}, mean |s| {size:.3f}", flush=True)
    order = {name: number for number, name in enumerate(variants())}
    done.sort(key=lambda row: (order[row["variant"]], row["fold"]))
    print_table(done, arguments)
    write_bytes(arguments.out / "study.png", draw(done))
    print(f"\npicture: {arguments.out / 'study.png'}")


if __name__ == "__main__":
    main()
