"""The digest of a record is that of everything in it; a card says nothing that a table or a report could not carry."""

import hashlib
import math
import re
import struct
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CARD, toys

from thyroid_jax.data.record import Entry, Record, data_digest, digest_of, entry_of, is_name, problems_of
from thyroid_jax.errors import InputError

IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4)
MASK, OTHER = IMAGE > 5, IMAGE % 3 == 0
FULL = Record(
    case="a",
    group="bc",
    source="d.png",
    image=IMAGE,
    mask=MASK,
    reader_masks=(MASK, OTHER),
    grade=1,
    reader_grades=(1, 2),
    malignant=False,
    descriptors={"margins": "smooth", "halo": "no"},
    spacing=(0.1, 0.2),
)
NAN = math.nan
CHANGES = {
    "case": ["ab", "A", "a "],
    "group": ["c", "a", "bc\n"],
    "source": ["", "d.jpg"],
    "image": [255 - IMAGE, IMAGE.reshape(4, 3), IMAGE.reshape(2, 6), IMAGE[:, ::-1], IMAGE[:2]],
    "mask": [None, ~MASK, MASK & False, MASK.reshape(4, 3), MASK ^ (IMAGE == 0)],
    "reader_masks": [(), (MASK,), (OTHER, MASK), (MASK, ~OTHER), (MASK, OTHER, OTHER)],
    "grade": [None, 0, 2],
    "reader_grades": [(), (2, 1), (1, 2, 2), (12,)],
    "malignant": [None, True],
    "descriptors": [
        {},
        {"margins": "no", "halo": "smooth"},
        {"margins": "smooth"},
        {"marginss": "mooth", "halo": "no"},
    ],
    "spacing": [(0.2, 0.1), (NAN, 0.2), (0.1, NAN), (NAN, NAN), (math.nextafter(0.1, 1), 0.2)],
    "official_test": [True],
    "cleaning": [("cut",), ("cut", "filled"), ("filled", "cut"), ("cutfilled",)],
}


def test_any_one_field_changes_the_digest():
    assert set(CHANGES) == {field.name for field in fields(Record)}
    changed = [replace(FULL, **{name: value}) for name, values in CHANGES.items() for value in values]
    digests = [record.digest for record in (FULL, *changed)]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 32 for digest in digests)


def test_what_is_said_in_another_way_has_the_same_digest():
    same = unchecked(
        FULL,
        image=np.asfortranarray(IMAGE),
        mask=np.repeat(MASK, 2, axis=1)[:, ::2],
        grade=np.int64(1),
        malignant=np.False_,
        descriptors={"halo": "no", "margins": "smooth"},
        spacing=[np.float64(0.1), 0.2],
    )
    assert same.digest == FULL.digest
    one, other = (replace(FULL, spacing=(nan, 1)) for nan in (math.nan, -math.nan))
    assert one.digest == other.digest == replace(one, spacing=(math.nan, 1.0)).digest


def test_the_digest_is_the_hash_of_these_very_bytes():
    """Written out by hand: another machine, or another version of a library, must come to the same."""
    record = Record("é", "g", "s", np.array([[1, 2]], np.uint8), np.array([[True, False]]), grade=3, spacing=(0.5, NAN))
    fields_in_order = [
        b"s4;case" + b"s2;\xc3\xa9",
        b"s8;cleaning" + b"l0;",
        b"s11;descriptors" + b"m0;",
        b"s5;grade" + b"i3;",
        b"s5;group" + b"s1;g",
        b"s5;image" + b"auint8 1 2;\x01\x02",
        b"s9;malignant" + b"-",
        b"s4;mask" + b"abool 1 2;\x01\x00",
        b"s13;official_test" + b"F",
        b"s13;reader_grades" + b"l0;",
        b"s12;reader_masks" + b"l0;",
        b"s6;source" + b"s1;s",
        b"s7;spacing" + b"l2;f" + struct.pack(">d", 0.5) + b"f\x7f\xf8" + bytes(6),
    ]
    assert record.digest == hashlib.sha256(b"m13;" + b"".join(fields_in_order)).hexdigest()[:32]
    assert record.content == hashlib.sha256(b"auint8 1 2;\x01\x02").hexdigest()[:32]


def unchecked(example, **changes):
    """A copy with other fields, past the type checker of the tests and past ``__post_init__``."""
    copy = object.__new__(type(example))
    for field in fields(example):
        object.__setattr__(copy, field.name, changes.get(field.name, getattr(example, field.name)))
    return copy


SCALARS = st.none() | st.booleans() | st.integers(-99, 99) | st.floats() | st.text("ils1;:-TF", max_size=4)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("is1;", max_size=2), inner, max_size=3)
)


def spelt(value):
    """``value`` as text, from which it could be read back."""
    if isinstance(value, dict):
        return f"{{{','.join(f'{key!r}:{spelt(value[key])}' for key in sorted(value))}}}"
    return f"[{','.join(map(spelt, value))}]" if isinstance(value, list) else repr(value)


@settings(max_examples=300, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=12))
def test_values_have_the_same_digest_only_when_they_are_the_same(values):
    assert len({digest_of(value) for value in values}) == len({spelt(value) for value in values})


@pytest.mark.parametrize("value", [b"bytes", np.zeros(2), np.zeros(2, np.int32), {1, 2}, object()])
def test_what_has_no_digest(value):
    with pytest.raises(TypeError, match="no digest of a value of kind"):
        digest_of(value)


def test_the_entry_says_what_the_record_holds():
    assert entry_of(FULL, CARD) == Entry("a", "bc", FULL.content, FULL.digest, "mid", False, True, 2, True, False)
    bare = Record("a", "b", "c", IMAGE, spacing=(NAN, 0.1), official_test=True)
    assert entry_of(bare, CARD) == Entry(
        "a", "b", bare.content, bare.digest, None, None, False, 0, False, official_test=True
    )
    assert bare.content == FULL.content != replace(bare, image=IMAGE.reshape(4, 3)).content


def test_the_digest_of_a_data_set_is_that_of_all_records_in_any_order():
    entries = [entry_of(record, CARD) for record in toys()]
    whole = data_digest(CARD, entries)
    assert whole == data_digest(CARD, entries[::-1])
    assert whole == data_digest(replace(CARD, title="Other words", faults=()), entries)
    others = [
        data_digest(CARD, entries[:-1]),
        data_digest(CARD, [*entries, entries[0]._replace(case="more")]),
        data_digest(replace(CARD, grades=("mid", "low", "high")), entries),
        *(
            data_digest(CARD, [entries[0]._replace(**{name: value}), *entries[1:]])
            for name, value in (("digest", "0"), ("group", "9"), ("grade", "mid"), ("official_test", True))
        ),
    ]
    assert len({whole, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"case": ""}, "case is empty"),
        ({"group": ""}, "group is empty"),
        ({"source": "\udcff.png"}, "cannot be written as UTF-8"),
        ({"descriptors": {"halo": "\ud800"}}, "descriptor 'halo' is .* cannot be written"),
        ({"image": IMAGE.astype(float)}, r"image is float64\[3, 4\], not uint8"),
        ({"image": IMAGE[None]}, r"image is uint8\[1, 3, 4\], not uint8\[h w\]"),
        ({"image": IMAGE[:0]}, "image is uint8"),
        ({"image": IMAGE * 0}, "one grey value"),
        ({"mask": MASK & False}, "mask is empty"),
        ({"mask": MASK.astype(np.uint8)}, "mask is of uint8, not of truth values"),
        ({"mask": MASK[:2]}, r"mask is \(2, 4\), image is \(3, 4\)"),
        ({"reader_masks": (MASK, MASK.T)}, "mask of reader 2 is"),
        ({"grade": 3}, "grade is 3, but there are 3 classes"),
        ({"grade": -1}, "grade is -1"),
        ({"reader_grades": (0, 4)}, "grade of a reader is 4"),
        ({"spacing": (0.0, 1.0)}, "spacing is"),
        ({"spacing": (math.inf, 1.0)}, "spacing is"),
    ],
)
def test_records_that_cannot_be_right(change, problem):
    assert problems_of(FULL, CARD) == []
    problems = problems_of(replace(FULL, **change), CARD)
    assert any(re.search(problem, text) for text in problems), problems


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"grades": ("benign", "Malignant")}, "'malignant' is not a grade"),
        ({"grades": ("benign", "Unknown")}, "'unknown' is not a grade"),
        ({"grades": ("low", "")}, "'' is not plain text"),
        ({"grades": ("low", "LOW")}, "'low' is named 2 times"),
        ({"grades": ("low", "=SUM(A1)")}, "is not plain text"),
        ({"grades": ("low", "-1")}, "is not plain text"),
        ({"grades": ("low", "high ")}, "is not plain text"),
        ({"grades": ("low", "a\nb")}, "is not plain text"),
        ({"grades": ("low", "x" * 41)}, "is not plain text"),
        ({"grades": ["low", "high"]}, "grades: .* is not a tuple of texts"),
        ({"grades": ("low", 4)}, "grades: .* is not a tuple of texts"),
        ({"faults": "one"}, "faults: 'one' is not a tuple"),
        ({"title": None}, "title: None is not a text"),
        ({"expected": {"images": 1.5}}, "expected: "),
        ({"name": "../toy"}, "name: '../toy' must be small letters"),
        ({"name": "Toy"}, "name: 'Toy' must be small letters"),
    ],
)
def test_cards_that_cannot_be_used(change, problem):
    with pytest.raises(InputError, match=problem):
        unchecked(CARD, **change).__post_init__()


def test_everything_that_is_wrong_with_a_card_is_listed():
    with pytest.raises(InputError, match=r"(?s)mend these fields.*name: .*'' is not plain.*'malignant' is not a grade"):
        replace(CARD, name="no name", grades=("", "malignant"))


@pytest.mark.parametrize(("name", "good"), [("ddti", True), ("tn3k", True), ("a_b", True), ("", False), ("3d", False)])
def test_names_of_data_sets(name, good):
    assert is_name(name) is good
    assert not is_name(f"{name}/x") and not is_name(f"{name}\n") and not is_name(None)
