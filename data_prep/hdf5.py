"""Untrusted HDF5 files: what a data set is made of is checked before it is read, and it is read in pieces.

An HDF5 file may name other files of the machine, ask for any amount of memory, and expand without limit when it is
unpacked. Data sets that do so are refused. Needs h5py, of the ``data`` extra. HDF5 is serial: use one thread.
"""

from __future__ import annotations

import contextlib
import math
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thyroid_jax.errors import InputError

if TYPE_CHECKING:
    import h5py

LARGEST_CHUNK = 128 << 20  # bytes, when unpacked; no more should be read at once
LARGEST_LZF = 8 << 20  # the same of LZF: libhdf5 unpacks what is stored to at most 88 times its size
MOST_INFLATED = 1032  # times its size is what gzip can unpack to
LARGEST_SIDE = 4096  # pixels
LONGEST_TEXT = 64  # bytes
MOST = 1 << 20  # pictures, texts, and chunks
GZIP, SHUFFLE, LZF = 1, 2, 32000
FILTERS = {GZIP: "gzip", SHUFFLE: "shuffle", LZF: "lzf"}
_ERRORS = (OSError, LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError)


@contextlib.contextmanager
def errors(path: Path | None = None) -> Iterator[None]:
    """Turn whatever h5py raises into :class:`InputError`, which does not say in which folder ``path`` is."""
    try:
        yield
    except InputError:
        raise
    except (*_ERRORS, zlib.error) as error:
        text = " ".join(str(error).split())
        text = text.replace(str(path), path.name) if path else text
        raise InputError(f"content: HDF5 cannot read it ({text[:200]})") from error


@dataclass(frozen=True)
class File:
    """An open file of ``size`` bytes. All methods raise :class:`InputError`, which names the data set."""

    file: h5py.File
    size: int

    def has(self, name: str) -> bool:
        """Whether the name is there; a link is not followed."""
        with errors():
            return self.file.id.links.exists(name.encode())

    def pictures(self, name: str) -> Pictures:
        """The data set of pictures, uint8 or truth values, [picture h w] or [picture h w 1]; nothing is read yet."""
        with errors():
            return _pictures(_checked(self, name), name)

    def texts(self, name: str, count: int) -> list[str]:
        """All values of a data set [count] or [count 1] of whole numbers or short texts, as texts."""
        with errors():
            return _texts(_checked(self, name), name, count)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[File]:
    """Open a regular file to read. Raises :class:`InputError`, which does not name the file."""
    import h5py

    with contextlib.ExitStack() as stack:
        with errors(path):
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):  # a pipe would wait
                raise InputError("file: is not a regular file")
            file = File(stack.enter_context(h5py.File(path, "r", locking=False)), about.st_size)
        yield file


@dataclass(frozen=True)
class Pictures:
    """A data set of pictures of ``shape`` (picture, h, w); ``rows`` is the number of pictures in a chunk, 0 without.

    libhdf5 unpacks gzip without a limit, so it is unpacked here: ``chunks`` are those of gzip, by their first picture.
    """

    dataset: h5py.Dataset
    shape: tuple[int, int, int]
    rows: int
    chunks: Mapping[int, Sequence[Any]] = field(default_factory=dict)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Pictures ``start`` to ``stop`` - 1, uint8[picture h w]; truth values become 0 and 255.

        It is fastest for whole chunks: one that is read in two parts is unpacked twice.
        Raises :class:`InputError`, which does not name the data set.
        """
        with errors():
            size = (stop - start, *self.shape[1:])
            block = self._unpacked(start, stop) if self.chunks else self.dataset[start:stop].reshape(size)
            return np.where(block, np.uint8(255), np.uint8(0)) if self.dataset.dtype == np.bool_ else block

    def _unpacked(self, start: int, stop: int) -> np.ndarray:
        block = np.zeros((stop - start, *self.shape[1:]), np.uint8)
        for first in range(start - start % self.rows, stop, self.rows):
            for chunk in self.chunks[first]:
                _, top, left = chunk.chunk_offset[:3]
                skipped, at = max(start - first, 0), max(first - start, 0)
                part = _inflated(self.dataset, chunk)[skipped : stop - first]
                place = block[at : at + len(part), top : top + part.shape[1], left : left + part.shape[2]]
                place[...] = part[: place.shape[0], : place.shape[1], : place.shape[2]]  # a chunk may be wider
        return block


def _checked(file: File, name: str) -> h5py.Dataset:
    """A data set that is wholly in this file and unpacks to no more than it says."""
    import h5py

    if not file.has(name):
        raise InputError(f"{name}: is not in it")
    if not isinstance(file.file.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"{name}: is a link, which may lead to another file; that is refused")
    found = file.file[name]
    if not isinstance(found, h5py.Dataset):
        raise InputError(f"{name}: is not a data set")
    if found.is_virtual or found.external:
        raise InputError(f"{name}: its values are in other files; that is refused")
    if found.shape is None or not 1 <= found.ndim <= 4 or not 1 <= found.shape[0] <= MOST:
        raise InputError(f"{name}: size {_size(found.shape or ())}, known are 1 to {MOST} values or pictures")
    if unknown := set(filters := _filters(found)) - FILTERS.keys():
        raise InputError(f"{name}: packed by filters {sorted(unknown)}, known are {' '.join(FILTERS.values())}")
    if sum(each in (GZIP, LZF) for each in filters) > 1:
        raise InputError(f"{name}: is packed twice, by {' '.join(FILTERS[each] for each in filters)}")
    if found.chunks:
        _check_chunks(found, name, file.size)
    elif found.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS:
        offset, needed = found.id.get_offset(), math.prod(found.shape) * found.dtype.itemsize
        if offset is None or offset + needed > file.size:
            raise InputError(f"{name}: its values are not all in the file, which is cut off")
    return found


def _filters(dataset: h5py.Dataset) -> list[int]:
    """The numbers of the filters that pack a chunk, in their order."""
    plist = dataset.id.get_create_plist()
    return [plist.get_filter(place)[0] for place in range(plist.get_nfilters())]


def _check_chunks(dataset: h5py.Dataset, name: str, size: int) -> None:
    unpacked = math.prod(dataset.chunks) * dataset.dtype.itemsize
    largest = LARGEST_LZF if LZF in _filters(dataset) else LARGEST_CHUNK
    if unpacked > largest:
        raise InputError(f"{name}: chunks of {unpacked} bytes, at most {largest} are read")
    expected = math.prod(-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks))
    if expected > MOST or dataset.id.get_num_chunks() != expected:  # libhdf5 reads a chunk that is missing as zeros
        raise InputError(f"{name}: {dataset.id.get_num_chunks()} chunks are there, not {expected}; it is not whole")
    for chunk in _chunks(dataset):
        if chunk.size > unpacked + unpacked // 8 + 4096 or chunk.byte_offset + chunk.size > size:
            raise InputError(f"{name}: the chunk at {chunk.chunk_offset} has {chunk.size} bytes, which cannot be")


def _chunks(dataset: h5py.Dataset) -> list[Any]:
    """chunk_offset, filter_mask, byte_offset and size of each chunk."""
    found: list[Any] = []
    dataset.id.chunk_iter(found.append)
    return found


def _pictures(dataset: h5py.Dataset, name: str) -> Pictures:
    if dataset.dtype not in (np.uint8, np.bool_):
        raise InputError(f"{name}: of type {dataset.dtype}, pictures are uint8")
    fits = dataset.ndim == 3 or (dataset.ndim == 4 and dataset.shape[3] == 1)
    if not (fits and all(1 <= side <= LARGEST_SIDE for side in dataset.shape[1:])):
        raise InputError(f"{name}: size {_size(dataset.shape)}, must be pictures x h x w, at most {LARGEST_SIDE}")
    rows = dataset.chunks[0] if dataset.chunks else 0
    chunks: dict[int, list[Any]] = {}
    if GZIP in _filters(dataset):
        for chunk in _chunks(dataset):
            chunks.setdefault(chunk.chunk_offset[0], []).append(chunk)
    return Pictures(dataset, dataset.shape[:3], rows, chunks)


def _inflated(dataset: h5py.Dataset, chunk: Any) -> np.ndarray:
    """The values uint8[picture h w] of a chunk packed by gzip; shuffling does not change values of one byte.

    Of a fourth axis, which a chunk may have longer than the data set, the first values are given.
    """
    _, packed = dataset.id.read_direct_chunk(chunk.chunk_offset)
    wanted = math.prod(dataset.chunks)
    if not chunk.filter_mask >> _filters(dataset).index(GZIP) & 1:  # else this chunk was stored as it is
        packed = zlib.decompressobj().decompress(packed, wanted + 1)
    if len(packed) != wanted:
        raise InputError(f"the chunk at {chunk.chunk_offset}: does not unpack to {wanted} bytes")
    return np.frombuffer(packed, np.uint8).reshape(*dataset.chunks[:3], -1)[..., 0]


def _texts(dataset: h5py.Dataset, name: str, count: int) -> list[str]:
    if dataset.shape not in ((count,), (count, 1)):
        raise InputError(f"{name}: size {_size(dataset.shape)}, but there are {count} pictures")
    if dataset.dtype.kind not in "iuSO" or dataset.dtype.itemsize > LONGEST_TEXT:
        raise InputError(f"{name}: of type {dataset.dtype}, not whole numbers or short texts")
    packed = max((chunk.size for chunk in _chunks(dataset)), default=0) if GZIP in _filters(dataset) else 0
    if packed * MOST_INFLATED > LARGEST_CHUNK:  # libhdf5 unpacks it, whatever comes
        raise InputError(f"{name}: a packed chunk of {packed} bytes, at most {LARGEST_CHUNK // MOST_INFLATED} are read")
    if dataset.dtype.kind != "O":
        return [_text(value, name) for value in dataset[()].ravel()]
    places = product(*map(range, dataset.shape))  # one by one, because each text may be as long as the file
    return [_text(dataset[place], name) for place in places]


def _text(value: Any, name: str) -> str:
    if isinstance(value, np.integer):
        return str(value)
    if not isinstance(value, bytes | str) or len(value) > LONGEST_TEXT:
        raise InputError(f"{name}: a value is no text of at most {LONGEST_TEXT} bytes")
    return value.decode() if isinstance(value, bytes) else value


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "0"
