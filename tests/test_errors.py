"""What a user causes ends in one message and status 2; a fault of the library keeps its traceback."""

import errno
import os
import subprocess
import sys

import pytest

from thyroid_jax.errors import InputError, exits_cleanly, names_a_full_disk, raise_all


def raising(error):
    @exits_cleanly
    def main(*_, **__):
        """Words of its own."""
        raise error

    return main


def test_an_input_error_is_printed_and_exits_with_2(capsys):
    with pytest.raises(SystemExit) as caught:
        raising(InputError("a.json: no such file."))()
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: a.json: no such file.\n")


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR],
)
def test_a_disk_that_cannot_be_written_is_the_users_to_mend(number, capsys):
    with pytest.raises(SystemExit) as caught:
        raising(OSError(number, "cannot be written", "runs/a"))()
    assert caught.value.code == 2
    advice = {"Free some space": (errno.ENOSPC, errno.EDQUOT), "may write to": (errno.EACCES, errno.EROFS)}
    message = capsys.readouterr().err
    assert message.startswith("error: runs/a: cannot be written. ")
    assert all(words in message for words, numbers in advice.items() if number in numbers)
    with pytest.raises(SystemExit):
        raising(OSError(number, "cannot be written"))()
    assert capsys.readouterr().err.startswith("error: output: cannot be written.")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        TypeError("a bug"),
        OSError(errno.EIO, "I/O"),
        FileNotFoundError("gone"),
        KeyboardInterrupt(),
    ],
)
def test_anything_else_is_a_bug_and_stays_one(error, capsys):
    with pytest.raises(type(error)) as caught:
        raising(error)()
    assert caught.value is error
    assert capsys.readouterr().err == ""


def test_a_main_that_works_gets_its_arguments_and_keeps_its_name():
    seen = []

    @exits_cleanly
    def main(*args, **kwargs):
        """Words of its own."""
        seen.append((args, kwargs))

    assert main(1, two=2) is None and seen == [((1,), {"two": 2})]
    assert (main.__name__, main.__doc__) == ("main", "Words of its own.")


def test_all_problems_are_told_at_once_and_none_is_none():
    raise_all([], "Nothing:")
    with pytest.raises(InputError) as caught:
        raise_all(["first", "second"], "Two faults:")
    assert str(caught.value) == "Two faults:\n  first\n  second"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("writing: No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: chunk"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_every_way_to_report_a_full_disk_becomes_one_that_names_the_place(error):
    with pytest.raises(OSError) as full, names_a_full_disk("somewhere"):
        raise error
    assert (full.value.errno, full.value.filename) == (errno.ENOSPC, "somewhere")


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG])
def test_a_quota_and_a_limit_of_the_size_are_named_as_what_they_are(number):
    for error in (OSError(number, "x"), RuntimeError(f"writing: {os.strerror(number)} [os_error_code]")):
        with pytest.raises(OSError) as full, names_a_full_disk("somewhere"):
            raise error
        assert (full.value.errno, full.value.filename) == (number, "somewhere")


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EIO, "broken"), KeyError("x")])
def test_other_errors_pass_through(error):
    with pytest.raises(type(error)) as same, names_a_full_disk("somewhere"):
        raise error
    assert same.value is error


def test_a_reader_that_goes_away_ends_the_program_without_a_traceback():
    code = "from thyroid_jax.errors import exits_cleanly; exits_cleanly(lambda: print('x' * 100000))()"
    command = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()
    assert command.stderr.read() == b"" and command.wait() == 1
    command.stderr.close()
