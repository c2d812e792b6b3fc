"""SIGTERM and SIGINT: noted once, in the main thread alone, and the handlers of before come back."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from thyroid_jax.errors import Interrupted, exits_cleanly
from thyroid_jax.train import signals

BOTH = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def as_from_a_terminal():
    """Background jobs of a shell ignore SIGINT, and so do their children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def handlers():
    return [signal.getsignal(number) for number in BOTH]


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_is_noted_and_said_and_the_handlers_come_back(number, capfd):
    before = handlers()
    with signals.heeded() as asked:
        assert not asked() and asked.signal is None
        os.kill(os.getpid(), number)
        assert asked() and asked.signal is number
        assert handlers() == [signal.SIG_DFL] * 2  # the second one ends the process at once
    assert handlers() == before
    assert capfd.readouterr().err.count(f"{number.name}: finishing the step") == 1


def test_the_handlers_come_back_after_an_error_too():
    before = handlers()
    with pytest.raises(KeyError), signals.heeded():
        raise KeyError
    assert handlers() == before


@pytest.mark.parametrize("number", BOTH)
def test_a_second_signal_ends_the_process_at_once(number):
    code = (
        "import os, signal, time\nfrom thyroid_jax.train import signals\nwith signals.heeded():\n"
        f"    os.kill(os.getpid(), signal.{number.name})\n    print('asked', flush=True)\n"
        f"    os.kill(os.getpid(), signal.{number.name})\n    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-number, "asked\n") and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", BOTH)
def test_outside_a_training_a_signal_ends_at_once_also_where_exceptions_are_dropped(number):
    code = (
        "import gc, os, signal\nfrom thyroid_jax.train import signals\n"
        "gc.disable()\nwith signals.at_once():\n"
        f"    gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.{number.name}))\n"
        "    gc.collect()\n    print('never')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = f"{number.name}: stopped; the same command goes on from the last checkpoint, or begins again"
    assert (done.returncode, done.stdout, done.stderr) == (signals.STATUS[number], "", f"\n{said}\n")


def test_within_a_script_a_training_finishes_its_step():
    before = handlers()
    with signals.at_once():
        outside = handlers()
        with signals.heeded() as asked:
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked.signal is signal.SIGTERM
        assert handlers() == outside != before
    assert handlers() == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.heeded() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked() and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_installs_nothing():
    found = []

    def work():
        with signals.heeded() as asked:
            found.append((handlers() == before, asked()))

    before = handlers()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(True, False)]


@pytest.mark.parametrize("status", [75, 130])
def test_a_script_prints_the_line_and_exits_with_the_status(status, capsys):
    @exits_cleanly
    def main():
        raise Interrupted("stopped after step 3; go on", status=status)

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == status
    assert capsys.readouterr() == ("", "stopped after step 3; go on\n")
    assert sorted(signals.STATUS.values()) == [75, 130]


def test_it_is_no_exception_that_a_handler_of_faults_would_swallow():
    assert issubclass(Interrupted, KeyboardInterrupt) and not issubclass(Interrupted, Exception)
