"""Which image a row of a table is about: the names and numbers that a cell may give it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable

from data_prep.folder.layout import Place, composed, stem_of


class RowFinder:
    """Finds the image that a cell names: with or without folder and suffix, with its own capitals first."""

    def __init__(self, images: Collection[Place]) -> None:
        self._exact: dict[str, list[Place]] = defaultdict(list)
        self._folded: dict[str, list[Place]] = defaultdict(list)
        self._numbers: dict[int, list[Place]] = defaultdict(list)
        for image in images:
            full = stem_of(composed(image.path).rpartition("/")[2])
            for stem in {image.stem, full}:
                self._exact[stem].append(image)
                self._folded[stem.casefold()].append(image)
            if _is_number(image.stem):
                self._numbers[int(image.stem)].append(image)
        self._some = sorted(image.path for image in images)[:3]

    def find(self, text: str) -> list[Place]:
        """The images that fit; more than one when the text is ambiguous."""
        *folders, name = [part for part in composed(text).replace("\\", "/").split("/") if part not in ("", ".")] or [
            ""
        ]
        stem = stem_of(name)
        found = self._exact.get(stem) or self._folded.get(stem.casefold()) or []
        if not found and _is_number(stem):
            found = self._numbers.get(int(stem), [])
        dirs = tuple(folder.lower() for folder in folders)
        same = [image for image in found if _is_end(dirs, _dirs(image)) or _is_end(dirs, image.dirs)]
        whole = [image for image in same if dirs in (_dirs(image), image.dirs)]
        return whole if dirs and len(whole) == 1 else same

    def hits(self, texts: Iterable[str]) -> tuple[int, int, int]:
        """How many images the cells of a column name: by a file name with suffix, by any name, and by a number too.

        A column of file names comes before one of running numbers, also where it has a slip and the other has none.
        """
        by_file, by_name, at_all = set[str](), set[str](), set[str]()
        for text in map(composed, texts):
            images = {image.path for image in self.find(text)}
            stem = re.split(r"[\\/]", stem_of(text))[-1]
            at_all |= images
            by_name |= images if stem in self._exact or stem.casefold() in self._folded else set()
            by_file |= images if stem_of(text) != text else set()
        return len(by_file), len(by_name), len(at_all)

    def examples(self) -> str:
        """Names of some images, for a message."""
        return ", ".join(self._some)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", text) is not None


def _dirs(image: Place) -> tuple[str, ...]:
    return tuple(composed(image.path).lower().split("/")[:-1])


def _is_end(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    short, long = sorted((one, other), key=len)
    return not short or long[-len(short) :] == short
