"""Records made by several threads are those of one thread: in order, with the same notes, and bounded in number."""

import threading
import time

import pytest

from data_prep.reading import fault_of, in_order
from thyroid_jax.data.record import Notes
from thyroid_jax.errors import InputError


def make(item, own):
    time.sleep(0.002 * (item % 3))
    own.counts["items"] += 1
    own.counts[f"kind {item % 2}"] += 1
    own.remarks.append((str(item), "seen"))
    if item % 5 == 0:
        own.dropped.append((str(item), "a fifth"))
        return None
    with fault_of(f"{item}.png", own):
        if item % 7 == 0:
            raise InputError("size: too large")
        return item * 10
    return None


def test_several_threads_give_what_one_gives():
    found, notes = {}, {}
    for threads in (1, 4):
        notes[threads] = Notes()
        found[threads] = list(in_order(make, range(40), notes[threads], threads=threads))
    assert found[1] == found[4] == [item * 10 for item in range(40) if item % 5 and item % 7]
    assert notes[1] == notes[4]
    assert notes[1].counts == {"items": 40, "kind 0": 20, "kind 1": 20}
    assert list(notes[1].counts) == ["items", "kind 0", "kind 1"] == list(notes[4].counts)
    assert notes[1].faults[:2] == [
        "7.png: size: too large; replace the file by the original.",
        "14.png: size: too large; replace the file by the original.",
    ]


def test_few_results_are_held_and_a_consumer_may_stop():
    begun = []
    records = in_order(lambda item, own: begun.append(item) or item, range(1000), Notes(), threads=3)
    assert [next(records) for _ in range(2)] == [0, 1]
    time.sleep(0.05)
    assert len(begun) <= 2 + 2 * 3
    before = threading.active_count()
    records.close()
    assert threading.active_count() < before and len(begun) <= 8


def test_an_error_of_the_program_is_not_swallowed():
    def broken(item, own):
        return 1 / (item - 3)

    with pytest.raises(ZeroDivisionError):
        list(in_order(broken, range(10), Notes(), threads=2))
