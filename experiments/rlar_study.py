"""How far each form of RLAR's penalty turns the tasks' directions, and what that does to both tasks: many short runs,
one table.

python -m experiments.rlar_study --data.name ddti --data.dir data --out runs/study-ddti [--folds 0 1 2] [--epochs 40]
python -m experiments.rlar_study --out runs/study-ddti --table        # print the table again, draw the picture

Every run is an ordinary run folder under ``--out``, trained on its own fold with that fold's number as seed, and
measured on the fold's held-out part; ``results.jsonl`` has a line for each, and a run that is there already is not
made again. Small images and a narrow network: the study compares settings, it does not report how good the method is.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.evaluate import case_of, open_finished
from experiments.probe import probe
from experiments.runtime import prepare
from experiments.train import open_run
from thyroid_jax import model
from thyroid_jax.batch import Batch
from thyroid_jax.config import Config, DataConfig, MTLConfig, RLARConfig, TrainConfig
from thyroid_jax.data.pipeline import evaluation_batches, load
from thyroid_jax.errors import InputError, exits_cleanly
from thyroid_jax.evaluate import metrics as measures
from thyroid_jax.files import read_json, write_bytes, write_json, write_text
from thyroid_jax.losses import rlar
from thyroid_jax.model.encoder import level_channels
from thyroid_jax.predict import predict
from thyroid_jax.train.diagnose import diagnose
from thyroid_jax.train.log import read_log
from thyroid_jax.train.loop import add_up, averages, fit
from thyroid_jax.train.objective import task_losses, task_valid


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Compare forms and weights of RLAR's penalty in many short runs."""

    out: Path
    """folder of the runs and of results.jsonl"""
    data: DataConfig = field(default_factory=lambda: DataConfig(height=64, width=96))
    """its fold is set by --folds"""
    folds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 40
    width: int = 8
    """channels of the network's first level"""
    only: tuple[str, ...] = ()
    """names of variants; all of them by default"""
    table: bool = False
    """only print the table and draw the picture of what is there"""


def variants() -> dict[str, tuple[RLARConfig, MTLConfig]]:
    """Name -> RLAR's and the multitask method's settings; the first is plain multitask training."""
    penalties: dict[str, dict[str, Any]] = {"plain": {"weight": 0.0}}
    penalties |= {
        f"{kind} {weight:g}": {"kind": kind, "weight": weight}
        for kind in ("hinge", "square")
        for weight in (0.1, 1.0, 10.0)
    }
    penalties |= {"abs 10, margin 0.1": {"kind": "abs", "weight": 10.0, "margin": 0.1}}
    penalties |= {
        "hinge 10, margin 0.3": {"weight": 10.0, "margin": 0.3},
        "hinge 10, full space": {"weight": 10.0, "space": "full"},
    }
    relative = (("hinge", 0.1), ("hinge", 0.5), ("square", 0.5))
    penalties |= {
        f"{kind} relative {share:g}": {"kind": kind, "weight": share, "scale": "relative"} for kind, share in relative
    }
    chosen = {name: (RLARConfig(**fields), MTLConfig()) for name, fields in penalties.items()}
    return chosen | {"PCGrad, latent": (RLARConfig(weight=0.0), MTLConfig(method="pcgrad"))}


def configure(name: str, fold: int, arguments: Arguments) -> Config:
    """The config of one run."""
    penalty, method = variants()[name]
    base = Config()
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, width=arguments.width, max_width=8 * arguments.width, depth=4),
        data=dataclasses.replace(arguments.data, fold=fold),
        rlar=penalty,
        mtl=method,
        train=TrainConfig(
            epochs=arguments.epochs, seed=fold, evaluate_every=10, checkpoint_every=arguments.epochs, diagnose_every=9
        ),
    )


def run(name: str, fold: int, arguments: Arguments) -> dict[str, Any]:
    """Train one variant on one fold and measure it on the fold's held-out part."""
    folder = arguments.out / f"{name.replace(' ', '-').replace(',', '')}-fold{fold}"
    config = configure(name, fold, arguments)
    penalty = config.rlar
    config, training, validation, facts = open_run(config, folder)
    fit(config, folder, training, validation, facts, say=lambda text: None)
    trained, parts = open_finished(folder, "last")
    records = list(parts.test)
    predictions = predict(trained, [record.image for record in records])
    cases = [case_of(record, found, parts.card.grades) for record, found in zip(records, predictions)]
    outline = measures.segmentation_summary(cases, samples=20)
    grade = measures.grading_summary(cases, samples=20)
    row = {"variant": name, "fold": fold, "dice": outline["dice"]["value"]}
    row |= {measure: grade[measure]["value"] for measure in ("accuracy", "macro_auroc", "quadratic_kappa")}

    # Measured with one config for all variants of a fold: one compilation.
    config = dataclasses.replace(config, rlar=RLARConfig(weight=0.0), mtl=MTLConfig(), train=TrainConfig())
    held_out = load(records, config.model.grades, (config.data.height, config.data.width))
    batches = [batch for batch, _ in evaluation_batches(held_out, config.train.batch_size)]
    row |= averages(add_up([jax.device_get(diagnose(trained.params, batch, config)) for batch in batches]))
    row |= angles_by_case(trained.params, batches, config, [case.dice for case in cases])
    row |= layers(trained.params, batches, config)
    return row | {"training_penalty_share": penalty_share(folder, penalty)} | quarters(folder)


def penalty_share(folder: Path, penalty: RLARConfig) -> float:
    """Length of the penalty's gradient, as weighted, over the tasks' at the latent, mean over the last five diagnosed
    epochs.
    """
    if penalty.scale == "relative":
        return penalty.weight
    seen = [
        row.get(f"penalty_share_{penalty.space}")
        for row in read_log(folder / "log.jsonl")
        if row.get("split") == "diagnosis"
    ]
    return penalty.weight * float(np.mean([share for share in seen if share is not None][-5:]))


def quarters(folder: Path) -> dict[str, list[float]]:
    """Means over each quarter of the training: s and |s| in channel space, and the share that a penalty of weight 1
    would have.
    """
    rows = [
        row
        for row in read_log(folder / "log.jsonl")
        if row.get("split") == "diagnosis" and row.get("cosine_channel") is not None
    ]
    names = {
        "quarter_cosine": "cosine_channel",
        "quarter_cosine_size": "cosine_size_channel",
        "quarter_unit_share": "penalty_share_channel",
    }
    return {
        ours: [float(np.mean(part)) for part in np.array_split([row[name] for row in rows], 4)]
        for ours, name in names.items()
    }


def angles_by_case(
    params: model.Params, batches: Sequence[Batch], config: Config, dice: Sequence[float]
) -> dict[str, list[float]]:
    """Cosine in the channel space, the grade's loss and the outline's Dice of every held-out image that has both labels."""
    cosine, loss, both = [], [], []
    for batch in batches:
        directions = probe(params, batch, config, "channel")
        where = task_valid(batch)
        cosine += rlar.cosines(directions.unit)[0].tolist()
        loss += directions.loss[1].tolist()
        both += (where["segmentation"] & where["grading"]).tolist()
    rows = [index for index, known in enumerate(both[: len(dice)]) if known]
    pick = lambda values: [float(values[index]) for index in rows]
    return {"case_cosine": pick(cosine), "case_grade_loss": pick(loss), "case_dice": pick(dice)}


@partial(jax.jit, static_argnums=2)
def _layer_cosines(params: model.Params, batch: Batch, config: Config) -> jax.Array:
    """f32[levels b]: the channel-space cosine at every level of the encoder, the gradient by an offset of its second
    normalisation.
    """
    names = [f"ResidualBlock_{level}" for level in range(len(level_channels(config.model)))]
    biases = {name: params["encoder"][name]["Normalize_1"]["bias"] for name in names}

    def losses(biases: Any, row: Batch) -> dict[str, jax.Array]:
        encoder = dict(params["encoder"])
        for name in names:
            block = encoder[name]
            encoder[name] = block | {"Normalize_1": block["Normalize_1"] | {"bias": biases[name]}}
        one = jax.tree.map(lambda a: a[None], row)
        z, skips = model.encode(params | {"encoder": encoder}, config.model, one.image)
        tasks = task_losses(params, skips, one, config)
        return {name: tasks[name](z)[0] for name in ("segmentation", "grading")}

    gradients = jax.vmap(jax.jacrev(losses), in_axes=(None, 0))(biases, batch)
    unit = lambda g: g / jnp.maximum(jnp.linalg.norm(g, axis=-1, keepdims=True), 1e-12)
    return jnp.stack(
        [(unit(gradients["segmentation"][name]) * unit(gradients["grading"][name])).sum(-1) for name in names]
    )


def layers(params: model.Params, batches: Sequence[Batch], config: Config) -> dict[str, list[float]]:
    """Mean cosine and mean |cosine| at every level of the encoder, finest first, over the images with both labels."""
    found = np.concatenate([np.asarray(_layer_cosines(params, batch, config)) for batch in batches], axis=1)
    where = [task_valid(batch) for batch in batches]
    known = np.concatenate([np.asarray(w["segmentation"] & w["grading"]) for w in where])
    return {
        "layer_cosine": found[:, known].mean(1).tolist(),
        "layer_cosine_size": np.abs(found[:, known]).mean(1).tolist(),
    }


def claim(arguments: Arguments) -> None:
    """Write down what all runs of the folder have in common, or refuse a folder of runs that were made otherwise."""
    path = arguments.out / "study.json"
    common = {"name": arguments.data.name, "height": arguments.data.height, "width": arguments.data.width}
    common |= {"labels": arguments.data.labels, "epochs": arguments.epochs, "channels": arguments.width}
    if not path.is_file():
        write_json(path, common)
    elif not arguments.table and read_json(path) != common:
        raise InputError(
            f"{path}: this folder's runs were made with {read_json(path)}, not with {common}; choose another --out."
        )


def results(out: Path) -> list[dict[str, Any]]:
    """The measured runs."""
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


COLUMNS = (
    ("mean s", "cosine_channel"),
    ("mean |s|", "cosine_size_channel"),
    ("mean s, full", "cosine_full"),
    ("mean |s|, full", "cosine_size_full"),
    ("penalty's share", "training_penalty_share"),
    ("encoder cosine", "parameter_cosine_segmentation_grading"),
)
COMPARED = (("Dice", "dice"), ("kappa", "quadratic_kappa"), ("macro-AUROC", "macro_auroc"))


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means over the folds; for both tasks' measures the mean difference to plain training on the same fold, and its
    range.
    """
    plain = {row["fold"]: row for row in rows if row["variant"] == "plain"}
    print(
        "| penalty | runs | "
        + " | ".join([name for name, _ in COLUMNS] + [f"{name} (difference, range)" for name, _ in COMPARED])
        + " |"
    )
    print("|---" * (2 + len(COLUMNS) + len(COMPARED)) + "|")
    for variant in dict.fromkeys(row["variant"] for row in rows):
        own = [row for row in rows if row["variant"] == variant]
        cells = [f"{np.mean([row[key] for row in own]):.3f}" for _, key in COLUMNS]
        for _, key in COMPARED:
            change = [row[key] - plain[row["fold"]][key] for row in own if row["fold"] in plain]
            value = f"{np.mean([row[key] for row in own]):.3f}"
            spread = (
                f" ({np.mean(change):+.3f}, {min(change):+.3f} to {max(change):+.3f})"
                if variant != "plain" and change
                else ""
            )
            cells.append(value + spread)
        print(f"| {variant} | {len(own)} | " + " | ".join(cells) + " |")
    where_is_alignment(list(plain.values()))


def where_is_alignment(plain: Sequence[dict[str, Any]]) -> None:
    """Where, without any penalty, the directions lie close: by level of the encoder, among hard and easy images, in the
    tail.
    """
    if not plain:
        return
    print("\nWithout a penalty, held-out images, mean over the folds:")
    for level, (s, size) in enumerate(
        zip(*(np.mean([row[key] for row in plain], axis=0) for key in ("layer_cosine", "layer_cosine_size")))
    ):
        print(f"- encoder level {level}: mean s {s:+.3f}, mean |s| {size:.3f}")
    for name, key in (
        ("mean s", "quarter_cosine"),
        ("mean |s|", "quarter_cosine_size"),
        ("a penalty of weight 1 would have this share in the gradient at z", "quarter_unit_share"),
    ):
        print(
            f"- by quarter of the training, {name}: "
            + ", ".join(f"{v:.3f}" for v in np.mean([row[key] for row in plain], axis=0))
        )
    pooled = {key: np.concatenate([row[f"case_{key}"] for row in plain]) for key in ("cosine", "grade_loss", "dice")}
    for name, score in (("lowest Dice", -pooled["dice"]), ("highest grade loss", pooled["grade_loss"])):
        hard = score >= np.quantile(score, 0.75)
        print(
            f"- quarter with the {name}: mean s {pooled['cosine'][hard].mean():+.3f}, the others {pooled['cosine'][~hard].mean():+.3f}"
        )
    print(f"- s above 0.3: {100 * (pooled['cosine'] > 0.3).mean():.1f} % of {len(pooled['cosine'])} images; below -0.3: "
          f"{100 * (pooled['cosine'] < -0.3).mean():.1f} %")  # fmt: skip


def draw(rows: Sequence[dict[str, Any]]) -> bytes:
    """PNG: for each penalty, how large |s| stayed and what both tasks gained or lost against plain training, one dot a
    fold.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    plain = {row["fold"]: row for row in rows if row["variant"] == "plain"}
    names = list(dict.fromkeys(row["variant"] for row in rows))
    figure = Figure(figsize=(12, 0.34 * len(names) + 1.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    shown = (("cosine_size_channel", "mean |s|, channel space", False), ("dice", "Dice against plain", True),
             ("quadratic_kappa", "kappa against plain", True))  # fmt: skip
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
    prepare()
    arguments = tyro.cli(
        Arguments, args=sys.argv[1:] if argv is None else argv, prog="python -m experiments.rlar_study"
    )
    unknown = sorted(set(arguments.only) - set(variants()))
    if unknown:
        raise InputError(f"--only {unknown[0]!r} is no variant; choose of {', '.join(map(repr, variants()))}.")
    claim(arguments)
    done = [row for row in results(arguments.out) if row["variant"] in variants()]
    for fold in () if arguments.table else arguments.folds:
        for name in arguments.only or variants():
            if not any(row["variant"] == name and row["fold"] == fold for row in done):
                done.append(run(name, fold, arguments))
                jax.clear_caches()  # every variant compiles its own step, and programs nobody calls again would fill the memory
                write_text(arguments.out / "results.jsonl", "".join(json.dumps(row) + "\n" for row in done))
                print(
                    f"{name}, fold {fold}: Dice {done[-1]['dice']:.3f}, mean |s| {done[-1]['cosine_size_channel']:.3f}",
                    flush=True,
                )
    order = {name: number for number, name in enumerate(variants())}
    done.sort(key=lambda row: (order[row["variant"]], row["fold"]))
    print_table(done)
    write_bytes(arguments.out / "study.png", draw(done))
    print(f"\npicture: {arguments.out / 'study.png'}")


if __name__ == "__main__":
    main()
