"""What the scripts that compare methods share: options, methods that are there already, and what they write.

Written to a folder: METHOD.csv of each method, ``table.md``, ``table.tex``, ``table.csv`` and, where the packages for
it are installed, ``index.html``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from thyroid_jax import checkpoints, extras, runs
from thyroid_jax.config import Config
from thyroid_jax.data.record import digest_of
from thyroid_jax.errors import InputError
from thyroid_jax.evaluate import ensembles, paired, report, tabulate
from thyroid_jax.evaluate.cases import Case, read_cases, write_cases
from thyroid_jax.files import read_json, write_text
from thyroid_jax.predict import read_config
from thyroid_jax.runs.ensemble import ensemble_cases, run_label
from thyroid_jax.runs.evaluation import read_table
from thyroid_jax.runs.folder import differing_settings, was_stopped
from thyroid_jax.runs.table_options import TableOptions
from thyroid_jax.train.log import read_log
from thyroid_jax.train.validation import out_of_patience


def parse_margins(texts: Sequence[str]) -> dict[str, float]:
    """``("dice=0.02",)`` as ``{"dice": 0.02}``; :class:`InputError` for another form, or a measure that is twice."""
    margins: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            margin = float(number)
        except ValueError:
            margin = float("nan")
        if not name or name in margins or margin != margin:
            raise InputError(
                f"--margin {' '.join(texts)}: give MEASURE=MARGIN once for each measure, such as dice=0.02."
            )
        margins[name] = margin
    return margins


def parse_methods(texts: Sequence[str], option: str = "--runs") -> dict[str, list[Path]]:
    """``("a=one", "two", "b=three")`` as ``{"a": [one, two], "b": [three]}``.

    A text that is a folder as a whole is one, also with an equals sign in it. Raises :class:`InputError` for a folder
    before the first name, a name twice or without folder, and a name that cannot be a file's.
    """
    methods: dict[str, list[Path]] = {}
    for text in texts:
        name, sign, folder = text.partition("=")
        if sign and not Path(text).exists():
            check_name(name, option)
            if name in methods or not folder:
                raise InputError(f"{option} {text}: give NAME=DIR [DIR ...] once for each method.")
            methods[name] = [Path(folder)]
        elif methods:
            methods[next(reversed(methods))].append(Path(text))
        else:
            raise InputError(f"{option} {text}: stands before the first name; give NAME=DIR [DIR ...].")
    return methods


def check_options(options: TableOptions) -> None:
    """Raise :class:`InputError` for measures and margins that cannot be compared, or fewer than one replicate."""
    paired.check_measures(options.measures, parse_margins(options.margin))
    if options.samples < 1:
        raise InputError(f"--samples {options.samples}: it is at least 1.")


def check_name(name: str, option: str) -> None:
    """Raise :class:`InputError` for a method's name that is not one of a file beside the tables."""
    if not re.fullmatch(r"[\w+][\w+., -]*", name) or name in ("table", "index"):
        raise InputError(f"{option}: {name!r} cannot name a method; use letters, digits, _ + - . and not 'table'.")


# --- methods that are there -------------------------------------------------------------------------------------------


def check_folders(methods: Mapping[str, Sequence[Path]], *, flip: bool) -> None:
    """Raise :class:`InputError` for folders that :func:`cases_of_folders` would refuse without looking into tables.

    They are neither a run nor results from elsewhere, named twice in a method, runs of one method on different data,
    with different settings (but fold, seed and start) or with the same split, fold and seed, or results from
    elsewhere where predictions over mirror images are asked for.
    """
    for name, folders in methods.items():
        if len({folder.resolve() for folder in folders}) < len(folders):
            raise InputError(f"--runs {name}: a folder is named twice, and would count twice.")
        data: dict[str, Path] = {}
        seen: dict[tuple[str, str], Path] = {}
        settings: list[tuple[Path, Config]] = []
        for folder in folders:
            if (folder / "config.json").is_file():
                config, was_made_from = read_config(folder / "config.json")
                data.setdefault(str(was_made_from.get("data")), folder)
                run = str(was_made_from.get("split")), run_label(config)
                if run in seen:
                    raise InputError(
                        f"--runs {name}: {seen[run]} and {folder} are both {run[1]} of one split, and their cases "
                        "would count twice; leave one out, or give two names."
                    )
                seen[run] = folder
                settings.append((folder, config))
            elif not (folder / "cases.csv").is_file():
                raise InputError(
                    f"{folder}: neither a run nor results from elsewhere: no config.json and no cases.csv."
                )
            elif flip:
                raise InputError(
                    f"{folder}: holds results from elsewhere, which cannot be averaged over mirror images."
                )
        if len(data) > 1:
            first, second, *_ = data.values()
            raise InputError(f"--runs {name}: {first} and {second} were trained on different data; give two names.")
        _check_one_method(name, settings)


_OF_EACH_RUN = {"data.fold", "train.seed", "train.start_from"}


def _check_one_method(name: str, found: Sequence[tuple[Path, Config]]) -> None:
    """Raise :class:`InputError` where the runs of one method have different settings."""
    for folder, config in found[1:]:
        differing = [field for field in differing_settings(found[0][1], config) if field not in _OF_EACH_RUN]
        if differing:
            raise InputError(
                f"--runs {name}: {found[0][0]} and {folder} differ in {', '.join(differing)}, so they are not one "
                "method; give two names."
            )


def cases_of_folders(folders: Sequence[Path], *, part: str, flip: bool) -> list[Case]:
    """The pooled cases of a method's folders; the part of a run's cases names its fold and seed.

    A folder is a finished run, which is evaluated where its table is missing, or holds ``cases.csv`` of results from
    elsewhere. Raises :class:`InputError` for an unfinished run, a run's table that does not hold each case of the part
    once, and a table from elsewhere of another part.
    """
    pooled: list[Case] = []
    for folder in folders:
        is_run = (folder / "config.json").is_file()
        pooled += _cases_of_run(folder, part, flip) if is_run else _cases_from_elsewhere(folder / "cases.csv", part)
    return pooled


def _cases_of_run(folder: Path, part: str, flip: bool) -> list[Case]:
    table = runs.table_of(folder, part, flip=flip)
    config, _ = read_config(folder / "config.json")
    unfinished = InputError(f"{folder}: the run is not finished; repeat the command that trains it.")
    if was_stopped(folder, config.train):
        raise unfinished
    if not table.is_file():
        finished = runs.open_finished(folder)
        if not has_ended(folder, config, int(finished.trained.recipe.fitted.total_steps)):
            raise unfinished
        write_cases(table, runs.cases_of(finished.trained, getattr(finished.parts, part), part=part, flip=flip))
    split = read_json(folder / "split.json")
    held_out = split.get(part) if isinstance(split, dict) else None
    if not isinstance(held_out, list) or not all(isinstance(case, str) for case in held_out):
        raise InputError(f"{folder / 'split.json'}: names no cases of the {part} part; restore the file.")
    return [replace(case, part=run_label(config)) for case in read_table(table, held_out)]


def has_ended(run_dir: Path, config: Config, total_steps: int) -> bool:
    """Whether a run has taken its last step, or was ended early by ``train.patience``."""
    step = last_step(run_dir)
    rows = [row for row in read_log(run_dir / "log.jsonl") if row["step"] <= step]
    return step >= total_steps or out_of_patience(rows, config.train.patience)


def last_step(run_dir: Path) -> int:
    """The step of a run's newest checkpoint, 0 without any."""
    return max(checkpoints.steps(run_dir / "checkpoints" / "last"), default=0)


def _cases_from_elsewhere(table: Path, part: str) -> list[Case]:
    cases = read_cases(table)
    others = {case.part for case in cases} - {part, "all"}
    if others and not all(paired.run_of(other) for other in others):
        raise InputError(f"{table}: holds cases of {', '.join(sorted(others))}, not of {part}; evaluate that part.")
    return cases


def of_equal_cases(run_dirs: Sequence[Path], *, part: str, flip: bool) -> list[list[Path]]:
    """The runs in sets that hold out the same images, by their tables."""
    sets: dict[frozenset[str], list[Path]] = {}
    for run_dir in run_dirs:
        cases = frozenset(case.case for case in read_cases(runs.table_of(run_dir, part, flip=flip)))
        sets.setdefault(cases, []).append(run_dir)
    return list(sets.values())


def kept_ensemble(folder: Path, method: str, run_dirs: Sequence[Path], *, part: str, flip: bool) -> list[Case]:
    """The cases of runs that predict together, kept in ``folder``; computed again when a run's table is newer."""
    places = sorted(str(run_dir.resolve()) for run_dir in run_dirs)
    table = folder / f"{method}-{digest_of(places)[:12]}.csv"
    newest = max(runs.table_of(run_dir, part, flip=flip).stat().st_mtime for run_dir in run_dirs)
    if not table.is_file() or table.stat().st_mtime < newest:
        print(f"{method}: {len(run_dirs)} runs predict together", flush=True)
        write_cases(table, ensemble_cases(run_dirs, part=part, flip=flip))
    return read_cases(table)


# --- tables -----------------------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """Methods and their ensembles -> cases, which method each is compared to, and a sentence about the ensembles."""

    found: dict[str, Sequence[Case]]
    against: dict[str, str]
    notes: list[str]


def with_ensembles(found: Mapping[str, Sequence[Case]], predicted: Mapping[str, Sequence[Case]]) -> Rows:
    """The rows of the tables: every method, and the ensemble of a method of which several runs predict each image.

    An ensemble is that of ``predicted``, by the method's name, where outlines were averaged too; else the mean of the
    probabilities in the method's table. Ensembles are compared to the first method's ensemble, where it has one. Rows
    of different numbers of predictions are not compared, as of one run and of several; a note names them.
    """
    if not found:
        raise InputError("nothing to compare: name a method.")
    first, *others = found
    counts = {method: ensembles.runs_per_case(cases) for method, cases in found.items()}
    names = {
        method: ensembles.name_of(method, found[method])
        for method, numbers in counts.items()
        if len(numbers) == 1 and max(numbers) > 1
    }
    together = {names[method]: list(predicted.get(method) or ensembles.averaged(found[method])) for method in names}
    rows = {**found, **together}
    against = dict.fromkeys(others, first)
    if first in names:
        against |= {name: names[first] for method, name in names.items() if method != first}
    unequal = [name for name, other in against.items() if len(rows[name]) != len(rows[other])]
    return Rows(
        rows,
        {name: other for name, other in against.items() if name not in unequal},
        [*_about_means(names, predicted), *_about_missing(counts, unequal)],
    )


def _about_means(names: Mapping[str, str], predicted: Mapping[str, Sequence[Case]]) -> list[str]:
    kinds = {"outlines, grades and malignancy" if method in predicted else "grades and malignancy" for method in names}
    said = " or of ".join(sorted(kinds))
    return [f"Rows called averaged are means of the runs' probabilities, of {said}."] if names else []


def _about_missing(counts: Mapping[str, set[int]], unequal: Sequence[str]) -> list[str]:
    sentences = []
    if missing := [method for method, numbers in counts.items() if len(numbers) > 1]:
        sentences.append(f"Not averaged, because not equally many runs predict each image: {'; '.join(missing)}.")
    if unequal:
        sentences.append(f"Not compared, because they have more or fewer predictions: {'; '.join(unequal)}.")
    return sentences


def compared(rows: Rows, options: TableOptions, notes: Sequence[str] = ()) -> tabulate.Comparison:
    """The comparison of the rows, as the options say, with short names."""
    rows = with_short_names(rows)
    return paired.compare(
        rows.found,
        against=rows.against,
        measures=options.measures,
        margins=parse_margins(options.margin),
        samples=options.samples,
        notes=[*notes, *rows.notes],
    )


def publish(folder: Path, rows: Rows, options: TableOptions, notes: Sequence[str] = ()) -> str:
    """Write the cases of each row, the tables and the page into the folder; return the tables as Markdown.

    Rows that cannot be compared raise :class:`InputError`, and what is in the folder then stays as it is.
    """
    contents = compared(rows, options, notes)
    for name, cases in rows.found.items():
        write_cases(folder / f"{name}.csv", cases)
    tabulate.write_tables(folder, contents)
    if wants_page(options):
        write_page(folder, with_short_names(rows), contents)
    return tabulate.markdown(contents)


def with_short_names(rows: Rows) -> Rows:
    """The rows without the options that all share: ``plain+lite0+nodule`` and ``rlar+lite0+nodule`` as plain and rlar.

    A note names the options. Nothing changes where fewer than two are shared, or where two names would become one.
    """
    shared, *others = (name.split(", ")[0].split("+")[1:] for name in rows.found)
    shared = [word for word in shared if all(word in other for other in others)]
    short = {name: _without(name, shared) for name in rows.found}
    if len(shared) < 2 or not others or len(set(short.values())) < len(short):
        return rows
    notes = list(rows.notes)
    for name in sorted(short, key=len, reverse=True):
        notes = [note.replace(name, short[name]) for note in notes]
    return Rows(
        {short[name]: cases for name, cases in rows.found.items()},
        {short[name]: short[other] for name, other in rows.against.items()},
        [f"Options of all methods: {', '.join(shared)}.", *notes],
    )


def _without(name: str, options: Sequence[str]) -> str:
    method, comma, more = name.partition(", ")
    first, *words = method.split("+")
    return "+".join([first, *(word for word in words if word not in options)]) + comma + more


def write_page(folder: Path, rows: Rows, contents: tabulate.Comparison) -> None:
    """Write ``index.html`` of the first method and those that are compared to it; a line where there is none.

    The page shows the numbers of the tables: ``contents`` is the comparison that they are written of.
    """
    first, *others = rows.found
    beside = [name for name in others if rows.against.get(name) == first]
    if not beside:
        print("no page: it needs two methods that can be compared")
        return
    found = {name: rows.found[name] for name in (first, *beside)}
    title = f"Comparison: {folder.absolute().parent.name}, {folder.name}"
    write_text(folder / "index.html", report.render_comparison(found, compared=contents, title=title))


def wants_page(options: TableOptions) -> bool:
    """Whether a page is written: as the options say, else where the packages for it are installed."""
    return not extras.missing(extras.PAGE) if options.page == "auto" else options.page == "yes"


def require(options: TableOptions, *modules: str) -> None:
    """Raise :class:`InputError` that names missing packages for what the options ask for, and for ``modules``."""
    extras.require(*modules, *extras.STATISTICS, *(extras.PAGE if options.page == "yes" else ()))
