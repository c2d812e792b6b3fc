"""Folds and splits by group: made once, saved as a file, checked whenever they are read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from thyroid_jax.errors import InputError, raise_all
from thyroid_jax.files import read_json

SIDES = ("train", "validation", "test")


class Meta(NamedTuple):
    """What a split needs to know of a record: its case (unique), its group, and the hash of its pixels."""

    case: str
    group: str
    content: str = ""


def assign_folds(groups: Sequence[str], strata: Sequence[Hashable], *, folds: int, seed: int) -> list[int]:
    """The fold, 0 to ``folds`` - 1, of each record: whole groups, each stratum spread as evenly as groups allow.

    ``strata[i]`` is the class of record i, None where it has none (a stratum of its own). The result depends on the
    arguments only. Raises :class:`InputError` when there are fewer groups than folds, or a class has so few groups
    that none could be left to train on: test and validation take one fold each, so a class needs at least three
    groups.
    """
    if len(groups) != len(strata):
        raise ValueError(f"{len(groups)} groups but {len(strata)} strata")
    if folds < 3:
        raise InputError(f"folds: {folds}, but test, validation and training need at least 3.")
    if len(set(groups)) < folds:
        raise InputError(f"folds: {folds}, but there are only {len(set(groups))} groups. Ask for fewer folds.")
    _check_strata(groups, strata, "groups")
    from sklearn.model_selection import StratifiedGroupKFold

    names = {
        stratum: number
        for number, stratum in enumerate(sorted(set(strata), key=lambda one: (one is not None, str(one))))
    }
    labels = [names[stratum] for stratum in strata]
    assigned = [0] * len(groups)
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(_without_warning(splitter, labels, groups)):
        for index in held_out:
            assigned[index] = fold
    _check_strata(assigned, strata, "folds")
    return assigned


def _without_warning(splitter, labels: Sequence[int], groups: Sequence[str]):
    """sklearn warns when a class has fewer records than folds; that is checked here, by groups, with a clearer message."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        return list(splitter.split([0] * len(labels), labels, groups))


def _check_strata(parts: Sequence[Hashable], strata: Sequence[Hashable], what: str) -> None:
    """Every class must have records in as many ``parts`` as there are sides; then it is trained on whichever fold is
    held out.
    """
    members: dict[Hashable, set[Hashable]] = defaultdict(set)
    for part, stratum in zip(parts, strata):
        members[stratum].add(part)
    problems = [
        f"class {stratum!r}: {len(found)} {what if len(found) > 1 else what[:-1]}"
        for stratum, found in sorted(members.items(), key=lambda item: str(item[0]))
        if stratum is not None and len(found) < len(SIDES)
    ]
    raise_all(
        problems,
        f"A class needs records in at least {len(SIDES)} {what}, to be in training, validation and test. "
        "Merge these classes with a neighbour, leave their records out, or add data:",
    )


def make_split(records: Sequence[Meta], folds: Sequence[int], fold: int, seed: int) -> dict[str, object]:
    """The split that tests on fold ``fold``, validates on the next one (cyclically) and trains on the rest.

    Returns {"train": [case, ...], "validation": [...], "test": [...], "fold", "folds", "seed"}; cases in the order of
    ``records``. Raises :class:`InputError` when ``fold`` does not exist, a side is empty, or a group or image is on
    two sides.
    """
    if len(records) != len(folds):
        raise ValueError(f"{len(records)} records but {len(folds)} folds")
    count = max(folds, default=-1) + 1
    if not 0 <= fold < count:
        raise InputError(f"fold: {fold}, but the folds are 0 to {count - 1}.")
    side_of = {fold: "test", (fold + 1) % count: "validation"}
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    for record, its_fold in zip(records, folds):
        sides[side_of.get(its_fold, "train")].append(record.case)
    split = {**sides, "fold": fold, "folds": count, "seed": seed}
    raise_all(_problems(split, records), "This split cannot be used:")
    return split


def load_split(path: Path | str, records: Sequence[Meta]) -> dict[str, object]:
    """Read a saved split and check it against ``records``. Raises :class:`InputError` with everything that does not
    hold.
    """
    split = read_json(path)
    if not isinstance(split, dict):
        raise InputError(f"{path}: not a split: expected an object with {', '.join(SIDES)}.")
    raise_all(
        _problems(split, records),
        f"{path}: this split does not fit the data set; make a new one, or give the data set it was made for:",
    )
    return split


def _problems(split: Mapping[str, object], records: Sequence[Meta]) -> list[str]:
    malformed = [
        f"{side}: not a list of cases, or empty"
        for side in SIDES
        if not isinstance(split.get(side), list)
        or not split[side]
        or not all(isinstance(case, str) for case in split[side])
    ]
    if malformed:
        return malformed
    by_case = {record.case: record for record in records}
    problems = [
        f"{side}: case {case!r} is not in the data set" for side in SIDES for case in split[side] if case not in by_case
    ]
    known = [(side, by_case[case]) for side in SIDES for case in split[side] if case in by_case]
    for what, key in (
        ("case", lambda one: one.case),
        ("group", lambda one: one.group),
        ("image with content", lambda one: one.content),
    ):
        where: dict[str, set[str]] = defaultdict(set)
        for side, record in known:
            if key(record):
                where[key(record)].add(side)
        problems += [
            f"{what} {name!r} is in {' and '.join(sorted(sides))}" for name, sides in where.items() if len(sides) > 1
        ]
    twice = {case for side in SIDES for case, times in Counter(split[side]).items() if times > 1}
    return problems + [f"case {case!r} is listed more than once" for case in sorted(twice)]
