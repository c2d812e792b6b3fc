"""The model card, ``model_card.md``: a function of the facts in ``export.json`` alone.

Its sections follow Mitchell et al., "Model cards for model reporting" (2019): what the model is, its use and limits,
input and answers, data, results, training, provenance. A fact that is missing is said to be missing, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from thyroid_jax import command

Facts = Mapping[str, Any]
UNKNOWN = "not known"
SHOWN = (
    "data.height",
    "data.width",
    "model.encoder",
    "train.epochs",
    "train.batch_size",
    "train.seed",
    "train.monitor",
    "optimizer.learning_rate",
    "mtl.method",
)
"""settings that the page shows whether or not they differ from the defaults"""
DOES = {
    "segmentation": "outlines the nodule",
    "grading": "grades it",
    "malignancy": "says how likely it is malignant",
    "guidance": "predicts the radiomics target",
}
PART_COLUMNS = {
    "groups": "groups",
    "images": "images",
    "outlines": "with outline",
    "grades": "with grade",
    "malignant": "malignant",
    "benign": "benign",
}


def page(facts: Facts) -> str:
    """The card of an exported run, in Markdown."""
    sections = {
        f"Model card: {plain(facts['training']['run'])}": what_it_is(facts),
        "Intended use and limits": use_and_limits(facts),
        "Input": [plain(facts["input"]["preparation"])],
        "Answers": answers(facts),
        "Data": data(facts["data"]),
        "Results": results(facts["results"]),
        "Training": training(facts["training"]),
        "Provenance": provenance(facts),
    }
    parts = [
        f"{'#' * (1 + (place > 0))} {title}\n\n" + "\n\n".join(s) for place, (title, s) in enumerate(sections.items())
    ]
    return "\n\n".join(parts) + "\n"


# --- sections: lists of paragraphs ------------------------------------------------------------------------------------


def what_it_is(facts: Facts) -> list[str]:
    """The model in a few sentences."""
    trained, inputs = facts["training"], facts["input"]
    does = [DOES.get(task, plain(task)) for task in trained["tasks"]]
    encoder = plain(trained["settings"]["model.encoder"])
    return [
        f"A network that looks at one ultrasound image and {listed(does)}. Encoder {encoder}, "
        f"{facts['parameters']['count']:,} parameters, input {inputs['height']} x {inputs['width']} pixels. "
        f"Trained on the data set {plain(facts['data']['name'])}, with thyroid_jax "
        f"{said(facts['versions']['trained_with'])}."
    ]


def use_and_limits(facts: Facts) -> list[str]:
    """What the model is for, and what it is not for."""
    lines = [
        "For research. It is no medical device, and nothing that it prints is advice about a patient.",
        "It knows images like those that it was trained on. On another machine, organ or population its answers are "
        "untested unless the section on results says otherwise. It answers for every image, also for one without a "
        "nodule or one that is no ultrasound image.",
        "Its probabilities are those of the trained network. They were not calibrated.",
    ]
    if facts["calibration"] is not None:
        lines[-1] += (
            " The run has a scaling of them, fitted on its validation part: `calibration` in `export.json`. "
            f"`{command.spelled('predict')}` applies it; the program and `run.py` do not."
        )
    if "grading" in facts["training"]["tasks"]:
        system = facts["data"]["grade_system"]
        named = f"of the {plain(system)} family" if system else "of the data set's own system"
        lines.append(f"Grades are {named} ({', '.join(map(plain, facts['grades']))}) and no other system's.")
    if "malignancy" in facts["training"]["tasks"]:
        lines.append("What counts as malignant is what the data set calls so; see the meaning of its labels below.")
    return [bullets(lines)]


def answers(facts: Facts) -> list[str]:
    """Shapes and meaning of the answers, and the platforms."""
    program = facts["program"]
    rows = [[name, f"{about['dtype']}[{' '.join(map(str, about['shape']))}]", about["meaning"]]
            for name, about in facts["answers"].items()]  # fmt: skip
    batch = "any batch size b" if program["batch"] is None else f"batches of {program['batch']} images only"
    lines = [table(["answer", "shape", "meaning"], rows)]
    if facts["guidance"]:
        lines.append(f"`guidance` holds, in this order: {', '.join(map(plain, facts['guidance']))}.")
    lines.append(f"The program runs on {listed(program['platforms'])}, for {batch}.")
    if program["forms_of"] and not program["chosen_by_platform"]:
        lines.append(
            f"On every platform it computes {listed(program['forms_of'])} in the form that is fast on "
            f"{plain(program['traced_on'])}, where it was traced. The form does not change the values; on another "
            "platform it may be slower."
        )
    return [*lines, checked(program["check"])]


def checked(check: Facts) -> str:
    """How the program was compared with the run."""
    if check["platform"] is None:
        return "The program was not run after the export: no device of its platforms was at hand."
    return (
        f"After the export the program was run on {check['platform']}: its answers differ from the run's by at most "
        f"{check['largest_difference']:.1e} (guidance in units of its spread)."
    )


def data(about: Facts) -> list[str]:
    """The data set, its labels, and the parts."""
    card = about["card"]
    if card is None:
        lines = [f"{plain(about['name'])}. Title, source, licence and labels are {UNKNOWN}: {plain(about['missing'])}."]
    else:
        lines = [described(about["name"], card)]
    columns = [name for name in PART_COLUMNS if any(name in counts for counts in about["parts"].values())]
    columns = columns if card is not None else ["groups", "images"]
    rows = [[part, *(said(counts.get(name)) for name in columns)] for part, counts in about["parts"].items()]
    lines.append(table(["part", *(PART_COLUMNS[name] for name in columns)], rows))
    for added in about["also"]:
        size = UNKNOWN if added["card"] is None else added["counts"]["images"]
        lines.append(
            f"Also trained on, with weight {added['weight']:g}, without groups that hold an image of the validation "
            f"or test part. Images in the set: {size}."
        )
        whole = f"{plain(added['name'])}. Title, source, licence and labels are {UNKNOWN}."
        lines.append(whole if added["card"] is None else described(added["name"], added["card"]))
    return lines


def described(name: str, card: Facts) -> str:
    """A data set's card as a list."""
    entries = {
        "name": name,
        "title": card["title"],
        "source": card["source"],
        "licence": card["licence"],
        "access": card["access"],
        "labels": card["labels"],
        "grades": " ".join([card["grade_system"], *card["grades"]]).strip(),
        "one group is": card["grouping"],
        "known faults": "; ".join(card["faults"]),
    }
    return bullets(f"{key}: {plain(value) if value else 'none given'}" for key, value in entries.items())


def results(found: Facts) -> list[str]:
    """Measures of the test part with intervals, or why there are none."""
    if found["missing"]:
        return [f"Not evaluated: {plain(found['missing'])}."]
    rows = [measure_row(name, entry) for name, entry in found["measures"].items()]
    compared = "Whether the table is this checkpoint's could not be checked: the data set is not at hand."
    if found["compared"]:
        compared = (
            f"{found['compared']} rows of the table were compared with what this checkpoint predicts. They differ by "
            f"at most {found['largest_difference']:.1e}."
        )
    return [
        f"The {found['part']} part, {found['images']} images, held out from the training. Intervals: 95 %, bootstrap "
        "over groups, DeLong's over groups for the AUROC of malignancy; they cover neither another split nor another "
        "seed.",
        table(["measure", "value", "95 % interval", "images", "undefined", "groups"], rows),
        compared,
    ]


def measure_row(name: str, entry: Facts) -> list[str]:
    """A measure as a row of the table of results."""
    span = UNKNOWN if entry["low"] is None else f"{measured(entry['low'])} to {measured(entry['high'])}"
    return [plain(name), measured(entry["value"]), span, *(said(entry[key]) for key in ("n", "undefined", "groups"))]


def training(about: Facts) -> list[str]:
    """The checkpoint, the start of the encoder, and the settings."""
    last, total = about["last_step"], about["total_steps"]
    ended = UNKNOWN if last is None else f"step {last} of {total}"
    if last is not None and last < total:
        ended += "; ended early by train.patience" if about["out_of_patience"] else "; the run is not finished"
    score = about["validation_score"]
    weights = about["encoder_weights_sha256"]
    start_from = about["start_from_sha256"]
    start = {None: UNKNOWN, "": f"random, seed {about['settings']['train.seed']}"}.get(
        weights, f"published weights, file of SHA-256 {weights}"
    )
    if start_from:  # its encoder went on learning after any published weights
        start = f"another run, parameters of SHA-256 {start_from}"
    frozen = about["settings"]["model.frozen_levels"]
    lines = [
        f"checkpoint: {about['checkpoint']}, step {about['step']}",
        f"the run's log ends at: {ended}",
        f"validation {plain(about['monitor'])} of the checkpoint: {measured(score)}",
        f"start of the encoder: {start}" + (f"; its first {frozen} levels keep these weights" if frozen else ""),
        f"tasks: {', '.join(map(plain, about['tasks']))}",
        f"penalties: {', '.join(map(plain, about['penalties'])) or 'none'}",
    ]
    names = [name for name in about["settings"] if name in {*SHOWN, *about["differing"]}]
    rows = [[name, said(about["settings"][name]), "" if name in about["differing"] else "yes"] for name in names]
    text = "Settings that differ from the defaults, and the most important others. All of them are in `export.json`."
    return [bullets(lines), text, table(["setting", "value", "default"], rows)]


def provenance(facts: Facts) -> list[str]:
    """Versions, digests and hashes."""
    entries = {
        "SHA-256 of `parameters.safetensors`": facts["parameters"]["sha256"],
        "SHA-256 of `model.stablehlo`": facts["program"]["sha256"],
        "fingerprint of parameters and fitted values": facts["parameters"]["fingerprint"],
        "digest of the data": facts["data"]["digest"],
        "digest of the split": facts["data"]["split_digest"],
        "calling convention of the program": facts["program"]["calling_convention_version"],
    }
    entries |= {f"{name}": value for name, value in facts["versions"].items()}
    return [table(["what", "value"], [[name, said(value)] for name, value in entries.items()])]


# --- Markdown ---------------------------------------------------------------------------------------------------------


def plain(text: Any) -> str:
    """Text of a data set or a setting on one line, without a meaning in Markdown or HTML."""
    line = re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(str(text).split()))
    return line.replace("<", "&lt;").replace(">", "&gt;")


def said(value: Any) -> str:
    """A value as it is; words for one that is not known, empty, or a list."""
    if value is None:
        return UNKNOWN
    return plain(" ".join(map(str, value)) if isinstance(value, list) else value) or "none"


def measured(value: float | None) -> str:
    """A measure with three decimals."""
    return UNKNOWN if value is None else f"{value:.3f}"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
