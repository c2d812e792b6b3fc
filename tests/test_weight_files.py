"""Weight files: the three formats from hand-made bytes, and every damaged or hostile one refused by name."""

import hashlib
import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from thyroid_jax.errors import InputError
from thyroid_jax.model import weight_files

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "norm.num_batches_tracked": np.array(7, np.int64),
    "norm.bias": np.array([-1.5, 2.5], np.float32),
}


# --- files as torch.save writes them ----------------------------------------------------------------------------------


class Stored:
    """A storage in a pickle: its type by name, its key, its number of elements."""

    def __init__(self, kind, key, count):
        self.identity = kind, key, count


class View:
    """A tensor in a pickle."""

    def __init__(self, storage, offset, shape, strides):
        self.arguments = storage, offset, shape, strides


class Pickler(pickle.Pickler):
    """Writes :class:`View` and :class:`Stored` as PyTorch writes its tensors and storages."""

    zipped = False

    def persistent_id(self, value):
        if not isinstance(value, Stored):
            return None
        kind, key, count = value.identity
        return ("storage", kind, key, "cpu", count) + (() if self.zipped else (None,))

    def reducer_override(self, value):
        if not isinstance(value, View):
            return NotImplemented
        return sys.modules["torch._utils"]._rebuild_tensor_v2, (*value.arguments, False, OrderedDict())


@pytest.fixture(autouse=True)
def torchs_names(monkeypatch):
    """Modules with PyTorch's names for the pickler alone; what is tested imports nothing."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage", "DoubleStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    rebuild = lambda *arguments: None
    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2, torch._utils = rebuild, utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def pickled(value, zipped=False):
    stream = io.BytesIO()
    pickler = Pickler(stream, protocol=2)
    pickler.zipped = zipped
    pickler.dump(value)
    return stream.getvalue()


def storage_of(array, key):
    kinds = {"float32": "FloatStorage", "int64": "LongStorage", "float64": "DoubleStorage"}
    return Stored(getattr(sys.modules["torch"], kinds[array.dtype.name]), key, array.size)


def state_of(arrays):
    """An ordered dictionary with the attribute that PyTorch's have, and the arrays by the keys of their storages."""
    state, numbers = OrderedDict(), {}
    for place, (name, array) in enumerate(arrays.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        state[name] = View(storage_of(array, str(place)), 0, array.shape, strides)
        numbers[str(place)] = array
    state._metadata = OrderedDict([("", {"version": 1})])
    return state, numbers


def stacked(state, numbers, *, protocol=1001, little=True):
    """The bytes of the old format."""
    head = [0x1950A86A20F9469CFC6C, protocol, {"little_endian": little, "type_sizes": {"int": 4}}, state, list(numbers)]
    tail = [struct.pack("<q", array.size) + array.tobytes() for array in numbers.values()]
    return b"".join([*map(pickled, head), *tail])


def zipped(state, numbers, compression=zipfile.ZIP_STORED, **more):
    stream = io.BytesIO()
    parts = {"data.pkl": pickled(state, zipped=True), "byteorder": b"little", "version": b"3\n"}
    parts |= {f"data/{key}": array.tobytes() for key, array in numbers.items()} | more
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def safetensors(arrays, **changes):
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    types = {"float32": "F32", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
    for name, array in arrays.items():
        start, numbers = len(numbers), numbers + array.tobytes()
        kind = types[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [start, len(numbers)]}
        header[name] |= changes.get(name, {})
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


FORMATS = {
    "stacked": lambda arrays: stacked(*state_of(arrays)),
    "zipped": lambda arrays: zipped(*state_of(arrays)),
    "safetensors": safetensors,
}


@pytest.fixture
def read(tmp_path):
    def read_bytes(content):
        path = tmp_path / "weights.bin"
        path.write_bytes(content)
        return weight_files.read(path)

    return read_bytes


@pytest.fixture
def refused(read):
    """refused(content, "words of the message")"""

    def check(content, words):
        with pytest.raises(InputError, match=rf"weights\.bin.*{words}"):
            read(content)

    return check


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_tensors_and_the_hash(file, read):
    content = file(ARRAYS)
    tensors, digest = read(content)
    assert digest == hashlib.sha256(content).hexdigest()
    assert tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert tensors[name].dtype == array.dtype and not tensors[name].flags.writeable
        np.testing.assert_array_equal(tensors[name], array)


@pytest.mark.parametrize("file", [stacked, zipped])
def test_tensors_may_share_a_storage_and_have_any_strides(file, read):
    row = np.arange(12, dtype=np.float32)
    storage = storage_of(row, "a")
    state = OrderedDict(turned=View(storage, 0, (4, 3), (1, 4)), end=View(storage, 10, (2,), (1,)))
    tensors, _ = read(file(state, {"a": row}))
    np.testing.assert_array_equal(tensors["turned"], row.reshape(3, 4).T)
    assert tensors["end"].tolist() == [10, 11]


def test_safetensors_may_hold_half_and_double_precision(read):
    kinds = (np.float16, jnp.bfloat16, np.float64)
    tensors, _ = read(safetensors({kind.__name__: np.array([1.5, -2.0]).astype(kind) for kind in kinds}))
    assert len(tensors) == 3
    for values in tensors.values():
        assert values.astype(np.float32).tolist() == [1.5, -2.0]


def test_safetensors_may_hold_empty_tensors(read):
    tensors, _ = read(safetensors({"empty": np.zeros((0, 3), np.float32), **ARRAYS}))
    assert tensors["empty"].shape == (0, 3)


# --- what is refused --------------------------------------------------------------------------------------------------


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "system": (lambda: pickled(Calls(os.system, "touch hostile")), rf"'{os.system.__module__}\.system'"),
    "eval": (lambda: pickled(Calls(eval, "1")), r"'__builtin__\.eval'"),
    "getattr": (lambda: pickled(Calls(getattr, OrderedDict, "pop")), "getattr"),
    "another storage": (lambda: pickled(OrderedDict(a=View(storage_of(np.zeros(2), "0"), 0, (2,), (1,)))), "DoubleSt"),
    "ordered dictionary with content": (lambda: pickled(Calls(OrderedDict, [("a", 1)])), "calls something other"),
    "attribute of a class": (lambda: b"\x80\x02ccollections\nOrderedDict\n}b.", "_Global where a dict"),
    "state for a tensor": (lambda: pickled(view()).removesuffix(b".") + b"}b.", "_Tensor where a dict"),
    "name by stack": (lambda: b"\x80\x02X\x02\0\0\0osX\x06\0\0\0system\x93.", "STACK_GLOBAL"),
    "instance": (lambda: b"\x80\x02(ios\nsystem\n.", "INST"),
    "object": (lambda: b"\x80\x02(cos\nsystem\no.", r"'os\.system'"),
    "unknown code": (lambda: b"\x80\x02\xff.", "unknown code"),
    "extension": (lambda: b"\x80\x02\x82\x01.", "EXT1"),
    "key that is no name": (lambda: b"\x80\x02}K\x01K\x02s.", "int where a str"),
    "no mark": (lambda: b"\x80\x02K\x01t.", "no mark"),
    "nothing on the stack": (lambda: b"\x80\x02R.", "damaged"),
    "unknown memo": (lambda: b"\x80\x02h\x05.", "damaged"),
    "number beyond the text": (lambda: b"\x80\x02I" + b"1" * 5000 + b"\n.", "INT"),
    "persistent id of another kind": (lambda: b"\x80\x02X\x01\0\0\0aQ.", "describes a storage badly"),
    "negative length": (lambda: pickled(view(count=-1)), "describes a storage badly"),
    "negative offset": (lambda: pickled(view(offset=-1)), "calls something other"),
    "shape of words": (lambda: pickled(view(shape=("a",))), "calls something other"),
    "no end": (lambda: b"\x80\x02K\x01", "cut off"),
}


def view(*, count=4, offset=0, shape=(2, 2), strides=(2, 1)):
    return View(Stored(sys.modules["torch"].FloatStorage, "0", count), offset, shape, strides)


@pytest.mark.parametrize("case", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("place", ["protocol", "state", "zip"])
def test_a_pickle_of_anything_else_is_refused_and_not_executed(case, place, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, words = case
    head = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled({"little_endian": True})]
    content = {
        "protocol": lambda: head[0] + make(),
        "state": lambda: b"".join([*head, make(), pickled([])]),
        "zip": lambda: zip_of(make()),
    }[place]()
    refused(content, words)
    assert not (tmp_path / "hostile").exists()


def zip_of(pickle_bytes):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
    return stream.getvalue()


VIEWS = {
    "offset": {"offset": 1},
    "strides": {"strides": (3, 1)},
    "more elements than the storage": {"shape": (4, 2), "strides": (0, 1)},
    "fewer strides": {"strides": (1,)},
    "many axes": {"shape": (1,) * 9, "strides": (1,) * 9},
    "beyond any memory": {"shape": (1 << 62, 4), "strides": (1, 1 << 62)},
    "empty, and longer than NumPy counts": {"shape": (0, 1 << 70), "strides": (1, 1)},
    "a stride that leads nowhere": {"shape": (1,), "strides": (1 << 70,)},
}


@pytest.mark.parametrize("file", [stacked, zipped])
@pytest.mark.parametrize("changes", VIEWS.values(), ids=VIEWS)
def test_a_tensor_beyond_its_storage_is_refused(file, changes, refused):
    numbers = {"0": np.zeros(4, np.float32)}
    refused(file(OrderedDict(a=view(**changes)), numbers), "'a' reaches beyond its storage")


def test_storages_that_do_not_fit_the_tensors_are_refused(refused):
    state, numbers = state_of(ARRAYS)
    whole = stacked(state, numbers)
    other = {**numbers, "0": np.zeros(3, np.float32)}
    refused(stacked(state, other), "'0' is cut off, or of another length")
    refused(zipped(state, other), "'0' is missing, or of another length")
    refused(stacked(state, {"0": numbers["0"]}), "list of its storages")
    refused(stacked(state, {**numbers, "9": numbers["0"]}), "list of its storages")
    refused(whole + b"more", "4 bytes belong to no tensor")
    refused(stacked(state, numbers, protocol=1000), "protocol is not 1001")
    refused(stacked(state, numbers, little=False), "little-endian")
    refused(zipped(state, numbers, byteorder=b"big"), "little-endian")
    twice = OrderedDict(a=view(count=4), b=view(count=5))
    refused(stacked(twice, {"0": np.zeros(4, np.float32)}), "same key")
    for not_a_state, words in (([1], "not a state dict"), ({}, "not a state dict"), ({"a": [1]}, "'a' is not a plain")):
        refused(stacked(not_a_state, {}), words)


def test_a_compressed_or_incomplete_archive_is_refused(refused):
    state, numbers = state_of(ARRAYS)
    refused(zipped(state, numbers, zipfile.ZIP_DEFLATED), "compressed or overlap")
    refused(zipped(state, numbers)[:-30], "no complete zip")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/other", b"")
    refused(stream.getvalue(), r"no single data\.pkl")


def test_a_bad_header_of_safetensors_is_refused(refused):
    change = lambda **fields: safetensors(ARRAYS, **{"norm.bias": fields})
    with_header = lambda text: struct.pack("<Q", len(text)) + text
    for content, words in (
        (b"", "no known format"),
        (b"weights!", "no known format"),
        (struct.pack("<Q", 1 << 62) + b"{}", "no known format"),
        (with_header(b"{]"), "not valid JSON"),
        (with_header(b"[" * 100_000), "not valid JSON"),
        (with_header(b"\xff"), "not valid JSON"),
        (with_header(b'{"a": 1, "a": 1}'), "twice"),
        (with_header(b"[]"), "not a JSON object"),
        (with_header(b'{"a": 1}'), "describes 'a' badly"),
        (change(dtype="C64"), "'norm.bias' is of type 'C64'"),
        (change(dtype=[]), "describes 'norm.bias' badly|of type"),
        (change(shape=[-2, -1]), "shape or the place of 'norm.bias'"),
        (change(shape=[2.0]), "shape or the place"),
        (change(shape=[1] * 9), "shape or the place"),
        (change(shape=[0, 1 << 70], data_offsets=[0, 0]), "shape or the place"),
        (change(shape=[0, 1 << 62, 1 << 62], data_offsets=[0, 0]), "shape or the place"),
        (change(shape=[3]), "of 'norm.bias' do not fit"),
        (change(data_offsets=[0, 8]), "do not fit"),
        (change(data_offsets=[104, 1 << 60]), "do not fit"),
        (safetensors(ARRAYS)[:-1], "do not fit"),
        (safetensors(ARRAYS) + b"x", "1 bytes belong to no tensor"),
    ):
        refused(content, words)


@pytest.mark.parametrize("file", FORMATS.values(), ids=FORMATS)
def test_a_cut_or_changed_file_is_read_or_refused_and_nothing_else(file, read):
    content = file({name: ARRAYS[name] for name in ("norm.bias", "norm.num_batches_tracked")})
    for length in range(len(content)):
        with pytest.raises(InputError):
            read(content[:length])
    rng = np.random.default_rng(0)
    for place in rng.permutation(len(content))[:400]:
        changed = bytearray(content)
        changed[place] = rng.integers(256)
        try:
            tensors, _ = read(bytes(changed))
        except InputError:
            continue
        assert all(isinstance(array, np.ndarray) and array.size <= 2 for array in tensors.values())


def test_a_missing_or_too_large_file_is_refused(tmp_path, monkeypatch, refused):
    with pytest.raises(InputError, match=r"nowhere: no such file"):
        weight_files.read(tmp_path / "nowhere")
    monkeypatch.setattr(weight_files, "LARGEST_FILE", 100)
    refused(safetensors(ARRAYS), "more than the 100 that weights may have")


def test_an_endless_pickle_is_refused(monkeypatch, refused):
    monkeypatch.setattr(weight_files, "MOST_INSTRUCTIONS", 50)
    refused(stacked(*state_of(ARRAYS)), "more than 50 instructions")
