"""Folds of a data set, made once and kept in a file, and the split of a run that follows from them.

A *folds file* gives every record to one fold, or to the official test part where the data set has one::

    {"schema": 1, "name": "ddti", "data": DIGEST OF THE DATA SET, "folds": [[CASE, ...], ...], "test": [CASE, ...],
     "seed": 0, "made_by": {"thyroid_jax": "0.1.0", "scikit-learn": "1.7.2", "numpy": "2.3.4"}}

It lies beside the data, ``DIR/NAME/folds/5-0.json`` for 5 folds and seed 0, or is given by the user, who may leave out
``seed`` and ``made_by``. The publishers' own folds lie there too, as ``official-5.json``, for a user to give. All runs
of a study read the same file, so their folds are the same, whatever library made them. What is read is checked: every
record once, no group and no image on two sides.
"""

from __future__ import annotations

import errno
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from thyroid_jax.data.record import Entry, digest_of
from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import read_json, write_json

SIDES = ("train", "validation", "test")
SCHEMA = 1
_SHOWN = 10  # names in one line of a message


class Split(TypedDict):
    """The three parts of a run, lists of cases, and where they come from.

    ``fold`` of ``folds`` was held out, ``seed`` made the folds (None when unknown), ``file`` holds them.
    """

    train: list[str]
    validation: list[str]
    test: list[str]
    fold: int
    folds: int
    seed: int | None
    file: str


@dataclass(frozen=True)
class Folds:
    """The content of a folds file. ``data`` is the digest of the data set, ``test`` the official test part or ()."""

    name: str
    data: str
    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()
    seed: int | None = None
    made_by: Mapping[str, str] = field(default_factory=dict)


def assign_folds(
    groups: Sequence[str], strata: Sequence[Hashable], *, folds: int, seed: int, sides: int = len(SIDES)
) -> list[int]:
    """The fold, 0 to ``folds`` - 1, of each record: whole groups, each stratum spread as evenly as groups allow.

    ``strata[i]`` is the class of record i, None where it has none (a stratum of its own). ``sides`` is the number of
    parts that the folds are for: training, validation and test, or 2 where the test part is not taken from them. The
    result depends on the arguments and on scikit-learn's version. Raises :class:`InputError` when there are fewer
    groups than folds, no class has as many records as there are folds, or a class has so few groups that one side
    would have none.
    """
    if len(groups) != len(strata):
        raise ValueError(f"{len(groups)} groups but {len(strata)} strata")
    if folds < sides:
        raise InputError(f"folds: {folds}, but {_listed(SIDES[:sides])} need at least {sides}.")
    if len(set(groups)) < folds:
        raise InputError(f"folds: {folds}, but there are only {len(set(groups))} groups. Ask for fewer folds.")
    _check_strata(groups, strata, "groups", sides)
    if (most := max(Counter(strata).values())) < folds:
        raise InputError(f"folds: {folds}, but no class has more than {most} records. Ask for fewer folds.")
    from sklearn.model_selection import StratifiedGroupKFold

    ordered = sorted(set(strata), key=lambda stratum: (stratum is not None, str(stratum)))
    number_of = {stratum: number for number, stratum in enumerate(ordered)}
    labels = [number_of[stratum] for stratum in strata]
    assigned = [0] * len(groups)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(_without_warning(splitter, labels, groups)):
        for index in held_out:
            assigned[index] = fold
    _check_strata(assigned, strata, "folds", sides)
    return assigned


def _without_warning(splitter: Any, labels: Sequence[int], groups: Sequence[str]) -> list[tuple[Any, Any]]:
    """sklearn warns when a class has fewer records than folds; that is checked here, by groups and more clearly."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return list(splitter.split([0] * len(labels), labels, groups))


def _check_strata(parts: Sequence[Hashable], strata: Sequence[Hashable], what: str, sides: int) -> None:
    """Check that every class has records in at least as many ``parts`` as there are sides. Then it is in the training
    part, whichever fold is held out.
    """
    members: dict[Hashable, set[Hashable]] = defaultdict(set)
    for part, stratum in zip(parts, strata):
        members[stratum].add(part)
    problems = [
        f"class {stratum!r}: {len(found)} {what if len(found) > 1 else what[:-1]}"
        for stratum, found in sorted(members.items(), key=lambda item: str(item[0]))
        if stratum is not None and len(found) < sides
    ]
    raise_all(
        problems,
        f"A class needs records in at least {sides} {what}, to be in {_listed(SIDES[:sides])}. "
        "Merge these classes with a neighbour, leave their records out, or add data:",
    )


def make_folds(name: str, data: str, entries: Sequence[Entry], *, folds: int, seed: int) -> Folds:
    """Divide the groups of the data set ``name``, whose digest is ``data``, into ``folds`` folds.

    Classes are spread evenly: the grades, or benign and malignant where no record has a grade. An official test part
    stays as it is. Raises :class:`InputError` as :func:`assign_folds` does.
    """
    test = tuple(entry.case for entry in entries if entry.official_test)
    dealt = [entry for entry in entries if not entry.official_test]
    assigned = assign_folds(
        [entry.group for entry in dealt], _strata(dealt), folds=folds, seed=seed, sides=2 if test else 3
    )
    parts = tuple(
        tuple(entry.case for entry, its_fold in zip(dealt, assigned) if its_fold == fold) for fold in range(folds)
    )
    made = Folds(name, data, parts, test, seed, _versions())
    raise_all(problems_of_folds(made, entries), f"{name}: these folds cannot be used:")
    return made


def _versions() -> dict[str, str]:
    import numpy as np
    import sklearn

    import thyroid_jax

    return {"thyroid_jax": thyroid_jax.__version__, "scikit-learn": sklearn.__version__, "numpy": np.__version__}


def _strata(entries: Sequence[Entry]) -> Sequence[Hashable]:
    grades = [entry.grade for entry in entries]
    return grades if any(grade is not None for grade in grades) else [entry.malignant for entry in entries]


def folds_folder(data_dir: Path | str, name: str) -> Path:
    """Where the folds files of the data set ``name`` in ``data_dir`` lie."""
    return Path(data_dir) / name / "folds"


def write_folds(path: Path | str, folds: Folds) -> None:
    """Write a folds file in one step."""
    parts = {"folds": [list(fold) for fold in folds.folds], "test": list(folds.test)}
    about = {"schema": SCHEMA, "name": folds.name, "data": folds.data}
    write_json(path, about | parts | {"seed": folds.seed, "made_by": dict(folds.made_by)})


def read_folds(path: Path | str) -> Folds:
    """The content of a folds file, not yet compared with any data. Raises :class:`InputError` with every field that is
    malformed.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a folds file: expected an object with schema, name, data, folds and test.")
    raise_all(
        [
            f"{field_name}: {'is missing' if field_name not in values else must_be}"
            for field_name, (must_be, is_good) in _FIELDS.items()
            if not is_good(values.get(field_name))
        ]
        + [f"{unknown}: unknown field" for unknown in sorted(set(values) - set(_FIELDS))],
        f"{path}: not a folds file; mend these fields, or make it with {_command('NAME', 'DIR', 'FILE')}:",
    )
    folds = tuple(tuple(cases) for cases in values["folds"])
    test, made_by = tuple(values["test"]), values.get("made_by") or {}
    return Folds(values["name"], values["data"], folds, test, values.get("seed"), made_by)


def _are_cases(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(case, str) for case in value)


_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "schema": (f"must be {SCHEMA}", lambda value: type(value) is int and value == SCHEMA),
    "name": ("must be the name of a data set", lambda value: isinstance(value, str)),
    "data": ("must be the digest of a data set", lambda value: isinstance(value, str)),
    "folds": (
        "must be a list of lists of cases",
        lambda value: isinstance(value, list) and all(_are_cases(cases) for cases in value),
    ),
    "test": ("must be a list of cases, [] without an official test part", _are_cases),
    "seed": ("must be a whole number", lambda value: value is None or type(value) is int),
    "made_by": (
        "must be an object of texts",
        lambda value: (
            value is None or (isinstance(value, dict) and all(isinstance(text, str) for text in value.values()))
        ),
    ),
}


def load_folds(path: Path | str, name: str, data: str, entries: Sequence[Entry]) -> Folds:
    """Read a folds file and check it against the data set ``name`` with digest ``data``. Raises :class:`InputError`
    with everything that does not hold.
    """
    folds = read_folds(path)
    problems = [
        f"{field_name}: {found!r}, but the data set's is {expected!r}"
        for field_name, found, expected in (("name", folds.name, name), ("data", folds.data, data))
        if found != expected
    ]
    raise_all(
        problems + problems_of_folds(folds, entries),
        f"{path}: these folds do not fit the data set. Give the data set they were made for, or make others for it "
        f"({_command(name, 'DIR', 'FILE')}):",
    )
    return folds


def problems_of_folds(folds: Folds, entries: Sequence[Entry]) -> list[str]:
    """Messages that say why ``folds`` do not fit ``entries``. Parts must be disjoint by case, group and image, no fold
    may be empty, and together they must hold every record.
    """
    least = 2 if folds.test else 3
    parts = {f"fold {number}": cases for number, cases in enumerate(folds.folds)} | {"test": folds.test}
    problems = [f"folds: {len(folds.folds)}, at least {least} are needed"] if len(folds.folds) < least else []
    problems += [f"{part}: is empty" for part, cases in parts.items() if not cases and part != "test"]
    of_case = {entry.case: entry for entry in entries}
    times = Counter(case for cases in parts.values() for case in cases)
    official = {entry.case for entry in entries if entry.official_test}
    problems += _lines("not in the data set", [case for case in times if case not in of_case])
    problems += _lines("in no fold", [case for case in of_case if case not in times])
    problems += _lines("listed more than once", [case for case, count in times.items() if count > 1])
    if official:
        problems += _lines("not in test, but in the official test part", sorted(official - set(folds.test)))
        problems += _lines(
            "in test, but not in the official test part", sorted(set(folds.test) & set(of_case) - official)
        )
    for what, value_of in (("group", lambda entry: entry.group), ("image with content", lambda entry: entry.content)):
        parts_of: dict[str, list[str]] = defaultdict(list)
        for part, cases in parts.items():
            for value in dict.fromkeys(value_of(of_case[case]) for case in cases if case in of_case):
                parts_of[value].append(part)
        problems += [f"{what} {value!r} is in {_listed(where)}" for value, where in parts_of.items() if len(where) > 1]
    return problems


def _lines(what: str, cases: Sequence[str]) -> list[str]:
    """One line that names the first few cases; no line when there is no case."""
    more = f" and {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
    return [f"{what}: {', '.join(map(repr, cases[:_SHOWN]))}{more}"] if cases else []


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _command(name: str, data_dir: Path | str, out: Path | str, folds: int = 5, seed: int = 0) -> str:
    more = "" if (folds, seed) == (5, 0) else f" --folds {folds} --seed {seed}"
    data_dir, out = (shlex.quote(str(path)) for path in (data_dir, out))
    return f"python -m data_prep folds {name} --data {data_dir} --out {out}{more}"


def folds_beside(
    data_dir: Path | str, name: str, data: str, entries: Sequence[Entry], *, folds: int, seed: int
) -> tuple[Folds, Path]:
    """The folds that lie beside the data set, and their file; they are made at their first use.

    Processes that make them at the same time write the same file. Raises :class:`InputError` when the file does not
    fit, or when it cannot be written.
    """
    path = folds_folder(data_dir, name) / f"{folds}-{seed}.json"
    if not path.is_file():
        made = make_folds(name, data, entries, folds=folds, seed=seed)
        try:
            write_folds(path, made)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise InputError(
                f"{path}: cannot be written ({error.strerror}). Make the folds elsewhere, "
                f"{_command(name, data_dir, 'FILE', folds, seed)}, and hand over that file: --data.split FILE."
            ) from error
    found = load_folds(path, name, data, entries)
    if (len(found.folds), found.seed) != (folds, seed):
        raise InputError(
            f"{path}: holds {len(found.folds)} folds of seed {found.seed}. Move it elsewhere, and hand it over with "
            "--data.split."
        )
    return found, path


def resolve(folds: Folds, fold: int, entries: Sequence[Entry], file: str) -> Split:
    """The split that holds out ``fold``; cases in the order of ``entries``.

    Without an official test part: test is ``folds[fold]``, validation the next fold (cyclically), training the rest.
    With one: test is that part, validation is ``folds[fold]``, training the other folds. Raises :class:`InputError`
    when there is no such fold.
    """
    count = len(folds.folds)
    if not 0 <= fold < count:
        raise InputError(f"fold: {fold}, but the folds are 0 to {count - 1}.")
    parts = {"validation": folds.folds[fold], "test": folds.test}
    if not folds.test:
        parts = {"validation": folds.folds[(fold + 1) % count], "test": folds.folds[fold]}
    side_of = {case: side for side, cases in parts.items() for case in cases}
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    for entry in entries:
        sides[side_of.get(entry.case, "train")].append(entry.case)
    return Split(
        train=sides["train"],
        validation=sides["validation"],
        test=sides["test"],
        fold=fold,
        folds=count,
        seed=folds.seed,
        file=file,
    )


def digest(split: Split) -> str:
    """Hash of the three parts. The order of cases within a part and the origin of the split do not matter."""
    return digest_of([sorted(split["train"]), sorted(split["validation"]), sorted(split["test"])])


def differences(saved: Any, split: Split) -> list[str]:
    """Messages that say how ``saved``, read from a file, differs from ``split``; [] when the parts and their origin are
    the same. The place of the folds file does not matter.
    """
    if not isinstance(saved, dict):
        return [f"not a split: expected an object with {', '.join(Split.__annotations__)}"]
    malformed = [f"{name}: is missing" for name in Split.__annotations__ if name not in saved]
    malformed += [f"{name}: unknown field" for name in saved if name not in Split.__annotations__]
    malformed += [f"{side}: not a list of cases" for side in SIDES if side in saved and not _are_cases(saved[side])]
    if malformed:
        return malformed
    times = Counter(case for side in SIDES for case in saved[side])
    asked: dict[str, Any] = dict(split)
    side_of = {case: side for side in SIDES for case in asked[side]}
    problems = _lines("not in the data set", [case for case in times if case not in side_of])
    problems += _lines("in no part", [case for case in side_of if case not in times])
    problems += _lines("listed more than once", [case for case, count in times.items() if count > 1])
    for side in SIDES:
        for other in SIDES:
            moved = [case for case in saved[side] if side_of.get(case) == other != side]
            problems += _lines(f"in {side}, but belongs in {other}", moved)
    return problems + [
        f"{name}: {saved[name]!r}, not {asked[name]!r}"
        for name in ("fold", "folds", "seed")
        if (type(saved[name]), saved[name]) != (type(asked[name]), asked[name])
    ]
