"""The grades of a folder: their order, given or guessed, and the grade that a folder's name says."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from data_prep.folder.layout import Layout, Place
from data_prep.folder.options import Options
from data_prep.folder.table import Table

GRADE = re.compile(  # separators stand only after a word: -1 is no grade
    r"(?:(?P<system>(?=[a-z])(?:bi[ _-]?rads|grade|(?:acr|eu|k|c)?[ _-]?(?:ti[ _-]?rads)?[ _-]?(?:tr)?))[ _-]*)?"
    r"(?P<number>[0-9]{1,2})(?:\.0)?(?P<letter>[a-z]?)"
)
HIGHEST_GRADE = 6  # of BI-RADS; a larger number is a code, or points


def grades_of(options: Options, layout: Layout, table: Table) -> tuple[tuple[str, ...], dict[str, int]]:
    """The grades, least suspicious first, and the index of each by its text in small letters."""
    said: dict[str, list[str]] = defaultdict(list)  # text -> the places that say it
    for labels in table.labels.values():
        if labels.grade:
            said[labels.grade.casefold()].append(table.place(labels, "grade"))
        for text in labels.reader_grades:
            said[text.casefold()].append(f"{table.file}: row {labels.row}, {' or '.join(table.readers)}")
    if options.grade_from_folder:
        for pair in layout.pairs:
            if text := folder_grade(pair.image, options):
                said[text.casefold()].append(f"{pair.image.path}: folder")
    if options.grades:
        layout.faults += [
            f"{place}: grade {text[:40]!r} is not one of --grades {','.join(options.grades)}; mend it, add it to "
            "--grades, or name it in --missing."
            for text, places in said.items()
            if text not in {grade.casefold() for grade in options.grades}
            for place in places
        ]
        return options.grades, {grade.casefold(): number for number, grade in enumerate(options.grades)}
    return _guessed_grades(said, layout)


def _guessed_grades(said: Mapping[str, Sequence[str]], layout: Layout) -> tuple[tuple[str, ...], dict[str, int]]:
    if not said:
        return (), {}
    matches = {text: GRADE.fullmatch(text) for text in said}
    odd = sorted(text for text, match in matches.items() if match is None)
    systems = {text: _system(match) for text, match in matches.items() if match}
    order = ", ".join(sorted(said)[:12])
    advice = "give their order with --grades A,B,C, least suspicious first; --missing names what is no grade"
    if odd or len(set(systems.values())) > 1:
        examples = {system: text for text, system in sorted(systems.items(), reverse=True)}
        strange = odd or sorted(examples.values())
        layout.faults.append(
            f"{said[strange[0]][0]}: the order of the grades {order[:200]} is not known; {advice}, or --grade-column "
            f"none. {'Not understood' if odd else 'Of several kinds'}: {_with_places(strange, said)}."
        )
        return (), {}
    if high := sorted(text for text, match in matches.items() if match and int(match["number"]) > HIGHEST_GRADE):
        layout.faults.append(
            f"{said[high[0]][0]}: a grade above {HIGHEST_GRADE} is no category of TI-RADS or BI-RADS; {advice}. "
            f"Found: {_with_places(high, said)}."
        )
        return (), {}
    key = {text: (int(match["number"]), match["letter"]) for text, match in matches.items() if match}
    if any(number == 0 for number, _ in key.values()) and max(key.values()) > (1, "z"):
        zero = next(text for text, (number, _) in key.items() if number == 0)
        layout.faults.append(
            f"{said[zero][0]}: grade {zero} often means 'not assessed', not the least suspicious; {advice}."
        )
        return (), {}
    names = {pair: f"{pair[0]}{pair[1]}" for pair in key.values()}
    if "tr" in systems.values():
        names = {pair: f"TR{name}" for pair, name in names.items()}
    ordered = sorted(names)
    whole = {number for number, letter in ordered if not letter} & {number for number, letter in ordered if letter}
    if whole:
        layout.remarks.add(f"grade {min(whole)} is there with and without letter, as grades of their own")
    return tuple(names[pair] for pair in ordered), {text: ordered.index(pair) for text, pair in key.items()}


def folder_grade(image: Place, options: Options) -> str:
    """The grade that the folders of an image say: the innermost of ``--grades``, or the innermost of all."""
    given = {grade.casefold() for grade in options.grades}
    fitting = [folder for folder in image.dirs if folder.casefold() in given] if given else list(image.dirs[-1:])
    return fitting[-1] if fitting else ""


def _system(match: re.Match[str]) -> str:
    """The grading that a text names: BI-RADS 4 and BIRADS 4 are one, and so are TR4, ACR-TR4 and ACR TI-RADS TR4."""
    word = re.sub(r"[ _-]", "", match["system"] or "")
    return "tr" if word.endswith("tr") else word


def _with_places(texts: Sequence[str], said: Mapping[str, Sequence[str]]) -> str:
    """Each text with the first places that say it, for a message."""
    listed = []
    for text in texts[:8]:
        more = f" and {len(said[text]) - 3} more" if len(said[text]) > 3 else ""
        listed.append(f"{text[:40]!r} ({'; '.join(said[text][:3])}{more})")
    return ", ".join(listed) + (f" and {len(texts) - 8} other texts" if len(texts) > 8 else "")
