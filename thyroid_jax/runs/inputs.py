"""The pictures that a person names: files, and what folders hold. None is left out silently."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from thyroid_jax.data import formats
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there

NOT_READ = (".webp", ".gif", ".jfif", ".jp2", ".heic", ".heif", ".mp4", ".avi", ".mov", ".wmv", ".mkv", ".mha", ".nrrd")
"""suffixes of pictures and clips that no reader here takes; a folder's files with them are told, not passed over"""

LONGEST_NAME = 200
"""bytes of a file's or folder's name, so that a frame's number and a suffix can be added to it"""


class Inputs(NamedTuple):
    """Name in the output -> file, in the order of the inputs, and the reason for each path that cannot be looked at."""

    files: dict[str, Path]
    failed: dict[str, str]


def find(inputs: Sequence[Path]) -> Inputs:
    """All files that the inputs name, or that lie in folders they name and have the suffix of a picture.

    A name is the path inside its input folder, or the file's name, without suffix; with it where two would be equal.
    Folders are searched with all that is in them, except hidden files and ``__MACOSX``. Pipes, links to nowhere and
    damaged files are in the list, so that reading them says what is wrong. A folder that cannot be read, a link to a
    folder, which is not followed, and pictures of a kind that is not read (:data:`NOT_READ`) are in ``failed``.

    Raises :class:`InputError` for an input that is not there, a name that is still there twice or whose mask NAME.png
    would be a folder of other pictures, or no picture at all.
    """
    if not inputs:
        raise InputError(
            "no picture is named: give files, or folders of them. They stand first, or behind --out: an option that "
            "takes several values, such as --run-dir, takes every word up to the next option."
        )
    found: list[tuple[Path, Path]] = []
    failed: dict[str, str] = {}
    for given in inputs:
        if os.path.isdir(given):
            found += [(path.relative_to(given), path) for path in _pictures_in(given, failed)]
        elif is_there(given):
            found.append((Path(given.name), given))
        else:
            raise InputError(f"{printable(given)}: no such file or folder.")
    for place, path in found:
        if max(len(os.fsencode(part)) for part in place.parts) > LONGEST_NAME:
            failed[printable(path)] = f"name: of more than {LONGEST_NAME} bytes; give the file a shorter one"
    found = [(place, path) for place, path in found if printable(path) not in failed]
    if not found and not failed:
        raise InputError(
            f"{' '.join(map(printable, inputs))}: no picture there; known are {' '.join(formats.SUFFIXES)}."
        )
    return Inputs(_named(found), failed)


def printable(path: Path | str) -> str:
    """A path as text that can be written in UTF-8: bytes of another encoding as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def frame_names(name: str, frames: int, files: Mapping[str, Path]) -> list[str]:
    """The name in the output of each frame of the file ``name``: NAME, or NAME#0001 and so on for several frames.

    Raises :class:`InputError` where another file in ``files`` has such a name.
    """
    names = [name] if frames == 1 else [f"{name}#{number:04d}" for number in range(1, frames + 1)]
    if taken := [other for other in names if other != name and other in files]:
        raise InputError(f"name: {printable(taken[0])} is also another file; predict one of them into another folder")
    return names


def _pictures_in(folder: Path, failed: dict[str, str]) -> list[Path]:
    """Files in a folder and below it, in alphabetical order, that are pictures by their suffix or DICOM's mark."""

    def cannot_be_read(error: OSError) -> None:
        failed[printable(error.filename)] = f"folder: cannot be read ({error.strerror})"

    found: list[Path] = []
    for root, folders, files in os.walk(folder, onerror=cannot_be_read):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in [name for name in folders if os.path.islink(os.path.join(root, name))]:
            failed[printable(os.path.join(root, name))] = "folder: is a link; name the folder itself as an input"
        for path in [Path(root, name) for name in files if not _is_hidden(name)]:
            if formats.kind_of(path):
                found.append(path)
            elif path.suffix.lower() in NOT_READ:
                failed[printable(path)] = f"name: {path.suffix} is not read; save it as PNG or TIFF"
    return sorted(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _named(found: Sequence[tuple[Path, Path]]) -> dict[str, Path]:
    short = Counter(_stem(place) for place, _ in found)
    names = {(_stem(place) if short[_stem(place)] == 1 else place.as_posix()): path for place, path in found}
    if len(names) < len(found):
        twice = Counter(place.as_posix() for place, _ in found).most_common(1)[0][0]
        raise InputError(f"{printable(twice)}: two inputs hold a picture of this name; predict them into two folders.")
    folders = {folder.as_posix() for place, _ in found for folder in place.parents}
    if hidden := [name for name in names if f"{name}.png" in folders]:
        raise InputError(
            f"{printable(names[hidden[0]])}: its mask would be {printable(hidden[0])}.png, which is a folder of other "
            "pictures; rename the folder, or predict them into two folders."
        )
    return names


def _stem(place: Path) -> str:
    suffix = next((suffix for suffix in formats.SUFFIXES if place.name.lower().endswith(suffix)), "")
    return place.as_posix()[: -len(suffix) or None]
