"""Tensors of a weight file by name: safetensors and both formats of PyTorch, read without PyTorch and without trust.

Nothing in a file is executed. A file says how long its parts are, so every length is compared with what is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import pickletools
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from thyroid_jax.errors import InputError

Tensors = dict[str, np.ndarray]
LARGEST_FILE = 1 << 30
LARGEST_HEADER = 16 << 20
MOST_INSTRUCTIONS = 1_000_000
MOST_AXES = 8
STACKED = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""how the old format of torch.save begins: its magic number, pickled"""


def read(path: Path | str) -> tuple[Tensors, str]:
    """The tensors of a file by name, read-only, and the SHA-256 of the file.

    The format is recognised by the content: safetensors, the zip format of ``torch.save``, or its old stacked format.
    Raises :class:`InputError` for a missing, too large, damaged or hostile file. It says what was refused.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path}: {path.stat().st_size} bytes, more than the {LARGEST_FILE} that weights may have.")
    content = path.read_bytes()
    try:
        return _tensors(content), hashlib.sha256(content).hexdigest()
    except _Refused as reason:
        raise InputError(f"{path}: refused, {reason}. Take a file of plain tensors from its publisher.") from reason


class _Refused(Exception):
    """What in a file was refused."""


def _refuse(reason: str) -> NoReturn:
    raise _Refused(reason)


def _tensors(content: bytes) -> Tensors:
    if content.startswith(STACKED):
        return _read_stacked(content)
    if content.startswith(b"PK\x03\x04"):
        return _read_zipped(content)
    return _read_safetensors(content)


# --- safetensors ------------------------------------------------------------------------------------------------------

SAFETENSORS_TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
}


def _read_safetensors(content: bytes) -> Tensors:
    """Length of the header u64, header as JSON, numbers. Source: github.com/huggingface/safetensors."""
    length = int.from_bytes(content[:8], "little")
    if length > min(LARGEST_HEADER, len(content) - 8):
        _refuse("its first bytes are those of no known format, or its header is cut off")
    header = _parsed_header(content[8 : 8 + length])
    entries = {name: _entry(name, value) for name, value in header.items() if name != "__metadata__"}
    numbers, place = memoryview(content)[8 + length :], 0
    for name, (dtype, shape, start, end) in sorted(entries.items(), key=lambda entry: entry[1].start):
        if start != place or end - start != dtype.itemsize * math.prod(shape) or end > len(numbers):
            _refuse(f"the bytes {start} to {end} of {name!r} do not fit its shape or the file")
        place = end
    if place != len(numbers):
        _refuse(f"{len(numbers) - place} bytes belong to no tensor")
    return {
        name: np.frombuffer(numbers[start:end], dtype).reshape(shape)
        for name, (dtype, shape, start, end) in entries.items()
    }


class _Entry(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


def _parsed_header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        _refuse(f"its header is not valid JSON ({error})")
    return header if isinstance(header, dict) else _refuse("its header is not a JSON object")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _entry(name: str, value: Any) -> _Entry:
    try:
        kind, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
        numbers = [*shape, start, end]
    except (TypeError, KeyError, ValueError):
        _refuse(f"the header describes {name!r} badly")
    if not isinstance(kind, str) or kind not in SAFETENSORS_TYPES:
        _refuse(f"{name!r} is of type {kind!r}; known are {', '.join(SAFETENSORS_TYPES)}")
    if not all(type(number) is int and number >= 0 for number in numbers) or _too_large(shape):
        _refuse(f"the shape or the place of {name!r} is impossible")
    return _Entry(SAFETENSORS_TYPES[kind], tuple(shape), start, end)


def _too_large(shape: tuple[int, ...] | list[int]) -> bool:
    """Whether NumPy could refuse a shape; it multiplies the sides of an empty array, too."""
    return len(shape) > MOST_AXES or math.prod(max(side, 1) for side in shape) > LARGEST_FILE


# --- PyTorch ----------------------------------------------------------------------------------------------------------


class _Global(NamedTuple):
    """A name that a pickle refers to. It stays a name: nothing is imported."""

    name: str


class _Storage(NamedTuple):
    """A row of numbers that stands elsewhere in the file."""

    dtype: np.dtype
    key: str
    length: int


class _Tensor(NamedTuple):
    """A view of a storage, counted in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


ORDERED, REBUILD = _Global("collections OrderedDict"), _Global("torch._utils _rebuild_tensor_v2")
STORAGES: dict[Any, np.dtype] = {
    _Global("torch FloatStorage"): np.dtype("<f4"),
    _Global("torch LongStorage"): np.dtype("<i8"),
}
ADMITTED = {ORDERED, REBUILD, *STORAGES}
INSTRUCTIONS = frozenset(
    "PROTO STOP MARK BININT BININT1 BININT2 LONG1 BINUNICODE NONE NEWTRUE NEWFALSE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT "
    "TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE "
    "BINPERSID BUILD".split()
)
OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
MARK = object()


def _read_stacked(content: bytes) -> Tensors:
    """The format of torch.save before version 1.6: five pickles one after the other, then every storage's numbers.

    The pickles are a magic number, the protocol, the system, the state dict, and the order of the storages. A storage
    is its number of elements, i64, and the elements.
    """
    stream = io.BytesIO(content)
    unpickle(stream)  # the magic number, by which the format was recognised
    protocol, system, state, keys = (unpickle(stream) for _ in range(4))
    if protocol != 1001 or not isinstance(system, dict) or system.get("little_endian") is not True:
        _refuse("its protocol is not 1001, or its numbers are not little-endian")
    tensors = _checked_state(state)
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if not isinstance(keys, list) or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        _refuse("the list of its storages is not that of its tensors")
    numbers, place = {}, stream.tell()
    for key in keys:
        dtype, _, count = storages[key]
        start, place = place + 8, place + 8 + count * dtype.itemsize
        if place > len(content) or int.from_bytes(content[start - 8 : start], "little") != count:
            _refuse(f"the storage {key!r} is cut off, or of another length than its tensors say")
        numbers[key] = np.frombuffer(content, dtype, count, start)
    if place != len(content):
        _refuse(f"{len(content) - place} bytes belong to no tensor")
    return {name: _view(name, tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


# What zipfile raises for a damaged archive, and for one with a compression or a flag that it does not know.
_BROKEN_ARCHIVE = zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OSError, EOFError, KeyError


def _read_zipped(content: bytes) -> Tensors:
    """The format of torch.save since version 1.6: ``<root>/data.pkl`` and ``<root>/data/<storage>``, not compressed."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _read_archive(archive, len(content))
    except _BROKEN_ARCHIVE as error:
        _refuse(f"it is no complete zip archive ({error})")


def _read_archive(archive: zipfile.ZipFile, size: int) -> Tensors:
    entries = {entry.filename: entry for entry in archive.infolist()}
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values())
    if compressed or sum(entry.file_size for entry in entries.values()) > size:
        _refuse("its parts are compressed or overlap")
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        _refuse("it holds no single data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        _refuse("its numbers are not little-endian")
    tensors = _checked_state(unpickle(io.BytesIO(archive.read(pickles[0]))))
    numbers = {}
    for dtype, key, count in {tensor.storage for tensor in tensors.values()}:
        name = f"{root}data/{key}"
        if name not in entries or entries[name].file_size != count * dtype.itemsize:
            _refuse(f"the storage {key!r} is missing, or of another length than its tensors say")
        numbers[key] = np.frombuffer(archive.read(name), dtype)
    return {name: _view(name, tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}


def _checked_state(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict) or not state:
        _refuse("it is not a state dict")
    for name, tensor in state.items():
        if not isinstance(tensor, _Tensor):
            _refuse(f"{name!r} is not a plain tensor")
    if len({tensor.storage.key for tensor in state.values()}) != len({tensor.storage for tensor in state.values()}):
        _refuse("two of its storages have the same key")
    return state


def _view(name: str, tensor: _Tensor, numbers: np.ndarray) -> np.ndarray:
    """The tensor's elements, of which none may lie outside its storage, and not more than that holds."""
    storage, offset, shape, strides = tensor
    count = math.prod(shape)
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides)) if count else 0
    impossible = len(shape) != len(strides) or _too_large(shape) or max(strides, default=0) > LARGEST_FILE
    if impossible or count > storage.length or last >= max(storage.length, 1):
        _refuse(f"{name!r} reaches beyond its storage")
    in_bytes = tuple(stride * numbers.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(numbers[offset if count else 0 :], shape, in_bytes, writeable=False)


def unpickle(stream: io.BytesIO) -> Any:
    """Read one pickle and leave the stream behind it.

    Executes the instructions that ``torch.save`` writes for a state dict and no others. The results are strings,
    integers, tuples, lists, dictionaries with names as keys, :class:`_Storage` and :class:`_Tensor`; no name of the
    file is imported, and no object of Python is called or changed. Raises :class:`_Refused`, which :func:`read` turns
    into an :class:`InputError`.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for _ in range(MOST_INSTRUCTIONS):
            instruction, argument = _next_instruction(stream)
            if instruction == "STOP":
                return stack.pop()
            _execute(instruction, argument, stack, memo)
    except (ValueError, IndexError, KeyError) as error:
        _refuse(f"its pickle is damaged ({type(error).__name__}: {error})")
    _refuse(f"its pickle has more than {MOST_INSTRUCTIONS} instructions")


def _next_instruction(stream: io.BytesIO) -> tuple[str, Any]:
    """The instruction's name and its argument, which is read for an admitted instruction only."""
    code = stream.read(1)
    if not code:
        _refuse("its pickle is cut off")
    opcode = OPCODES.get(code.decode("latin-1"))
    if opcode is None or opcode.name not in INSTRUCTIONS:
        name = "of an unknown code" if opcode is None else opcode.name
        _refuse(f"its pickle holds the instruction {name}, which no state dict needs")
    if opcode.name == "GLOBAL":  # two lines; the reader of pickletools would interpret escapes
        return opcode.name, " ".join(stream.readline().decode("latin-1").rstrip("\n") for _ in range(2))
    return opcode.name, opcode.arg.reader(stream) if opcode.arg else None


def _execute(instruction: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    match instruction:
        case "PROTO":
            pass
        case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
            stack.append(argument)
        case "NONE" | "NEWTRUE" | "NEWFALSE":
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
        case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
            stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[instruction])
        case "MARK":
            stack.append(MARK)
        case "TUPLE":
            stack.append(tuple(_pop_to_mark(stack)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            count = int(instruction[-1])
            stack[-count:] = [tuple(stack[-count:])]
        case "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "APPEND" | "APPENDS":
            items = [stack.pop()] if instruction == "APPEND" else _pop_to_mark(stack)
            _expect(list, stack[-1]).extend(items)
        case "SETITEM" | "SETITEMS":
            items = [stack.pop(-2), stack.pop()] if instruction == "SETITEM" else _pop_to_mark(stack)
            keys = [_expect(str, key) for key in items[::2]]
            _expect(dict, stack[-1]).update(zip(keys, items[1::2], strict=True))
        case "GLOBAL":
            stack.append(_admitted(argument))
        case "REDUCE":
            arguments = stack.pop()
            stack.append(_called(stack.pop(), _expect(tuple, arguments)))
        case "BINPERSID":
            stack.append(_storage(stack.pop()))
        case "BUILD":  # a state dict's own attributes, its versions: not needed
            stack.pop()
            _expect(dict, stack[-1])


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1
    while stack[place] is not MARK:
        place -= 1
        if place < 0:
            raise IndexError("no mark")
    items = stack[place + 1 :]
    del stack[place:]
    return items


def _expect(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        _refuse(f"its pickle has a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _admitted(name: str) -> _Global:
    found = _Global(name)
    if found not in ADMITTED:
        _refuse(f"its pickle refers to {name.replace(' ', '.')!r}, which is neither a tensor nor an ordered dictionary")
    return found


def _called(function: Any, arguments: tuple[Any, ...]) -> Any:
    if function == ORDERED and not arguments:
        return {}
    if function == REBUILD and len(arguments) >= 4:
        storage, offset, shape, strides = arguments[:4]
        counts = (offset, *_expect(tuple, shape), *_expect(tuple, strides))
        if all(type(count) is int and count >= 0 for count in counts):
            return _Tensor(_expect(_Storage, storage), offset, shape, strides)
    _refuse("its pickle calls something other than an empty ordered dictionary or a plain tensor")


def _storage(identity: Any) -> _Storage:
    """("storage", type, key, device, number of elements), in the old format with None for "not a view" behind it."""
    match identity:
        case ("storage", _Global() as kind, str(key), str(), int(length), *view) if view in ([], [None]):
            dtype = STORAGES.get(kind)
            if dtype is not None and 0 <= length <= sys.maxsize:
                return _Storage(dtype, key, length)
    _refuse("its pickle describes a storage badly")
