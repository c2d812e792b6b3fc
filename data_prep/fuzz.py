"""Run a reader on damaged and hostile copies of a few files of a data set, and report what it should not do.

::

    python -m data_prep.fuzz NAME --source DIR --count N [--seed N] [--seconds S] [--images N]
    python -m data_prep.fuzz NAME --source DIR --seed N --write K --out DIR    # write the files of mutant K

A reader may take a mutant or refuse it with an :class:`InputError`. Any other exception, a run of more than ``S``
seconds, more than 1 GiB of memory, or a message of thousands of characters is a finding. Mutant K of a seed is always
the same. Readers run in a process of their own, which is started again when it hangs or dies.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import re
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep import builder, readers
from thyroid_jax.errors import InputError, exits_cleanly

PICTURES = (".png", ".jpg", ".jpeg")
LARGEST_FILE = 8 << 20  # bytes; a larger file of the source is not copied
MOST_RELATED = 8  # files that go with one picture
MEMORY = 1 << 30  # bytes that a run may take
LONGEST_LINE = 4000  # characters of a line of a message
SPECIAL = ("pipe", "dangling link", "link to a device", "folder")

Rng = np.random.Generator
Attempt = Callable[[str, Path], tuple[str, str]]
Files = dict[str, bytes]  # content by path from the folder of the data set; one of SPECIAL, encoded, is no file


@dataclass
class Report:
    """The outcomes of many mutants: how many were taken and refused, and by what was found (number, text) of each."""

    taken: int = 0
    refused: int = 0
    findings: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report as lines of text; each finding comes with the first mutant that shows it."""
        found = sorted(self.findings.items(), key=lambda item: -len(item[1]))
        return [
            f"{self.taken} mutants taken, {self.refused} refused, {sum(map(len, self.findings.values()))} findings",
            *(f"{len(each)} times {what}; mutant {each[0][0]}:\n{each[0][1]}" for what, each in found),
        ]


def subset(source: Path, images: int, rng: Rng) -> Files:
    """A few files of a data set: ``images`` random pictures, what shares their number, and all tables.

    Tables (CSV, Excel) keep their header and the rows that name one of these pictures; other files are taken whole, and
    so are all files of a data set that keeps its pictures in an HDF5 file.
    """
    paths = sorted(path for path in source.rglob("*") if path.is_file() and path.stat().st_size <= LARGEST_FILE)
    drawn = [path for path in paths if path.suffix.lower() in PICTURES]
    if not drawn and any(path.suffix.lower() == ".hdf5" for path in paths):
        return {path.relative_to(source).as_posix(): path.read_bytes() for path in paths}
    if not drawn:
        raise InputError(
            f"{source}: there is no picture of at most {LARGEST_FILE} bytes in it. Give the folder of a data set."
        )
    chosen = [drawn[place] for place in rng.permutation(len(drawn))[:images]]
    kept: list[Path] = []
    for path in chosen:
        related = [other for other in paths if _key(other) == _key(path)]
        kept += [path, *sorted(related, key=lambda other: other.stat().st_size)[:MOST_RELATED]]
    stems = {path.stem for path in kept} | {
        path.stem.lstrip("0") or "0" for path in kept
    }  # tables may say 120 of 000120
    numbered = {path.suffix.lower() for path in chosen} | {".xml"}
    kept += [path for path in paths if path.suffix.lower() not in numbered | set(PICTURES)]
    return {path.relative_to(source).as_posix(): _cut(path, stems) for path in dict.fromkeys(kept)}


def _key(path: Path) -> str:
    number = re.search(r"[0-9]+", path.stem)
    return number[0] if number else path.stem


def _cut(path: Path, stems: set[str]) -> bytes:
    content = path.read_bytes()
    if path.suffix.lower() == ".csv":
        lines = content.splitlines(keepends=True)
        return b"".join(lines[:1] + [row for row in lines[1:] if any(stem.encode() in row for stem in stems)])
    if path.suffix.lower() == ".xlsx":
        from openpyxl import Workbook, load_workbook

        book, new = load_workbook(io.BytesIO(content), data_only=True), Workbook()
        for number, row in enumerate(book.worksheets[0].iter_rows(values_only=True)):
            if number == 0 or any(stem in str(value) for value in row for stem in stems):
                new.worksheets[0].append(row)
        new.save(packed := io.BytesIO())
        return packed.getvalue()
    return content


# The mutations. Each takes the files and gives changed ones, or None when it does not apply to them.

ABSURD = (
    *("", " ", "0", "-1", "1e308", "-1e400", "nan", "inf", "9" * 400, "9" * 5000, "0x10", "1_000", "1,5", "٣", "½"),
    *("../../etc/passwd", "/etc/passwd", "..\\x", "=1+1", "=HYPERLINK(1)", "@x", "a/b.png", "a\0b", "\ud800", "null"),
    *("x" * 300, "x" * 100_000, "<a/>", "&lt;", "&b;", "{", "[]", "[" * 5000, '{"a":' * 3000, '"', "\n", "true", "4x"),
)


def _pick(rng: Rng, items: Sequence[Any]) -> Any:
    return items[int(rng.integers(len(items)))]


def _absurd(rng: Rng) -> bytes:
    return str(_pick(rng, ABSURD)).encode("utf-8", "surrogatepass")


def flipped(content: bytes, rng: Rng) -> bytes:
    """Up to 16 bytes changed."""
    changed = bytearray(content)
    for place in rng.integers(len(content), size=rng.integers(1, 17)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def moved(content: bytes, rng: Rng) -> bytes:
    """Cut off, or with a piece left out, repeated, or put in."""
    start, end = sorted(rng.integers(len(content) + 1, size=2))
    piece = content[start:end]
    filling = _pick(rng, [b"\0", b" ", b"\xff", b"\n"]) * int(2 ** rng.integers(0, 17))
    return _pick(
        rng,
        [
            content[:start],
            content[:start] + content[end:],
            content[:end] + piece * int(rng.integers(1, 4)) + content[end:],
            content[:start] + filling + content[start:],
            content + filling,
            b"",
        ],
    )


def reworded(content: bytes, rng: Rng) -> bytes | None:
    """A text with a word or number replaced by an absurd one."""
    words = list(re.finditer(rb"[^\s,;<>\"{}\[\]:]+", content[: 1 << 20]))
    if not words or b"\0" in content:
        return None
    word = _pick(rng, words)
    return content[: word.start()] + _absurd(rng) + content[word.end() :]


def retabled(content: bytes, rng: Rng) -> bytes | None:
    """A table with a cell replaced, or a row or column left out, repeated or moved."""
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return None
    if len(rows) < 2 or not rows[-1]:
        return None
    row, column, kind = int(rng.integers(len(rows))), int(rng.integers(len(rows[0]) or 1)), rng.integers(6)
    if kind < 2 and rows[row]:
        rows[row][column % len(rows[row])] = _absurd(rng).decode("utf-8", "replace")
    elif kind == 2:
        rows = [[cell for place, cell in enumerate(cells) if place != column] for cells in rows]
    elif kind == 3:
        rows = [[*cells, *cells[column : column + 1]] for cells in rows]
    elif kind == 4:
        rows.append(rows[row])
    else:
        rows.insert(0, rows.pop(row))
    csv.writer(text := io.StringIO(newline=""), delimiter=_pick(rng, ",,,,;\t")).writerows(rows)
    return text.getvalue().encode("utf-8", "replace")


def restructured(content: bytes, rng: Rng) -> bytes | None:
    """XML with an element left out, repeated, emptied, nested in itself or filled with absurd text; or entities."""
    elements = list(re.finditer(rb"<(\w+)[^<>]*>([^<]*)</\1>", content))
    if not elements:
        return None
    element = _pick(rng, elements)
    name = element[1]
    new = _pick(
        rng,
        [
            b"",
            element[0] * int(2 ** rng.integers(1, 10)),
            b"<" + name + b"/>",
            (b"<" + name + b">") * 3000 + (b"</" + name + b">") * 3000,
            *[b"<" + name + b">" + _absurd(rng) + b"</" + name + b">"] * 4,
            b"<" + name + b"><![CDATA[" + _absurd(rng) + b"]]></" + name + b">",
        ],
    )
    changed = content[: element.start()] + new + content[element.end() :]
    if rng.random() < 0.1:
        changed = b'<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c SYSTEM "file:///etc/passwd">]>' + changed
    return changed


def renested(content: bytes, rng: Rng) -> bytes | None:
    """JSON, alone or as the text of an XML element, with one value replaced, left out, repeated or wrapped."""
    texts = list(re.finditer(rb"(?<=>)\s*[\[{][^<]*(?=<)", content)) if content.lstrip()[:1] == b"<" else [None]
    if not texts:
        return None
    place = _pick(rng, texts)
    try:
        value = json.loads(place[0] if place else content)
    except (ValueError, RecursionError):
        return None
    new = json.dumps(_changed(value, rng)).encode()
    return content[: place.start()] + new + content[place.end() :] if place else new


def _changed(value: Any, rng: Rng) -> Any:
    """The value with one of its parts changed; a part that lies deeper is as likely as one above."""
    if isinstance(value, dict | list) and value and rng.random() < 0.8:
        key = _pick(rng, list(value)) if isinstance(value, dict) else int(rng.integers(len(value)))
        changed = value.copy()
        if rng.random() < 0.1:
            del changed[key]
        else:
            changed[key] = _changed(value[key], rng)
        return changed
    many = value * int(2 ** rng.integers(1, 13)) if isinstance(value, list) and len(value) < 500 else [value] * 9
    large = [10**400, -1, 1e308, float("nan"), float("inf"), 2**63, 0.5]
    return _pick(rng, [None, True, "", "x", [], {}, [value], {"x": value}, many, many, *large])


def redrawn(content: bytes, rng: Rng) -> bytes | None:
    """A picture of another size or colour mode, or of one value."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            kind, picture = image.format, image.convert(image.mode)
        size = _pick(rng, [picture.size, (1, 1), (5000, 1), (3, 400), (300, 300), (picture.width + 1, picture.height)])
        picture = picture.convert("RGB").resize(size)
        modes = ["L", "RGB", "CMYK"] if kind == "JPEG" else ["1", "L", "LA", "P", "RGB", "RGBA", "I"]
        picture = picture.point(lambda _: 0) if rng.random() < 0.2 else picture
        picture.convert(_pick(rng, modes)).save(drawn := io.BytesIO(), format=_pick(rng, [kind, kind, "GIF", "BMP"]))
    except Exception:  # a picture that an earlier change damaged
        return None
    return drawn.getvalue()


def repacked(content: bytes, rng: Rng) -> bytes | None:
    """An archive (an Excel table) with one of its parts changed, or grown to a bomb."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            parts = {name: old.read(name) for name in old.namelist()}
    except Exception:  # an archive that an earlier change damaged
        return None
    name = _pick(rng, [*parts, *[part for part in parts if "sheet1" in part or "shared" in part] * 3])
    bomb = lambda part, rng: part + b" " * (4 << 20)
    changed = _pick(rng, [flipped, moved, reworded, reworded, restructured, restructured, restructured, bomb])(
        parts[name] or b" ", rng
    )
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as new:
        for part, held in (parts | {name: changed or b""}).items():
            new.writestr(part, held)
    return packed.getvalue()


CONTENT: Mapping[str, tuple[Callable[[bytes, Rng], bytes | None], ...]] = {
    ".xml": (flipped, moved, reworded, restructured, restructured, renested, renested, renested),
    ".csv": (flipped, moved, reworded, retabled, retabled, retabled),
    ".json": (flipped, moved, reworded, renested, renested),
    ".xlsx": (flipped, moved, repacked, repacked, repacked),
    **dict.fromkeys(PICTURES, (flipped, moved, redrawn)),
}


def mutant(files: Files, rng: Rng) -> Files:
    """The files with one to three changes: of the content of a file, or of what is in the folder."""
    changed = dict(files)
    for _ in range(int(rng.integers(1, 4))):
        name = _pick(rng, sorted(changed))
        if rng.random() < 0.12:
            _rearrange(changed, name, rng)
            continue
        change = _pick(rng, CONTENT.get(Path(name).suffix.lower(), (flipped, moved, reworded)))
        new = change(changed[name], rng) if changed[name] else None
        if new is not None:
            changed[name] = new
    return changed


def _rearrange(files: Files, name: str, rng: Rng) -> None:
    """Leave out, repeat under another name, swap, or put something that is no file in the place of a file."""
    folder, _, last = name.rpartition("/")
    other = _pick(rng, ["0" + last, last.upper(), "٣" + last, last + ".bak", " " + last, "-" + last, "..." + last])
    place = f"{folder}/{other}" if folder else other
    match rng.integers(4):
        case 0 if len(files) > 1:
            del files[name]
        case 1:
            files[place] = files[name]
        case 2:
            second = _pick(rng, sorted(files))
            files[name], files[second] = files[second], files[name]
        case _:
            files[name] = _pick(rng, SPECIAL).encode()


def write(files: Files, folder: Path) -> None:
    """Write the files into a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = content.decode() if content in [kind.encode() for kind in SPECIAL] else ""
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind:
            path.symlink_to("/dev/zero" if "device" in kind else "nowhere")
        else:
            path.write_bytes(content)


def attempt(name: str, folder: Path) -> tuple[str, str]:
    """What the reader ``name`` makes of a folder: ("taken" or "refused", ""), or what was found and its traceback."""
    reader = readers.reader_of(name)
    try:
        builder.examine(reader.card, partial(reader.read, folder))
    except InputError as error:
        if max(map(len, str(error).split("\n"))) <= LONGEST_LINE:
            return _REFUSED
        return f"a message of over {LONGEST_LINE} characters", str(error)[:300]
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} in {Path(last.filename).name} {last.name}"
        return what, traceback.format_exc(limit=-4)[-900:]
    return _TAKEN


_TAKEN, _REFUSED = ("taken", ""), ("refused", "")


def _work(name: str, attempt: Attempt, connection: Connection) -> None:
    """Answer each folder that comes with the outcome and the seconds that it took, under a limit of memory."""
    import resource

    readers.reader_of(name)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    connection.send("ready")
    while folder := connection.recv():
        start = time.monotonic()
        outcome = attempt(name, Path(folder))
        connection.send((outcome, time.monotonic() - start))


class _Worker:
    """A process that runs the reader. It is started when it is needed, and again after it hung or died."""

    def __init__(self, name: str, attempt: Attempt) -> None:
        self.name, self.attempt = name, attempt
        self.process: Any = None

    def outcome(self, folder: Path, seconds: float) -> tuple[str, str]:
        """The outcome of one folder, or that the process hung or died."""
        if self.process is None:
            self._start()
        try:
            self.connection.send(str(folder))
            if self.connection.poll(2 * seconds):
                outcome, took = self.connection.recv()
                return outcome if took <= seconds else (f"a run of over {seconds:g} s", f"{took:.1f} s")
        except (EOFError, OSError):
            self.stop()
            return "a process that died", ""
        self.stop()
        return f"a run of over {seconds:g} s", "it was stopped"

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(self.name, self.attempt, other), daemon=True)
        self.process.start()
        other.close()
        self.connection.recv()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.connection.close()
            self.process = None


def mutants(source: Path, seed: int, images: int) -> Iterator[tuple[int, Files]]:
    """(number, files) of one mutant after another. The files of the source are chosen anew for every hundred."""
    number = 0
    while True:
        files = subset(source, images, np.random.default_rng([seed, number]))
        for _ in range(100):
            yield number, mutant(files, np.random.default_rng([seed, number, 1]))
            number += 1


def fuzz(
    name: str,
    source: Path,
    *,
    count: int,
    seed: int = 0,
    seconds: float = 5.0,
    images: int = 2,
    attempt: Attempt = attempt,
) -> Report:
    """Run the reader ``name`` on ``count`` mutants of the data set in ``source``, which is only read.

    ``images`` pictures are in each mutant, and what belongs to them. Raises :class:`InputError` when ``source`` has no
    picture.
    """
    report, worker = Report(), _Worker(name, attempt)
    try:
        for number, files in mutants(source, seed, images):
            if number >= count:
                return report
            with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
                write(files, Path(folder))
                what, detail = worker.outcome(Path(folder), seconds)
            if what in ("taken", "refused"):
                setattr(report, what, getattr(report, what) + 1)
            else:
                report.findings.setdefault(what, []).append((number, detail))
    finally:
        worker.stop()
    return report


@exits_cleanly
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; the exit status is 1 when there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("name", metavar="NAME", choices=readers.names(), help="name of the data set")
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="folder of the original")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="number of mutants (default 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same mutants")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="longest run (default 5)")
    parser.add_argument("--images", type=int, default=2, metavar="N", help="pictures in a mutant (default 2)")
    parser.add_argument("--write", type=int, metavar="K", help="only write the files of mutant K, into --out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder for the files of one mutant")
    options = parser.parse_args(arguments)
    given = {name: getattr(options, name) for name in ("seed", "images")}
    if options.write is not None:
        if options.out is None or options.out.exists():
            raise InputError(f"--out: {options.out} must be a new folder.")
        wanted = islice(mutants(options.source, **given), options.write, None)
        write(next(wanted)[1], options.out)
        return
    report = fuzz(options.name, options.source, count=options.count, seconds=options.seconds, **given)
    print("\n".join(report.lines()))
    raise SystemExit(1 if report.findings else 0)


if __name__ == "__main__":
    main()
