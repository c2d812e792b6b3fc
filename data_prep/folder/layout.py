"""Which files of a folder are images, masks and drawings, and which belong together: decided by their names alone."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from thyroid_jax.data import formats
from thyroid_jax.errors import InputError

MOST_FILES = 1_000_000
LONGEST_NAME = 200  # characters of a file's name
NOISE = frozenset(("__macosx", "thumbs.db", "desktop.ini"))
TABLES = (".csv", ".tsv", ".xlsx")

IMAGE_WORDS = frozenset("image images img imgs jpegimages original originals picture pictures scan scans".split())
MASK_WORDS = frozenset(
    "mask masks label labels annotation annotations gt gts groundtruth groundtruths seg segs segmentation "
    "segmentations outline outlines contour contours".split()
)
BOTH_WORDS = frozenset("and with without no plus or".split())  # a folder of images_and_masks holds both
SPLITS = {
    **dict.fromkeys(("train", "training", "trainval", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "holdout"), "test"),
}
SPLIT_FILLERS = frozenset("set data part split group cohort external internal independent fold".split())
NNUNET = re.compile(r"(images|labels)(tr|ts|val)")
PERSON = r"(?:reader|annotator|rater|observer|expert|radiologist)"
READER = re.compile(rf"{PERSON}[ _-]?([0-9]{{1,3}}|[a-z])|r([0-9]{{1,3}})")
STRONG = ("mask", "masks", "segmentation", "groundtruth", "ground[ _-]truth")  # a file of such a name is no image
WEAK = "seg|gt|label|labels|tumou?r|lesion|nodule|annotation|contour|outline"  # a mask beside its image only
NUMBERED = re.compile(r"(?P<base>.+)[ _-][0-9]{1,3}")
NNUNET_CHANNEL = re.compile(r"_([0-9]{4})$")
FIRST_WORD = re.compile(r"[A-Za-z]+[ _-](?P<rest>.+)")


class Words(NamedTuple):
    """What says "mask": words in the name of a folder, patterns of a mask's name after and before its image's, and of
    a name that is nothing but such a word.
    """

    folders: frozenset[str]
    tail: re.Pattern[str]
    head: re.Pattern[str]
    bare: re.Pattern[str]


@lru_cache
def words_of(more: tuple[str, ...] = ()) -> Words:
    """The words for "mask", with ``more`` of the user's."""
    strong = "|".join([*STRONG, *map(re.escape, more)])
    tail = (
        rf"(?P<base>.+?)[ ._-](?:(?:(?P<strong>{strong})|{WEAK})(?:[ _-]?[0-9]{{1,3}})?"
        rf"(?:[ _-]?(?:{PERSON}[ _-]?|r)(?P<reader>[0-9]{{1,3}}|[a-z]))?"
        rf"|{PERSON}[ _-]?(?P<person>[0-9]{{1,3}}|[a-z])(?:[ _-](?:{strong}|{WEAK}))?)"
    )
    head = rf"(?:(?P<strong>{strong})|{WEAK})[ _-](?P<base>.+)"
    folders = MASK_WORDS | {word.lower() for word in more}
    bare = rf"(?:{'|'.join(map(re.escape, sorted(folders)))}|ground[ _-]truth)(?:[ _-]?[0-9]{{1,3}})?"
    return Words(folders, *(re.compile(pattern, re.IGNORECASE) for pattern in (tail, head, bare)))


class Place(NamedTuple):
    """A file and what its path says.

    kind    image, json, xml, table, or "" for any other
    dirs    folders in small letters, without those that say only "image", "mask" or a reader
    stem    name without suffix; ``case`` is the path without suffix and without the folder of images
    role    image or mask where a folder says so, else ""
    split   train, val, test or ""
    """

    path: str
    kind: str
    dirs: tuple[str, ...]
    stem: str
    case: str
    role: str = ""
    reader: str = ""
    split: str = ""


class Mask(NamedTuple):
    """A mask file and the reader who drew it; "" where none is named."""

    path: str
    reader: str


@dataclass
class Pair:
    """An image and the files that outline it."""

    image: Place
    masks: list[Mask] = field(default_factory=list)
    drawing: str = ""
    boxes: str = ""


@dataclass
class Remarks:
    """What a user should know: each remark with the places that it holds for."""

    found: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, text: str, *places: str) -> None:
        """Keep a remark on some places."""
        self.found[text] += places


@dataclass
class Layout:
    """The pairs of a folder, sorted by the path of their image. ``documents`` are JSON files that no image claims,
    ``tables`` lie beside the folders of images, and ``inner_tables`` in them.
    """

    pairs: list[Pair] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    inner_tables: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)


def listing(source: Path, ignore: Sequence[str], layout: Layout) -> list[tuple[str, str]]:
    """(path, kind) of every file below ``source`` that is not ignored, sorted; kinds are those of :class:`Place`.

    Faults and remarks go to ``layout``. Hidden files are skipped, and links to folders are not followed. Raises
    :class:`InputError` when there is no such folder, or more than a million files.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder. Give the folder that holds your images.")
    paths: list[str] = []
    failed = lambda error: layout.faults.append(f"{error.filename!r}: cannot be listed ({error.strerror}).")
    for folder, inner, names in os.walk(source, onerror=failed, followlinks=False):
        inner[:] = sorted(name for name in inner if not _is_noise(name))
        here = os.path.relpath(folder, source).replace(os.sep, "/")
        under = "" if here == "." else f"{here}/"
        links = [under + name for name in inner if os.path.islink(os.path.join(folder, name))]
        if links:
            layout.remarks.add("links to folders are not followed", *map(_shown, links))
        paths += [under + name for name in names if not _is_noise(name)]
        if len(paths) > MOST_FILES:
            raise InputError(f"{source}: more than {MOST_FILES} files. Give a folder of one data set.")
    patterns = [pattern.lower() for pattern in ignore]
    kept = sorted(path for path in paths if not _is_ignored(path.lower(), patterns))
    if len(kept) < len(paths):
        layout.remarks.add(f"{len(paths) - len(kept)} files left out by --ignore")
    layout.faults += [f"{_shown(path)}: name: {problem}." for path in kept if (problem := _name_problem(path))]
    return [(path, _kind(source, path)) for path in kept if not _name_problem(path)]


def _is_noise(name: str) -> bool:
    return name.startswith((".", "~$")) or name.lower() in NOISE


def _is_ignored(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase(path, pattern) or fnmatchcase(name, pattern) for pattern in patterns)


def _shown(path: str) -> str:
    """The path for a message: characters that would disturb a terminal are written as escapes."""
    return path if not _name_problem(path[:LONGEST_NAME]) else ascii(path[:LONGEST_NAME])


def _name_problem(path: str) -> str:
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in path):
        return "is not UTF-8 or has control characters; rename the file"
    if max(map(len, path.split("/"))) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} characters; rename the file"
    return ""


def _kind(source: Path, path: str) -> str:
    lower = path.lower()
    if lower.endswith((".json", ".xml")):
        return lower.rpartition(".")[2]
    if lower.endswith(TABLES):
        return "table"
    if lower.rpartition("/")[2] == "dicomdir":
        return ""
    return "image" if formats.kind_of(source / path) else ""


def stem_of(name: str) -> str:
    """The name without the suffix of a picture or drawing; other suffixes are part of it.

    >>> stem_of("a.b.nii.gz"), stem_of("1.2.840")
    ('a.b', '1.2.840')
    """
    suffixes = sorted((*formats.SUFFIXES, ".json", ".xml"), key=len, reverse=True)
    suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def composed(text: str) -> str:
    """The text with one character for a letter and its accent, whichever way a disk or a table writes it."""
    return unicodedata.normalize("NFC", text)


def split_of(text: str) -> str | None:
    """train, val or test, as a cell of a table says it; "" for a number or an empty cell; None for anything else.

    >>> split_of("Test set"), split_of("external test1"), split_of("3"), split_of("cohort A")
    ('test', 'test', '', None)
    """
    if re.fullmatch(r"([0-9]+(\.0*)?)?", text.strip()):
        return ""
    words = re.findall(r"[a-z]+", text.casefold().replace("hold-out", "holdout").replace("hold out", "holdout"))
    said = {SPLITS[word] for word in words if word in SPLITS}
    return said.pop() if len(said) == 1 and all(word in SPLITS or word in SPLIT_FILLERS for word in words) else None


def natural(text: str) -> tuple[int, int, str]:
    """Sorts numbers by value, before names."""
    return (0, int(text), "") if text.isdigit() else (1, 0, text)


class _Folder(NamedTuple):
    """What the name of a folder says: role is image, mask or ""."""

    role: str = ""
    split: str = ""
    reader: str = ""
    is_nnunet: bool = False


def _folder(name: str, mask_words: frozenset[str]) -> _Folder:
    text = name.lower()
    if match := NNUNET.fullmatch(text):
        split = {"tr": "train", "ts": "test", "val": "val"}[match[2]]
        return _Folder("image" if match[1] == "images" else "mask", split, is_nnunet=True)
    text = re.sub(r"ground[ _-]truth", "groundtruth", text)
    text = re.sub(rf"({PERSON})[ _-]([0-9]{{1,3}}|[a-z])(?![a-z0-9])", r"\1\2", text)
    words = [word for word in re.split(r"[ _.-]+", text) if word]
    split = next((SPLITS[word] for word in words if word in SPLITS), "")
    readers = [match[1] or match[2] for word in words if (match := READER.fullmatch(word))]
    known = IMAGE_WORDS | mask_words | SPLITS.keys() | {"set", "data", "part"}
    if not all(word in known or READER.fullmatch(word) for word in words):
        holds_both = (IMAGE_WORDS | BOTH_WORDS) & set(words)
        if mask_words & set(words) and not holds_both:
            return _Folder("mask", split)
        split = split_of(" ".join(word for word in words if word not in IMAGE_WORDS)) or ""  # as test2017
        return _Folder("image" if split and IMAGE_WORDS & set(words) else "", split)
    reader = readers[0] if readers else ""
    if mask_words & set(words) or (reader and re.match(PERSON, text)):
        return _Folder("mask", split, reader)
    return _Folder("image" if IMAGE_WORDS & set(words) else "", split, reader)


def place_of(
    path: str, kind: str, words: Words, *, folders_count: bool = True, no_readers: Collection[str] = ()
) -> Place:
    """What the path of a file says; without ``folders_count`` no folder says "image" or "mask".

    ``no_readers`` are names of folders, in small letters, that hold images too and so are no reader's.
    """
    *folders, name = composed(path).split("/")
    said = [_folder(folder, words.folders) if folders_count else _Folder() for folder in folders]
    roles = [here.role for here in said if here.role]
    role = roles[-1] if roles else ""
    dirs, reader, image_at = [], "", -1
    for number, (folder, here) in enumerate(zip(folders, said)):
        if here.role:
            dirs += [here.split] if here.split else []
            image_at = number if here.role == "image" else image_at
            reader = here.reader or reader
        elif role == "mask" and here.reader and folder.lower() not in no_readers:
            reader = here.reader
        else:
            dirs.append(folder.lower())
    stem = stem_of(name)
    if role == "image" and said[image_at].is_nnunet and (channel := NNUNET_CHANNEL.search(stem)):
        stem = stem[: channel.start()]
        role = role if channel[1] == "0000" else "channel"
    case = "/".join([*(folder for number, folder in enumerate(folders) if number != image_at or role == "mask"), stem])
    split = next((here.split for here in reversed(said) if here.split), "")
    return Place(path, kind, tuple(dirs), stem, case, role, reader, split)


def paired(files: Iterable[tuple[str, str]], layout: Layout, mask_words: tuple[str, ...] = ()) -> None:
    """Put the pairs of ``files``, (path, kind) each, and what belongs to none into ``layout``. Their order is free."""
    words = words_of(mask_words)
    places = [place_of(path, kind, words) for path, kind in sorted(files)]
    of_images = {folder for place in places if place.kind == "image" and place.role != "mask" for folder in place.dirs}
    places = [place_of(place.path, place.kind, words, no_readers=of_images) for place in places]
    images, masks = _told_apart(places, words, layout)
    if masks and not images:  # the folder of all images is called like one of masks
        places = [place_of(place.path, place.kind, words, folders_count=False) for place in places]
        images, masks = _told_apart(places, words, layout)
    channels = [place.path for place in places if place.role == "channel"]
    layout.dropped += [(path, "is a further channel of nnU-Net; only _0000 is read") for path in channels]
    layout.pairs = [Pair(image) for image in _without_twins(images, layout)]
    finder = Finder(layout.pairs)
    folder_of: dict[tuple[str, str], str] = {}
    for mask in masks:
        _add_mask(mask, finder, folder_of, layout, words)
    for place in places:
        if place.kind in ("json", "xml"):
            _add_drawing(place, finder, layout, words)
    _refuse_likely_masks(layout)
    for place in places:
        if place.kind == "table":
            (layout.inner_tables if "/" in place.path else layout.tables).append(place.path)
    if others := [place.path for place in places if not place.kind]:
        layout.remarks.add("files of other kinds are not read", *others)


def _refuse_likely_masks(layout: Layout) -> None:
    """Faults for a folder beside one of images that has the same names, but whose own name does not say what it is."""
    stems: dict[str, set[str]] = defaultdict(set)
    for pair in layout.pairs:
        if not pair.masks:
            stems[pair.image.path.rpartition("/")[0]].add(pair.image.stem.casefold())
    said = {folder: set(re.split(r"[ _.-]+", folder.rpartition("/")[2].lower())) for folder in stems}
    by_parent: dict[str, list[str]] = defaultdict(list)
    for folder in stems:
        by_parent[folder.rpartition("/")[0]].append(folder)
    for folders in by_parent.values():
        known = [folder for folder in folders if folder and said[folder] & IMAGE_WORDS]
        for folder in folders:
            like = next((other for other in known if stems[other] == stems[folder]), None)
            if like and folder not in known and not said[folder] & SPLITS.keys():
                word = folder.rpartition("/")[2]
                layout.faults.append(
                    f"{folder}/: has the same names as {like}/. If it holds the masks, give --mask-words {word}; if "
                    f"it holds images, rename it {word}_images; else leave it out with --ignore '{folder}/*'."
                )


def _told_apart(places: Sequence[Place], words: Words, layout: Layout) -> tuple[list[Place], list[Place]]:
    """The images and the masks. A picture is a mask by its folder, or by its name beside its image."""
    pictures = [place for place in places if place.kind == "image"]
    outside, bare = _without_bare([place for place in pictures if place.role not in ("mask", "channel")], words)
    there = {(place.dirs, place.stem.casefold()) for place in outside}
    images: list[Place] = []
    masks = [place for place in pictures if place.role == "mask"] + bare
    for place in outside:
        named = [match for pattern in (words.tail, words.head) if (match := pattern.fullmatch(place.stem))]
        beside = any((place.dirs, match["base"].casefold()) in there for match in named)
        (masks if beside or any(match["strong"] for match in named) else images).append(place)
    return images, masks


def _without_bare(places: Sequence[Place], words: Words) -> tuple[list[Place], list[Place]]:
    """The other pictures, and the masks that are called just "mask", each named after the one picture beside it.

    Such a picture among several others is a mask without image; but it is an image if its name has a number or its
    folder holds images.
    """
    beside: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        tail = words.tail.fullmatch(place.stem)  # seg_1_mask is the mask of an image called seg_1
        if not words.bare.fullmatch(place.stem) and not (tail and words.bare.fullmatch(tail["base"])):
            beside[place.path.rpartition("/")[0]].append(place)
    others, bare = [], []
    for place in places:
        images = beside[place.path.rpartition("/")[0]]
        if words.bare.fullmatch(place.stem) and len(images) == 1:
            bare.append(place._replace(role="mask", stem=images[0].stem))
        elif words.bare.fullmatch(place.stem) and place.role != "image" and not place.stem[-1].isdigit():
            bare.append(place._replace(role="mask"))
        else:
            others.append(place)
    return others, bare


def _without_twins(images: Iterable[Place], layout: Layout) -> list[Place]:
    """The images, but of those that have one name in one folder and differ in the suffix only none: faults."""
    same: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for image in images:
        same[image.path.rpartition("/")[0], image.stem].append(image)
    for twins in same.values():
        if len(twins) > 1:
            names = " and ".join(twin.path for twin in twins)
            layout.faults.append(
                f"{names}: have one name. Leave one out with --ignore; if it is a mask, name it {twins[0].stem}_mask."
            )
    return [twins[0] for twins in same.values() if len(twins) == 1]


class Finder:
    """Finds the pair of an image by folders and name: as written, without regard to capitals, or in part of its
    folders.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self._exact: dict[tuple[tuple[str, ...], str], list[Pair]] = defaultdict(list)
        self._folded: dict[tuple[tuple[str, ...], str], list[Pair]] = defaultdict(list)
        self._stems: dict[str, list[Pair]] = defaultdict(list)
        self._rests: dict[str, list[Pair]] = defaultdict(list)
        self._series: set[str] = set()
        for pair in pairs:
            dirs, stem = pair.image.dirs, pair.image.stem
            self._exact[dirs, stem].append(pair)
            self._folded[dirs, stem.casefold()].append(pair)
            self._stems[stem.casefold()].append(pair)
            if match := NUMBERED.fullmatch(stem):
                self._series.add(match["base"].casefold())
            if match := FIRST_WORD.fullmatch(stem):
                self._rests[match["rest"].casefold()].append(pair)

    def find(self, dirs: tuple[str, ...], stem: str) -> list[Pair]:
        """The pairs that fit best; more than one when the name is ambiguous."""
        low = stem.casefold()
        near = lambda: [pair for pair in self._stems.get(low, ()) if _agree(dirs, pair.image.dirs)]
        return self._exact.get((dirs, stem)) or self._folded.get((dirs, low)) or near()

    def is_series(self, base: str) -> bool:
        """Whether an image is called ``base`` with a number after it, so that such a number names an image."""
        return base.casefold() in self._series

    def find_rest(self, dirs: tuple[str, ...], stem: str) -> list[Pair]:
        """The pairs whose name is ``stem`` after its first word (``bus_0001`` for ``0001``)."""
        return [pair for pair in self._rests.get(stem.casefold(), ()) if _agree(dirs, pair.image.dirs)]


def _agree(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether all folders of one are among those of the other, in this order."""
    short, long = sorted((one, other), key=len)
    remaining = iter(long)
    return all(folder in remaining for folder in short)


def _names_of_image(place: Place, words: Words) -> list[tuple[str, str]]:
    """(name, reader) of the image that a mask or drawing may belong to, the likeliest first."""
    inside = place.role == "mask"
    tail, head, numbered = (pattern.fullmatch(place.stem) for pattern in (words.tail, words.head, NUMBERED))
    found = [(place.stem, "")] if inside or place.kind != "image" else []
    found += [(tail["base"], (tail["reader"] or tail["person"] or "").lower())] if tail else []
    found += [(head["base"], "")] if head else []
    found += [(numbered["base"], "")] if numbered and inside else []
    return found


def _add_mask(mask: Place, finder: Finder, folder_of: dict[tuple[str, str], str], layout: Layout, words: Words) -> None:
    number = NUMBERED.fullmatch(mask.stem)
    names = _names_of_image(mask, words)
    if number and finder.is_series(number["base"]):
        names = [name for name in names if name[0] != number["base"]]
    found = [(pairs, name, reader) for name, reader in names if (pairs := finder.find(mask.dirs, name))]
    if not found:
        found = [(pairs, name, reader) for name, reader in names if (pairs := finder.find_rest(mask.dirs, name))]
        if found and len(found[0][0]) == 1:
            layout.remarks.add("masks found by the image's name without its first word", mask.path)
    pairs, name, reader = found[0] if found else ([], "", "")
    if len(pairs) == 1 and number and name == number["base"]:
        layout.remarks.add("masks found by the image's name without their number", mask.path)
    if len(pairs) != 1:
        several = " and ".join(pair.image.path for pair in pairs[:3])
        problem = f"may belong to {several}" if pairs else "is a mask without image"
        layout.faults.append(f"{mask.path}: {problem}; rename it after its image, or leave it out with --ignore.")
        return
    pair, reader = pairs[0], mask.reader or reader
    folder = mask.path.rpartition("/")[0]
    first = folder_of.setdefault((pair.image.path, reader), folder)
    if first != folder:
        layout.faults.append(
            f"{mask.path}: {pair.image.path} has another mask in {first or '.'}; if they are of several readers, name "
            "the folders masks_reader1, masks_reader2, else leave one out with --ignore."
        )
        return
    pair.masks.append(Mask(mask.path, reader))


def _add_drawing(place: Place, finder: Finder, layout: Layout, words: Words) -> None:
    pairs = next((pairs for name, _ in _names_of_image(place, words) if (pairs := finder.find(place.dirs, name))), [])
    if len(pairs) > 1:
        several = " and ".join(pair.image.path for pair in pairs[:3])
        layout.faults.append(f"{place.path}: may belong to {several}; rename it, or leave it out with --ignore.")
    elif not pairs and place.kind == "json":
        layout.documents.append(place.path)
    elif not pairs:
        layout.remarks.add("XML files without image are not read", place.path)
    elif place.kind == "json" and not pairs[0].drawing:
        pairs[0].drawing = place.path
    elif place.kind == "xml" and not pairs[0].boxes:
        pairs[0].boxes = place.path
    else:
        image = pairs[0].image.path
        layout.faults.append(f"{place.path}: {image} has another {place.kind.upper()} file; leave one out (--ignore).")
