"""Files of strangers: regular files of limited size are read, everything else is refused by an InputError."""

import contextlib
import os
import sys
from functools import partial
from importlib.util import find_spec

import pytest

from thyroid_jax import untrusted
from thyroid_jax.errors import InputError
from thyroid_jax.untrusted import is_there, read_bytes, read_start, read_xml

needs_defusedxml = pytest.mark.skipif(not find_spec("defusedxml"), reason="needs the extra `data`")
READERS = [
    pytest.param(partial(read_bytes, largest=100), id="read_bytes"),
    pytest.param(partial(read_start, count=100), id="read_start"),
    pytest.param(partial(read_xml, largest=100), id="read_xml", marks=needs_defusedxml),
]
BOMB = """<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;"><!ENTITY z "&y;&y;&y;&y;">]><a>&z;</a>"""


@pytest.fixture
def file(tmp_path):
    """A regular file of ten bytes."""
    path = tmp_path / "ten"
    path.write_bytes(b"0123456789")
    return path


def refused(read, path, message):
    """The reader raises at once, without the file's name."""
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(path) not in str(caught.value) and path.name not in str(caught.value)


def test_a_name_is_there_whatever_it_stands_for(tmp_path, file):
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert all(is_there(tmp_path / name) for name in ("ten", "lost", "loop", "pipe", "."))
    assert not is_there(tmp_path / "nowhere") and not is_there(file / "below")


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "aside").symlink_to(tmp_path / "directory")
    for name in ("fifo", "directory", "null", "zeros", "aside"):
        refused(read, tmp_path / name, "^file: is not a regular file$")


@pytest.mark.parametrize("read", READERS)
def test_links_that_lead_to_no_file_are_refused(tmp_path, read):
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    refused(read, tmp_path / "lost", "^file: is a link that leads nowhere$")
    refused(read, tmp_path / "nowhere", "^file: is not there$")
    refused(read, tmp_path / "first", r"^file: cannot be read \(Too many levels of symbolic links\)$")


@pytest.mark.parametrize("read", READERS)
def test_names_that_no_file_can_have_are_refused(tmp_path, file, read):
    refused(read, file / "below", r"^file: cannot be read \(Not a directory\)$")
    refused(read, tmp_path / ("a" * 5000), r"^file: cannot be read \(File name too long\)$")
    refused(read, tmp_path / "with\0zero", r"^file: cannot be read \(.*embedded null .*\)$")
    refused(read, tmp_path / "lone\udfff", "^file: (is not there|cannot be read)")


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_may_not_be_opened_is_refused(monkeypatch, file, read):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(untrusted.os, "open", forbidden)
    refused(read, file, r"^file: cannot be read \(Permission denied\)$")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a regular file that fails when it is read")
@pytest.mark.parametrize("read", READERS)
def test_a_file_that_fails_while_it_is_read_is_refused(tmp_path, read):
    (tmp_path / "memory").symlink_to("/proc/self/mem")
    refused(read, tmp_path / "memory", r"^file: cannot be read \(Input/output error\)$")


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path, file):
    (tmp_path / "link").symlink_to(file)
    for path in (file, tmp_path / "link"):
        assert read_bytes(path, largest=10) == read_start(path, 10) == b"0123456789"


@needs_defusedxml
def test_a_file_over_its_limit_is_refused(file):
    for read in (read_bytes, read_xml):
        refused(partial(read, largest=9), file, "^file: 10 bytes, such a file has at most 9$")


def test_a_file_that_grows_while_it_is_read_is_refused(monkeypatch, file):
    small = os.stat(file)
    file.write_bytes(bytes(100))
    monkeypatch.setattr(untrusted.os, "fstat", lambda handle: small)
    message = "^file: grows while it is read, such a file has at most 50 bytes$"
    refused(partial(read_bytes, largest=50), file, message)


def test_the_start_of_a_file_of_any_size(tmp_path, file):
    assert [read_start(file, count) for count in (0, 4, 10, 99)] == [b"", b"0123", b"0123456789", b"0123456789"]
    with (tmp_path / "huge").open("wb") as huge:
        huge.write(b"start")
        huge.truncate(1 << 40)
    assert read_start(tmp_path / "huge", 6) == b"start\0"
    (tmp_path / "empty").touch()
    assert read_start(tmp_path / "empty", 4) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a list of open files")
def test_no_file_is_left_open(tmp_path, file):
    before = len(os.listdir("/proc/self/fd"))
    for path, largest in ((file, 10), (file, 5), (tmp_path, 5)):
        for read in (partial(read_bytes, largest=largest), partial(read_start, count=largest)):
            with contextlib.suppress(InputError):
                read(path)
    assert len(os.listdir("/proc/self/fd")) == before


@needs_defusedxml
def test_xml_is_read_without_entities(tmp_path):
    path = tmp_path / "a"
    path.write_text("<case><age>50</age></case>")
    assert read_xml(path, largest=100).findtext("age") == "50"
    for content, message in (
        (BOMB, "^XML: declares a document type or entities "),
        ('<!DOCTYPE a SYSTEM "http://example.org/a.dtd"><a/>', "^XML: declares a document type or entities "),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "^XML: declares a document type"),
        ("<case><age>50</case>", "^XML: not well-formed "),
        ("", "^XML: not well-formed "),
        ("\0\0\0\0", "^XML: not well-formed "),
        ('<?xml version="1.0" encoding="none"?><a/>', "^XML: not well-formed "),
        ("<a>" * 200_000, "^XML: not well-formed "),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            read_xml(path, largest=1 << 20)
