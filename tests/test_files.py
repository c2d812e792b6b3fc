"""Writing is all or nothing; reading names what is wrong."""

import errno
import json
import math
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from thyroid_jax import files
from thyroid_jax.errors import InputError


def listing(folder):
    return sorted(os.listdir(folder))


def test_bytes_text_and_json_come_back(tmp_path):
    files.write_bytes(tmp_path / "new" / "a", b"\x00\xff")
    files.write_text(tmp_path / "new" / "b", "spätes Übel\n")
    files.write_json(str(tmp_path / "new" / "c"), {"x": [1, 2.5, None, "ü"]})
    assert (tmp_path / "new" / "a").read_bytes() == b"\x00\xff"
    assert (tmp_path / "new" / "b").read_text(encoding="utf-8") == "spätes Übel\n"
    assert files.read_json(tmp_path / "new" / "c") == {"x": [1, 2.5, None, "ü"]}
    assert listing(tmp_path / "new") == ["a", "b", "c"]
    assert (tmp_path / "new" / "a").stat().st_mode & 0o777 == 0o644


def test_a_new_content_replaces_the_old_one(tmp_path):
    files.write_text(tmp_path / "a", "a long old text")
    files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new" and listing(tmp_path) == ["a"]


@pytest.mark.parametrize("stage", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_stage_leaves_the_old_file_and_no_fragment(tmp_path, monkeypatch, stage, error):
    files.write_text(tmp_path / "a", "old")

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(files.os, stage, fail)
        for name in ("a", "b"):
            with pytest.raises(type(error)):
                files.write_text(tmp_path / name, "new")
    assert (tmp_path / "a").read_text() == "old" and listing(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["x" * 255, "\u6f22" * 85])
def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path, name):
    files.write_text(tmp_path / name, "all of it")
    assert listing(tmp_path) == [name] and (tmp_path / name).read_text() == "all of it"


def test_a_folder_that_cannot_be_written_into_is_named_with_the_file(tmp_path, monkeypatch):
    """And not with the fragment that nobody has asked for."""

    def read_only(**where):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "fragment")

    monkeypatch.setattr(files.tempfile, "mkstemp", read_only)
    with pytest.raises(PermissionError) as found:
        files.write_text(tmp_path / "a", "new")
    assert found.value.filename == str(tmp_path / "a") and found.value.errno == errno.EACCES


def test_a_folder_in_the_place_of_a_file_is_named_and_stays(tmp_path):
    (tmp_path / "a").mkdir()
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    with pytest.raises(IsADirectoryError) as found:
        files.write_bytes(tmp_path / "a", b"new")
    assert found.value.filename == str(tmp_path / "a") and listing(tmp_path) == ["a"]
    again = os.open(os.devnull, os.O_RDONLY)
    os.close(again)
    assert again == spare  # no file is left open


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_disk_that_is_full_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    files.write_text(tmp_path / "a", "old")
    real = os.fdopen

    def onto_a_full_disk(handle, mode):
        os.close(handle)
        return real(os.open("/dev/full", os.O_WRONLY), mode)

    monkeypatch.setattr(files.os, "fdopen", onto_a_full_disk)
    with pytest.raises(OSError) as caught:
        files.write_bytes(tmp_path / "a", b"new" * 100_000)
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "a").read_text() == "old" and listing(tmp_path) == ["a"]


@pytest.mark.parametrize("value", [math.nan, math.inf, {"x": [-math.inf]}])
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, value):
    files.write_json(tmp_path / "a", 1)
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "a", value)
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a", {"x": object()})
    assert files.read_json(tmp_path / "a") == 1 and listing(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": 1,}', b"\xff\xfe", b"NaN", b'{"a": -Infinity}', b"[" * 200_000, b"1" * 5_000, b"1 2"]
)
def test_malformed_json_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_missing_and_oversized_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.json: no such file"):
        files.read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="no such file"):
        files.read_json(tmp_path)
    text = json.dumps(list(range(100)))
    (tmp_path / "a.json").write_text(text)
    assert files.read_json(tmp_path / "a.json", largest=len(text)) == list(range(100))
    with pytest.raises(InputError, match=rf"a\.json: {len(text)} bytes, more than the {len(text) - 1}"):
        files.read_json(tmp_path / "a.json", largest=len(text) - 1)


HOLD = """
import sys, time
from pathlib import Path
from thyroid_jax.files import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_admits_one_process_and_a_killed_one_frees_it(tmp_path):
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            with (
                pytest.raises(InputError, match="another process is writing into this folder"),
                files.alone_in(tmp_path),
            ):
                pass
        finally:
            holder.kill()
    assert listing(tmp_path) == [".lock"]
    for _ in range(2):
        with files.alone_in(tmp_path):
            assert listing(tmp_path) == [".lock"]
            with pytest.raises(InputError, match="another process"), files.alone_in(tmp_path):
                pass
        assert listing(tmp_path) == []


def test_a_lock_is_freed_by_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), files.alone_in(tmp_path):
        raise ZeroDivisionError
    assert listing(tmp_path) == []
